"""What a training tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Outcome", "Reporter", "RunInfo", "Silent"]


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step."""

    out: Path
    source: str  # of the text, in words
    train_characters: int
    held_out_characters: int
    unknown_characters: int  # of the whole text, those outside the vocabulary
    vocab_size: int
    parameters: int
    model: str  # in words
    resumed_at: int | None  # the step, or None for a new run
    progress: float  # the share of the budget that is already spent


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    out: Path
    finished: bool  # False when it was interrupted
    steps: int
    characters: int
    seconds: float
    best_nats: float | None  # held-out nats per character


class Reporter(Protocol):
    """Watches a training. `stepped` is called after each step, so it must be quick."""

    def started(self, info: RunInfo) -> None:
        """The first step comes now."""

    def stepped(self, progress: float, characters: int, nats: float) -> None:
        """A step is done: the share of the budget spent, all characters so far, this step's training loss."""

    def evaluated(self, row: dict[str, float], sample: str, best: bool) -> None:
        """The held-out text was read: its row of metrics.csv with the latest `train_bits`, a sample, the best?"""

    def ended(self, outcome: Outcome) -> None:
        """All files are written."""


class Silent:
    """A reporter that says nothing."""

    def started(self, info: RunInfo) -> None:
        """Say nothing."""

    def stepped(self, progress: float, characters: int, nats: float) -> None:
        """Say nothing."""

    def evaluated(self, row: dict[str, float], sample: str, best: bool) -> None:
        """Say nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Say nothing."""
