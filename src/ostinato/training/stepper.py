"""One step of gradient descent: the numbers of a training, apart from its files and its clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..errors import RunError
from .config import Batching, Optimization
from .optimize import make_average, make_optimizer, set_rates
from .task import Share, Task

__all__ = ["Stepped", "Stepper"]


@dataclass(frozen=True)
class Stepped:
    """What a step found. Sums are over this process's parts of the batch."""

    terms: float
    weight: float
    seen: int  # of the whole batch
    gradient_norm: float  # of the whole batch, before clipping


class Stepper:
    """The weights on their way: the model, its optimiser, a mean of the weights, what is carried between batches.

    Args:
        task: whose model is trained; it is moved to the fabric's device.
        fabric: launched.
        batching: in how many parts each process reads its share of a batch.
        optimization: the optimiser's options.
    """

    def __init__(self, task: Task, fabric: Fabric, batching: Batching, optimization: Optimization) -> None:
        self.task, self.fabric, self.config = task, fabric, optimization
        self.plain: nn.Module = task.model
        optimizer = make_optimizer(self.plain, optimization, fabric.device)
        self.model, self.optimizer = fabric.setup(self.plain, optimizer)
        self.average = make_average(self.plain, optimization)
        self.averaging = False
        parts = fabric.world_size * batching.accumulate
        self.shares = [Share(fabric.global_rank * batching.accumulate + k, parts) for k in range(batching.accumulate)]
        self.carried: list[Any] = [None for _ in self.shares]
        self._scaled = fabric.strategy.precision.precision == "16-mixed"  # its scaler passes over infinite gradients

    def step(self, epoch: int, index: int, rate: float, momentum: float) -> Stepped:
        """Read batch `index` of `epoch` and go one step down.

        The gradient is that of the batch's mean loss, in however many parts and processes it is read.

        Raises:
            RunError: a loss or a gradient that is not finite.
        """
        set_rates(self.optimizer.optimizer, rate, momentum)
        terms, weight, seen = 0.0, 0.0, 0
        for k, share in enumerate(self.shares):
            batch = self.task.batches.get(epoch, index, share).to(self.fabric.device)
            with self.fabric.no_backward_sync(self.model, enabled=k + 1 < len(self.shares)):
                loss = self.task.loss(self.model, batch, self.carried[k])
                # DistributedDataParallel takes the mean over the processes, so each multiplies by their number.
                self.fabric.backward(loss.total * (self.fabric.world_size / max(batch.weight, 1.0)))
            self.carried[k] = loss.carried
            terms += float(loss.terms.detach())
            weight += loss.weight
            seen = batch.seen
        _finite("loss", terms)  # behind the last part: no process may leave while others wait for its gradient
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None and self.averaging:
            self.average.update_parameters(self.plain)
        return Stepped(terms, weight, seen, norm)

    def _clip(self) -> float:
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.clip or math.inf, error_if_nonfinite=False
        )
        assert norm is not None  # it is, when a norm is asked for
        if self.config.clip_value:
            self.fabric.clip_gradients(self.model, self.optimizer, clip_val=self.config.clip_value)
        return float(norm) if self._scaled else _finite("norm of the gradient", norm.detach())

    def forget(self) -> None:
        """Carry nothing over: the next batch begins an epoch."""
        self.carried = [None for _ in self.shares]

    @property
    def best_model(self) -> nn.Module:
        """The model to evaluate and to keep: with the mean of the weights, where there is one yet."""
        return self.average.module if self.average is not None and self.averaging else self.plain

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """That model in evaluation mode, without gradients."""
        model = self.best_model
        model.eval()
        try:
            with torch.no_grad():
                yield model
        finally:
            model.train()


def _finite(what: str, value: Tensor | float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise RunError(f"the {what} is {number}: the training diverged.")
    return number
