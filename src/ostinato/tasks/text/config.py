"""The options of the task text. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ...training.config import Batching, Evaluation, Length, Machine, Optimization
from ...training.options import Config, Group, option

__all__ = ["Regularization", "Samples", "TextConfig", "TextData", "TextModel"]


@dataclass(frozen=True)
class TextData(Group):
    """Text."""

    data: str | None = option(
        None,
        "A text, or a name of ostinato data list.",
        may_change=True,
        shown="the source of Python's standard library",
    )  # the file may have moved; its content is checked
    encoding: str = option("utf-8", "Of the file.", may_change=True)
    tokens: str = option(
        "characters",
        "What the text is read as: characters, bytes, words or bpe (byte pairs).",
        choices=("characters", "bytes", "words", "bpe"),
    )
    vocab_size: int = option(8000, "The most words or byte pairs that are told apart.", low=3)
    max_characters: int | None = option(
        None, "Read no more of the text.", low=1, shown="all of a file, 5 million of the library"
    )
    held_out: float = option(0.1, "Share of the text, its end, to evaluate on.", above=0, below=1)
    bptt: int = option(100, "Steps the gradient flows back.", low=1)


@dataclass(frozen=True)
class TextModel(Group):
    """Model."""

    cell: str = option("lstm", "A cell of the catalogue, with options and transforms, or FILE.py:NAME.")
    size: tuple[str, ...] = option((), "A size of the cell's own, such as P=32.", metavar="NAME=NUMBER")
    init: tuple[str, ...] = option(
        (), "How a parameter of the cell starts, such as b_f=chrono(784).", metavar="NAME=RULE"
    )
    hidden_size: int = option(256, "Width of each layer.", low=1)
    num_layers: int = option(1, "Layers.", low=1)
    embedding_size: int | None = option(
        None, "Width of the tokens' embedding.", low=1, shown="64, or hidden_size where tied"
    )
    tied: bool = option(False, "Decode with the embedding's matrix (its width is then --hidden-size).")
    connections: str = option(
        "plain", "Between layers: plain, residual or dense.", choices=("plain", "residual", "dense")
    )
    adaptive: tuple[int, ...] = option(
        (), "An adaptive softmax, for large vocabularies: a token number where a band ends; given for each band."
    )


@dataclass(frozen=True)
class Regularization(Group):
    """Regularisation, in the places of the AWD-LSTM."""

    dropout: float = option(0.0, "On the layers' output, before the decoder.", low=0, below=1)
    hidden_dropout: float | None = option(None, "Between layers.", low=0, below=1, shown="as dropout")
    input_dropout: float = option(0.0, "On the embedded tokens.", low=0, below=1)
    embedding_dropout: float = option(0.0, "On tokens, wherever they stand in a batch.", low=0, below=1)
    weight_drop: float = option(0.0, "On the elements of the recurrent matrices.", low=0, below=1)
    locked: bool = option(True, "One mask for all steps of a piece of text, rather than one for each.")
    ar: float = option(0.0, "Activation regularisation: weight of the mean square of the dropped output.", low=0)
    tar: float = option(0.0, "Temporal activation regularisation: of the output's change from step to step.", low=0)


@dataclass(frozen=True)
class Samples(Group):
    """Samples."""

    sample_length: int = option(300, "Characters of the sample after each evaluation.", low=0, may_change=True)


@dataclass(frozen=True)
class TextConfig(Config):
    """What a run of the task text is told; the defaults are the recipe for a text of some millions of characters."""

    text: TextData = TextData()
    model: TextModel = TextModel()
    regularization: Regularization = Regularization()
    length: Length = Length()
    batching: Batching = Batching()
    optimization: Optimization = Optimization()
    evaluation: Evaluation = Evaluation()
    samples: Samples = Samples()
    machine: Machine = Machine()
