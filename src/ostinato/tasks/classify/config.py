"""The options of the task classify. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...training.config import Batching, Evaluation, Length, Machine, Optimization
from ...training.options import Config, Group, option
from ..common.options import Layers, Split

__all__ = ["ClassifyConfig", "ClassifyData", "ClassifyModel", "Objective", "Reading"]

_POOLINGS = ("last", "mean", "max", "attention")


@dataclass(frozen=True)
class ClassifyData(Group):
    """Data."""

    data: str | None = option(
        None,
        "Labelled sequences: a table (CSV, TSV, JSON lines, Parquet) of texts or with a row for each step, a folder "
        "with a folder or a text file for each class, .npz, .ts, MNIST's idx, or a name of ostinato data list.",
        may_change=True,  # the file may have moved; its content is checked
        shown="none, it must be given",
    )
    test_data: str | None = option(
        None, "The test part, in a file of its own.", may_change=True, shown="where the data give one, else --test"
    )
    text_column: str = option("text", "Of a table: the texts.")
    label_column: str = option("label", "Of a table: the labels.")
    id_column: str = option("id", "Of a table: whose step a row is, or the name of a text.")
    time_column: str | None = option(
        None, "Of a table of steps: times, which must rise within a sequence.", shown="not looked at"
    )
    value_column: tuple[str, ...] = option(
        (), "Of a table of steps: a channel; may be given several times.", shown="all other columns"
    )
    encoding: str = option("utf-8", "Of texts.")
    missing: str = option(
        "refuse",
        "Missing values of channels: refuse, or interpolate on a straight line.",
        choices=("refuse", "interpolate"),
    )
    min_examples: int = option(1, "Leave out classes with fewer examples.", low=1)


@dataclass(frozen=True)
class Reading(Group):
    """Reading."""

    tokens: str = option("characters", "Of a text: characters or words.", choices=("characters", "words"))
    lower: bool = option(False, "Read texts in lower case.")
    min_count: int = option(1, "Tokens that the training part has less often are unknown.", low=1)
    subwords: int = option(
        0,
        "Of words: read their spelling too, by those pieces of 2 to 6 signs that so many different words of the "
        "training part have.",
        low=0,
        shown="words alone",
    )
    max_length: int | None = option(None, "Read no more steps of a sequence.", low=1, shown="all of it")
    keep: str = option("start", "Which part of a longer one is read: start or end.", choices=("start", "end"))
    standardize: bool = option(
        True, "Give each channel mean 0 and variance 1, as measured on the training part.", shown="yes"
    )
    drop_constant: bool = option(False, "Leave out channels that are constant in the training part.")
    images_by: str = option("rows", "A step of an image: rows or pixels.", choices=("rows", "pixels"))
    permute: int | None = option(
        None, "Read the steps of images in one random order, drawn by this seed.", low=0, shown="no"
    )

    def check(self) -> None:
        """Pieces are those of words."""
        if self.subwords and self.tokens != "words":
            raise OptionError(f"subwords are pieces of words, but tokens is {self.tokens}; pass --tokens words too.")


@dataclass(frozen=True)
class ClassifyModel(Layers):
    """Model."""

    pooling: tuple[str, ...] = option(
        ("last",),
        "From the outputs of all steps to one vector: last, mean, max or attention; several stand beside each other.",
        shown="last",
    )
    head_dropout: float = option(0.0, "On what was pooled.", low=0, below=1)
    embedding_dropout: float = option(0.0, "On whole tokens' vectors, wherever they stand.", low=0, below=1)

    def check(self) -> None:
        """Each pooling is one that there is, and comes once."""
        if not self.pooling or len(set(self.pooling)) < len(self.pooling) or not set(self.pooling) <= {*_POOLINGS}:
            raise OptionError(
                f"pooling is {', '.join(self.pooling) or 'empty'}; pass one of {', '.join(_POOLINGS)}, or several, "
                "each once."
            )


@dataclass(frozen=True)
class Objective(Group):
    """Objective."""

    class_weights: str = option(
        "none",
        "Weights of the classes in the loss: none, or balanced (all classes weigh the same).",
        choices=("none", "balanced"),
    )
    label_smoothing: float = option(0.0, "Share of a target that is spread over all classes evenly.", low=0, below=1)
    word_dropout: float = option(0.0, "In training, read tokens as unknown at this rate.", low=0, below=1)
    input_noise: float = option(0.0, "In training, standard deviation of noise on the channels.", low=0)
    watch: str = option(
        "accuracy",
        "The measure of the validation part that decides: accuracy, macro_f1 or loss; between equals, the loss.",
        choices=("accuracy", "macro_f1", "loss"),
    )


@dataclass(frozen=True)
class ClassifyConfig(Config):
    """What a run of the task classify is told; the defaults suit some thousands of short sequences."""

    data: ClassifyData = ClassifyData()
    parts: Split = Split()
    reading: Reading = Reading()
    model: ClassifyModel = ClassifyModel()
    objective: Objective = Objective()
    length: Length = Length(epochs=20.0, minutes=None)
    batching: Batching = Batching()
    optimization: Optimization = Optimization(learning_rate=2e-3)
    evaluation: Evaluation = Evaluation(evaluations=20)
    machine: Machine = Machine()
