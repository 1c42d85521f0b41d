"""From layers to backends."""

from __future__ import annotations

from .recurrence import CHOICES, check_choice, recurrence
from .step import Step

__all__ = ["CHOICES", "Step", "check_choice", "recurrence"]
