"""What the loop asks of a task, and what it hands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["WHOLE", "Batch", "Batches", "Loss", "Panel", "Share", "Task", "Watched"]


@dataclass(frozen=True)
class Share:
    """Part `index` of `count`: of the rows of a batch, or of what is evaluated.

    A batch is read in parts by several processes, or by one in turn. Parts may be empty.
    """

    index: int = 0
    count: int = 1

    def of(self, size: int) -> slice:
        """This part of `size` rows: neighbours, and as many as in any other part, give or take one.

        >>> [Share(k, 3).of(7) for k in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(self.index * size // self.count, (self.index + 1) * size // self.count)

    def summed(self, values: Tensor) -> Tensor:
        """The sum of what the processes of a distributed run hold; `values` itself where there is one process."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values


WHOLE = Share()
"""All of it."""


class Batch(Protocol):
    """A part of a batch."""

    @property
    def seen(self) -> int:
        """How much of the data the whole batch is, in the task's unit."""
        ...

    @property
    def weight(self) -> float:
        """How many terms the loss of the whole batch is the mean of."""
        ...

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        ...


class Batches(Protocol):
    """The training part in batches: a pure function of the epoch and the place in it, so that a run goes on exactly."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def get(self, epoch: int, index: int, share: Share) -> Batch:
        """A part of batch `index` of `epoch`; both count from 0."""
        ...


@dataclass(frozen=True)
class Loss:
    """What a part of a batch costs.

    Args:
        total: to be differentiated: the sum over the part's terms, penalties included, each weighed as a term is.
        terms: the same sum without penalties: what is reported.
        weight: how many terms the part has.
        carried: what the next batch of the same epoch is given, such as a state; None for nothing.
    """

    total: Tensor
    terms: Tensor
    weight: float
    carried: Any = None


@dataclass(frozen=True)
class Watched:
    """The measure that decides which weights are best.

    Args:
        name: of the measure, as `Task.evaluate` names it.
        higher: whether more of it is better.
        tie: another measure, of which less is better; it decides between equals, such as equal accuracies.
    """

    name: str
    higher: bool = False
    tie: str | None = None

    def better(self, measures: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether measures beat the best so far, which are empty before the first."""
        if not best:
            return True
        value, other = measures[self.name], best[self.name]
        if value == other and self.tie is not None:
            return measures[self.tie] < best[self.tie]
        return value > other if self.higher else value < other


@dataclass(frozen=True)
class Panel:
    """A picture of one measure over the run: what it is called, and its axis."""

    measure: str
    label: str
    higher: bool = False


class Task(Protocol):
    """A kind of problem with its data and its model. The loop knows nothing else of either."""

    @property
    def name(self) -> str:
        """Of the task, as the command line calls it."""
        ...

    @property
    def unit(self) -> str:
        """What the data are counted in, such as "characters"; a column of metrics.csv."""
        ...

    @property
    def model(self) -> nn.Module:
        """On the CPU until the loop takes it."""
        ...

    @property
    def batches(self) -> Batches:
        """The training part."""
        ...

    @property
    def watched(self) -> Watched:
        """The measure of the validation part that decides."""
        ...

    @property
    def measures(self) -> Sequence[str]:
        """The measures of the validation part, in order."""
        ...

    @property
    def panels(self) -> Sequence[Panel]:
        """What is drawn, from the top."""
        ...

    def loss(self, model: nn.Module, batch: Any, carried: Any) -> Loss:
        """The loss of a part of a batch. The model is the loop's own wrapping of `self.model`."""
        ...

    def training_measures(self, mean: float) -> dict[str, float]:
        """What the mean loss of some steps is called, as `{"nats": mean}`."""
        ...

    def evaluate(self, model: nn.Module, share: Share, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """The measures of the whole validation part, of which each process reads its share; None if stopped midway."""
        ...

    def illustrate(self, model: nn.Module, run: Path, step: int, best: bool) -> str:
        """After an evaluation, the best so far or not: write what shows how well it does, and say some of it."""
        ...

    def forget(self, run: Path, step: int) -> None:
        """Take back what `illustrate` wrote of steps after this one: a run that is resumed takes them again."""
        ...

    def told(self, measures: dict[str, float]) -> str:
        """What `evaluate` gave, in words, on one line."""
        ...

    def told_training(self, measures: dict[str, float]) -> str:
        """What `training_measures` gave, in a few words."""
        ...

    def title(self) -> str:
        """The model in a few words."""
        ...

    def source(self) -> str:
        """The data in a few words."""
        ...

    def facts(self) -> Sequence[str]:
        """The data, in a few lines for whoever watches; the loop tells of the model."""
        ...

    def next_steps(self, run: str) -> Sequence[tuple[str, str]]:
        """What may be done with the run: a word, and a command to type."""
        ...

    def document(self) -> dict[str, Any]:
        """What a checkpoint holds of the task beside the weights, as plain JSON values."""
        ...
