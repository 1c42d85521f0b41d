"""Looking for a learning rate: a short training in which the rate grows until the loss explodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from ..errors import RunError
from .config import Batching, Optimization
from .plots import ACCENT, INK, PLAIN, new_figure, save_figure, tidy
from .schedule import momentum_at
from .stepper import Stepper
from .task import WHOLE, Task

__all__ = ["Found", "draw_search", "find_rate"]

_STEPS = 100
_LOW, _HIGH = 1e-6, 10.0
_SMOOTH = 0.9  # of the loss, from one step to the next
_EXPLODED = 4.0  # times the least smoothed loss
_FEWEST = 10


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        rate: where the smoothed loss falls fastest over the logarithm of the rate.
        rates, losses, smoothed: of each step.
    """

    rate: float
    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]


def find_rate(
    task: Task,
    fabric: Fabric,
    batching: Batching,
    optimization: Optimization,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Train some steps with a rate that grows from each to the next by the same factor (Smith 2017).

        rate_k = 1e-6 * 1e7^(k / 99),   s_k = 0.9 s_{k-1} + 0.1 loss_k (unbiased),   until s_k > 4 min s

    The weights are spoilt by it: take a new task for the training.

    Raises:
        RunError: the loss exploded, or there were no more batches, before enough steps were taken.
    """
    stepper = Stepper(task, fabric, batching, optimization)
    stepper.model.train()
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    for k in range(_STEPS):
        if float(WHOLE.summed(torch.tensor(float(should_stop()), device=fabric.device))):
            break  # what one process was told, all do
        epoch, index = divmod(k, len(task.batches))
        if index == 0:
            stepper.forget()
        rate = _LOW * (_HIGH / _LOW) ** (k / (_STEPS - 1))
        try:
            done = stepper.step(epoch, index, rate, momentum_at(optimization, 0.0))
        except RunError:
            break  # not finite: it exploded
        own = torch.tensor([done.terms, done.weight], dtype=torch.float64).to(fabric.device)
        terms, weight = map(float, WHOLE.summed(own))
        loss = terms / max(weight, 1.0)
        mean = _SMOOTH * mean + (1.0 - _SMOOTH) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(mean / (1.0 - _SMOOTH ** (k + 1)))
        if smoothed[-1] > _EXPLODED * min(smoothed):
            break
    if len(rates) < _FEWEST:
        raise RunError(f"the search for a learning rate ended after {len(rates)} steps; pass --learning-rate.")
    return Found(_steepest(rates, smoothed), tuple(rates), tuple(losses), tuple(smoothed))


def _steepest(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The rate where the loss falls fastest, before its least value; the first steps are too noisy to judge."""
    least = smoothed.index(min(smoothed))
    last = max(least, _FEWEST // 2 + 1)
    slopes = [
        (smoothed[k + 1] - smoothed[k - 1]) / math.log(rates[k + 1] / rates[k - 1])
        for k in range(_FEWEST // 2, min(last, len(rates) - 1))
    ]
    return rates[_FEWEST // 2 + slopes.index(min(slopes))]


def draw_search(found: Found, path: Path, title: str) -> None:
    """Draw the loss over the rate, and where it falls fastest, as a PNG, written atomically."""
    figure = new_figure(8.0, 4.5)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color=PLAIN, linewidth=0.8, alpha=0.7, label="each step")
    axes.plot(found.rates, found.smoothed, color=PLAIN, linewidth=2.0, label="smoothed")
    axes.axvline(found.rate, color=ACCENT, linewidth=1.5, label=f"falls fastest at {found.rate:.2g}")
    axes.set_xscale("log")
    low, first = min(found.smoothed), found.smoothed[0]
    axes.set_ylim(low - 0.1 * (first - low + 1e-3), first + 0.6 * (first - low + 1e-3))
    axes.set_xlabel("learning rate", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    tidy(axes)
    axes.legend(frameon=False, labelcolor=INK, loc="lower left")
    save_figure(figure, path)
