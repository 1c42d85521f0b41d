"""What a trained model is asked for: how well it does, and what it says of new data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from ..data import Source

__all__ = ["PARTS", "HasIntervals", "Predictor"]

PARTS = ("train", "validation", "test")


class Predictor(Protocol):
    """A trained model with what reads its data. Each task has one: `Entry.predictor_type().load(checkpoint, ...)`."""

    draws: ClassVar[bool]
    """Whether `evaluate` has pictures to draw."""

    def own(self, part: str) -> Any:
        """A part of the data that the run was trained with.

        Args:
            part: "train", "validation" or "test".

        Raises:
            DataError, RunError: the data are not there, are others now, or have no such part.
        """
        ...

    def read(self, source: Source) -> Any:
        """New data.

        Raises:
            DataError: they cannot be used.
        """
        ...

    def evaluate(self, data: Any, pictures: Path | None = None) -> dict[str, float]:
        """The measures of what `own` or `read` gave.

        Args:
            data: the data.
            pictures: a folder to draw what they look like into, or None.
        """
        ...

    def told(self, measures: dict[str, float]) -> str:
        """Them in words, a line or more."""
        ...

    def predict(self, data: Any) -> Iterator[dict[str, Any]]:
        """The rows of a table, one after another, each with the same columns."""
        ...


@runtime_checkable
class HasIntervals(Protocol):
    """A predictor that says between which values a share of them lies."""

    def with_interval(self, share: float) -> Predictor:
        """The same, for another share than the run was told.

        Raises:
            OptionError: a share that is none, or of which the run has learned nothing.
        """
        ...
