"""The options that every task's training has. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from .options import Group, option

__all__ = ["BACKENDS", "Batching", "Evaluation", "Length", "Machine", "Optimization"]

BACKENDS = ("auto", "c", "triton", "eager")  # as `ostinato.runtime.CHOICES`, which imports torch


@dataclass(frozen=True)
class Length(Group):
    """Length of the run."""

    epochs: float | None = option(
        None,
        "Read the training part so often; 0.5 is half of it.",
        above=0,
        may_change=True,
        instead_of="minutes",
        shown="by minutes",
    )
    minutes: float | None = option(
        3.0, "Or: train for so long.", above=0, may_change=True, instead_of="epochs", shown="by epochs"
    )
    patience: int | None = option(
        None, "Stop after so many evaluations without a better one.", low=1, may_change=True, shown="never"
    )

    def check(self) -> None:
        """Exactly one of `epochs` and `minutes` ends the run."""
        if (self.epochs is None) == (self.minutes is None):
            raise OptionError(
                f"epochs is {self.epochs} and minutes is {self.minutes}; pass exactly one of them, it ends the run."
            )


@dataclass(frozen=True)
class Batching(Group):
    """Batches."""

    batch_size: int = option(32, "Sequences, or streams of a text, in a batch; over all devices.", low=1)
    accumulate: int = option(1, "Read a batch in so many parts, for a smaller memory; the step is the same.", low=1)


@dataclass(frozen=True)
class Optimization(Group):
    """Optimisation."""

    optimizer: str = option("adamw", "adamw, or sgd.", choices=("adamw", "sgd"))
    learning_rate: float = option(4e-3, "The highest rate.", above=0)
    momentum: float = option(0.9, "Of sgd; the first moment's decay of adamw.", low=0, below=1)
    weight_decay: float = option(0.01, "Of adamw by its decoupled rule, of sgd as a penalty.", low=0)
    schedule: str = option(
        "cosine",
        "How the rate goes: constant, cosine, step (times --decay every --decay-every epochs), plateau (times --decay "
        "when --plateau evaluations brought no better one) or one-cycle.",
        choices=("constant", "cosine", "step", "plateau", "one-cycle"),
    )
    warmup: float = option(0.02, "Share of the run in which the rate rises.", low=0, below=1)
    final_rate: float = option(0.02, "The last rate of cosine and one-cycle, a share of the highest.", low=0, below=1)
    decay: float = option(0.5, "Factor of the schedules step and plateau.", above=0, below=1)
    decay_every: float = option(1.0, "Epochs between two decays of the schedule step.", above=0)
    plateau: int = option(2, "Evaluations without a better one before the schedule plateau decays.", low=1)
    clip: float = option(1.0, "Largest norm of the gradient; 0 does not clip.", low=0)
    clip_value: float = option(0.0, "Largest size of each element of the gradient; 0 does not clip.", low=0)
    average: str = option(
        "none",
        "Evaluate and keep a mean of the weights: none, ema (exponential), swa (of all steps after --average-from) or "
        "asgd (of all steps after --nonmono evaluations without a better one).",
        choices=("none", "ema", "swa", "asgd"),
    )
    average_decay: float = option(0.999, "Of ema, for a step.", above=0, below=1)
    average_from: float = option(0.75, "The share of the run after which swa begins.", low=0, below=1)
    nonmono: int = option(5, "Evaluations without a better one before asgd begins.", low=1)


@dataclass(frozen=True)
class Evaluation(Group):
    """Evaluation and files."""

    eval_every: int | None = option(
        None,
        "Steps between evaluations.",
        low=1,
        may_change=True,
        shown="--evaluations in a run, fewer if they are slow",
    )
    evaluations: int = option(10, "Evaluations in a run, where --eval-every does not say.", low=1, may_change=True)
    log_every: int = option(20, "Steps between rows of metrics.csv.", low=1, may_change=True)
    save_every: float = option(60.0, "Seconds between checkpoints.", above=0, may_change=True)
    keep_every: int | None = option(
        None, "Keep a checkpoint of its own every so many steps.", low=1, may_change=True, shown="best and last alone"
    )


@dataclass(frozen=True)
class Machine(Group):
    """Machine."""

    seed: int = option(0, "The same seed gives the same run.", low=0)
    device: str = option("cpu", "cpu, cuda, mps or auto.", choices=("auto", "cpu", "cuda", "mps"), may_change=True)
    devices: int = option(1, "Processes of this machine, each with a device of its own.", low=1)
    nodes: int = option(1, "Machines; each runs the same command, as torchrun or its like starts it.", low=1)
    precision: str = option(
        "32-true",
        "32-true, bf16-mixed, 16-mixed (on a GPU), bf16-true or 64-true.",
        choices=("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"),
    )
    backend: str = option("auto", "eager, c, triton (on a GPU) or auto.", choices=BACKENDS, may_change=True)
