"""The options of the task label. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...training.config import Batching, Evaluation, Length, Machine, Optimization
from ...training.options import Config, Group, option
from ..common.options import Layers, Split

__all__ = ["EventOptions", "LabelConfig", "LabelData", "LabelModel", "StepOptions"]


@dataclass(frozen=True)
class LabelData(Group):
    """Data."""

    data: str | None = option(
        None,
        "A file of sequences with their answers (columns of tokens and tags, JSON lines, .npz, .mat), or a data set's "
        "name such as jsb_chorales or mitbih.",
        may_change=True,
        shown="none, it must be given",
    )  # the file may have moved; its content is checked
    kind: str = option(
        "auto",
        "tags (one a step), multi (several a step, such as the keys of a piano), events (moments in a signal), or "
        "auto, found from the data.",
        choices=("auto", "tags", "multi", "events"),
    )
    encoding: str = option("utf-8", "Of a text file.", may_change=True)
    watch: str = option(
        "auto",
        "The measure of the validation part that decides: nll, accuracy, f1, or auto: accuracy for tags, nll for "
        "several labels, f1 for events; between equals, nll.",
        choices=("auto", "nll", "accuracy", "f1"),
    )


@dataclass(frozen=True)
class StepOptions(Group):
    """Tags and other answers at every step."""

    token_column: int = option(1, "Of a text in columns: which holds the token; from the end where below 0.")
    tag_column: int = option(-1, "Of a text in columns: which holds the tag.")
    tokens_field: str = option("tokens", "Of JSON lines: the field of the tokens.")
    tags_field: str = option("tags", "Of JSON lines: the field of the tags, or of the lists of them.")
    min_count: int = option(1, "Tokens that the training part has less often are unknown to the model.", low=1)
    word_dropout: float = option(0.0, "Read tokens as unknown at this rate in training.", low=0, below=1)
    transpose: int = option(0, "In training, shift each piano roll by up to so many keys, at random.", low=0)

    def check(self) -> None:
        """Columns count from 1, or from the end."""
        for name in ("token_column", "tag_column"):
            if getattr(self, name) == 0:
                raise OptionError(f"{name} is 0; columns count from 1, or from -1 at the end.")


@dataclass(frozen=True)
class EventOptions(Group):
    """Events."""

    rate: float | None = option(None, "Samples a second.", above=0, shown="as the file says")
    frame: int = option(4, "Samples in a step: it is asked whether an event lies among them.", low=1)
    detrend: float | None = option(
        None, "Take from each sample the mean of so many seconds around it.", above=0, shown="no"
    )
    spread: float | None = option(
        None,
        "In training, steps within so many milliseconds of an event count as it: peaks grow high and broad.",
        low=0,
        shown="a quarter of --tolerance",
    )
    tolerance: float = option(150.0, "Milliseconds by which a detection may miss an event.", low=0)
    refractory: float = option(250.0, "Least milliseconds between two detections.", low=0)
    threshold: float | None = option(
        None,
        "Least probability of a detection.",
        above=0,
        below=1,
        shown="the middle of those that are about the best on the validation part",
    )
    test_records: tuple[str, ...] = option(
        (), "A record of the test part; may be given several times.", shown="a quarter of all, drawn by --split-seed"
    )
    validation_records: tuple[str, ...] = option(
        (), "A record of the validation part.", shown="a sixth of all, of those that are not for the test"
    )


@dataclass(frozen=True)
class Reading(Group):
    """Reading."""

    normalize: str = option(
        "auto",
        "Measured features: none, train (by mean and deviation of the training part), record (each sequence by its "
        "own) or auto: record for events, none for piano rolls, else train.",
        choices=("auto", "none", "train", "record"),
    )
    window: int | None = option(
        None, "Cut sequences into windows of so many steps.", low=1, shown="500 for events, else whole sequences"
    )
    context: int | None = option(
        None,
        "Steps that are read before a window and do not count; behind it too where --bidirectional.",
        low=0,
        shown="100 where windows are cut",
    )
    gain: float = option(0.0, "In training, stretch each window's features by up to this share.", low=0, below=1)
    flip: float = option(0.0, "In training, turn windows upside down at this rate.", low=0, below=1)
    input_noise: float = option(0.0, "In training, standard deviation of noise on the features.", low=0)


@dataclass(frozen=True)
class LabelModel(Layers):
    """Model."""

    projection_size: int | None = option(
        None, "Take measured features to so many by a learned map before the layers.", low=1, shown="as they are"
    )
    head_dropout: float = option(0.0, "On the output at each step, drawn anew at each.", low=0, below=1)


@dataclass(frozen=True)
class LabelConfig(Config):
    """What a run of the task label is told."""

    label: LabelData = LabelData()
    steps: StepOptions = StepOptions()
    events: EventOptions = EventOptions()
    reading: Reading = Reading()
    split: Split = Split()
    model: LabelModel = LabelModel()
    length: Length = Length()
    batching: Batching = Batching()
    optimization: Optimization = Optimization()
    evaluation: Evaluation = Evaluation()
    machine: Machine = Machine()
