"""Training: one readable loop for every task, checkpoints that are never torn, metrics, pictures."""

from __future__ import annotations
