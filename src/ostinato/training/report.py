"""What a training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Outcome", "Reporter", "RunInfo", "Silent"]


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first step."""

    out: Path
    facts: Sequence[str]  # of the model and the data, a line each
    unit: str  # what the data are counted in
    told_loss: Callable[[float], str]  # a mean loss in a few words
    resumed_at: int | None  # the step, or None for a new run
    progress: float  # the share of the budget that is already spent


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    out: Path
    task: str
    finished: bool  # False when it was interrupted
    steps: int
    seen: int  # of the data, in its unit
    unit: str
    seconds: float
    parameters: int
    best: dict[str, float] | None  # the measures of the best evaluation
    best_step: int
    best_told: str  # they in words
    files: Sequence[tuple[str, str]]  # what to look at and what to type next: a word and a path or a command


class Reporter(Protocol):
    """Watches a training. `stepped` is called after each step, so it must be quick."""

    def started(self, info: RunInfo) -> None:
        """The first step comes now."""

    def stepped(self, progress: float, seen: int, loss: float) -> None:
        """A step is done: the share of the budget spent, all data so far, this step's mean loss."""

    def evaluated(self, step: int, seen: int, validation: str, training: str, shown: str, best: bool) -> None:
        """The validation part was read: its measures and the training's latest in words, what shows more, the best?"""

    def ended(self, outcome: Outcome) -> None:
        """All files are written."""


class Silent:
    """A reporter that says nothing."""

    def started(self, info: RunInfo) -> None:
        """Say nothing."""

    def stepped(self, progress: float, seen: int, loss: float) -> None:
        """Say nothing."""

    def evaluated(self, step: int, seen: int, validation: str, training: str, shown: str, best: bool) -> None:
        """Say nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Say nothing."""
