"""The eager backend: torch operations, torch's autograd."""

from __future__ import annotations

from .run import evaluate, recurrence

__all__ = ["evaluate", "recurrence"]
