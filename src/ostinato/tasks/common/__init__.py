"""What several tasks share: options of the layers, splits into parts, batches of sequences."""

from __future__ import annotations
