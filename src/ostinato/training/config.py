"""What a training run is told. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import RunError

__all__ = ["TrainConfig"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run of a character model; the defaults are the recipe.

    Exactly one of `epochs` and `minutes` ends the run. Sizes count characters, times are in seconds unless
    the name says minutes, and losses everywhere are per character.

    Raises:
        RunError: a value out of its range.
    """

    text: str | None = None  # a file; None is the source of Python's own standard library
    encoding: str = "utf-8"
    max_characters: int | None = None  # read no more than this; None is all of a file, 5 million of the library
    held_out: float = 0.1  # this share of the text, its end, is for evaluation

    cell: str = "lstm"
    hidden_size: int = 256
    num_layers: int = 1
    embedding_size: int | None = 64  # None is hidden_size
    dropout: float = 0.0
    tied: bool = False
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)  # of the cell's own symbols, as {"P": 32}

    epochs: float | None = None
    minutes: float | None = None
    batch_size: int = 32
    bptt: int = 100
    learning_rate: float = 4e-3
    warmup: float = 0.02  # this share of the budget is spent rising to learning_rate
    final_rate: float = 0.02  # the cosine ends at this share of learning_rate
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient; 0 does not clip

    seed: int = 0
    backend: str = "auto"
    device: str = "cpu"

    log_every: int = 20  # steps between rows of metrics.csv
    eval_every: int | None = None  # steps between evaluations; None is ten in a run, fewer if they are slow
    save_every: float = 60.0  # seconds between checkpoints, besides one at each evaluation
    sample_length: int = 300  # characters of the sample after each evaluation

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise RunError(
                f"epochs is {self.epochs} and minutes is {self.minutes}; pass exactly one of them, it ends the run."
            )
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                raise RunError(f"{name} is {value}; pass {low} or more.")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise RunError(f"{name} is {value}; pass a number above 0.")
        for name in _SHARES:
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise RunError(f"{name} is {value}; pass 0 or more and less than 1.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` makes an equal config."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> TrainConfig:
        """A config from what `to_json` gave.

        Raises:
            RunError: missing, unknown or ill-typed entries.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            wrong = sorted(set(value) ^ names) if isinstance(value, dict) else type(value).__name__
            raise RunError(
                f"the config does not fit this version of Ostinato (differs in {wrong}); "
                f"use the version that wrote it, or begin another run."
            )
        try:
            return cls(**value)
        except TypeError as error:
            raise RunError(f"the config holds a value of a wrong type: {error}.") from None

    def changed(self, changes: dict[str, Any]) -> TrainConfig:
        """This config with what a resumed run may change; giving `epochs` drops `minutes` and the reverse.

        Raises:
            RunError: a change after which it would be another run.
        """
        for name, value in changes.items():
            if name not in MAY_CHANGE and value != getattr(self, name):
                option = name.replace("_", "-")
                raise RunError(
                    f"the run was begun with {name} = {getattr(self, name)!r}, got {value!r}; "
                    f"leave --{option} out to resume it, or begin another run in another folder."
                )
        changes = dict(changes)
        if "epochs" in changes and "minutes" not in changes:
            changes["minutes"] = None
        if "minutes" in changes and "epochs" not in changes:
            changes["epochs"] = None
        return dataclasses.replace(self, **changes)


MAY_CHANGE = {
    "text",  # the file may have moved; its content is checked
    "encoding",
    "epochs",
    "minutes",
    "backend",
    "device",
    "log_every",
    "eval_every",
    "save_every",
    "sample_length",
}

_AT_LEAST = {
    "max_characters": 1,
    "hidden_size": 1,
    "num_layers": 1,
    "embedding_size": 1,
    "batch_size": 1,
    "bptt": 1,
    "seed": 0,
    "weight_decay": 0,
    "clip": 0,
    "log_every": 1,
    "eval_every": 1,
    "sample_length": 0,
}
_ABOVE_ZERO = ("epochs", "minutes", "learning_rate", "save_every", "held_out")
_SHARES = ("dropout", "warmup", "final_rate", "held_out")
