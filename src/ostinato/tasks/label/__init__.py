"""The task label: an answer at every step of a sequence, or the moments at which something happens."""

from __future__ import annotations
