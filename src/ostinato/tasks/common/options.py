"""Groups of options that several tasks have. This file imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...training.options import Group, option

__all__ = ["Layers", "Split"]


@dataclass(frozen=True)
class Layers(Group):
    """Model."""

    cell: str = option("lstm", "A cell of the catalogue, with options and transforms, or FILE.py:NAME.")
    size: tuple[str, ...] = option((), "A size of the cell's own, such as P=32.", metavar="NAME=NUMBER")
    init: tuple[str, ...] = option(
        (), "How a parameter of the cell starts, such as b_f=chrono(784).", metavar="NAME=RULE"
    )
    hidden_size: int = option(128, "Width of each layer.", low=1)
    num_layers: int = option(1, "Layers.", low=1)
    bidirectional: bool = option(False, "Read each sequence in both directions.")
    connections: str = option(
        "plain", "Between layers: plain, residual or dense.", choices=("plain", "residual", "dense")
    )
    embedding_size: int = option(64, "Width of the tokens' embedding, where the input is tokens.", low=1)
    input_dropout: float = option(0.0, "On the layers' input.", low=0, below=1)
    hidden_dropout: float = option(0.0, "Between layers.", low=0, below=1)
    dropout: float = option(0.0, "On the layers' output.", low=0, below=1)
    weight_drop: float = option(0.0, "On the elements of the recurrent matrices.", low=0, below=1)

    def shape(self) -> str:
        """Their number and width in a few words.

        >>> Layers(num_layers=2, bidirectional=True).shape()
        '2 x 128, both ways'
        """
        return f"{self.num_layers} x {self.hidden_size}" + (", both ways" if self.bidirectional else "")


@dataclass(frozen=True)
class Split(Group):
    """Parts."""

    validation: float = option(0.15, "Share of the data that decides which weights are best.", above=0, below=1)
    test: float = option(
        0.15,
        "Share of the data that is kept for the end; not used where the data come with a test part.",
        low=0,
        below=1,
    )
    split_seed: int = option(0, "Another seed gives other parts.", low=0)
    folds: int | None = option(None, "Take the test part by cross-validation with so many folds.", low=2, shown="no")
    fold: int | None = option(None, "Which fold is the test part, from 0.", low=0, shown="each in turn, a run for each")

    def check(self) -> None:
        """There is something left to train on, and the fold exists."""
        if self.folds is None and self.validation + self.test >= 1.0:
            raise OptionError(
                f"validation is {self.validation:g} and test {self.test:g}; pass shares that leave some to train on."
            )
        if self.fold is not None and self.fold >= (self.folds or 0):
            raise OptionError(f"fold is {self.fold} of {self.folds or 'no'} folds; pass --folds, they count from 0.")
