"""How long a run lasts and how fast it learns on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import Optimization

__all__ = ["Budget", "momentum_at", "rate_at"]

_FIRST = 1e-3  # of the highest rate, at the very first step: it is not wasted on a rate of exactly 0
_RISE = 0.3  # the share of the run in which one-cycle rises (Smith 2018 takes somewhat less than a half)
_CYCLE = (0.95, 0.85)  # the momentum of one-cycle at its ends and at its peak (Smith 2018)


@dataclass(frozen=True)
class Budget:
    """The end of a run, in steps or in seconds, whichever was given.

    Args:
        steps: how many steps in all, or None.
        seconds: how many seconds in all, over every time the run was resumed, or None.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, epochs: float | None, minutes: float | None, steps_per_epoch: int) -> Budget:
        """The budget of epochs (at least one step), or of minutes."""
        if epochs is not None:
            return cls(steps=max(1, round(epochs * steps_per_epoch)))
        return cls(seconds=60.0 * (minutes or 0.0))

    def progress(self, step: int, seconds: float) -> float:
        """The share that is spent, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / self.seconds) if self.seconds else 1.0


def rate_at(config: Optimization, progress: float, decays: int = 0) -> float:
    """The learning rate where a share p of the run is spent.

        p < warmup     peak p / warmup
        constant       peak
        cosine         peak (final + (1 - final) (1 + cos(pi q)) / 2)        q from 0 to 1 after the warm-up
        step, plateau  peak decay^decays
        one-cycle      up by a half cosine until p = 0.3, then down by one to final

    Cosine: Loshchilov and Hutter 2017. One-cycle: Smith 2018; it has no warm-up beside its own rise.

    Args:
        config: with the peak `learning_rate` and the `schedule`.
        progress: p, from 0 to 1.
        decays: how often the schedules step and plateau have decayed.

    >>> config = Optimization(learning_rate=1.0, warmup=0.5, final_rate=0.0)
    >>> [rate_at(config, p) for p in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    peak, low = config.learning_rate, config.learning_rate * config.final_rate
    if config.schedule == "one-cycle":
        if progress < _RISE:
            return max(_half_cosine(low, peak, progress / _RISE), _FIRST * peak)
        return _half_cosine(peak, low, (progress - _RISE) / (1.0 - _RISE))
    if progress < config.warmup:
        return peak * max(progress / config.warmup, _FIRST)
    if config.schedule == "cosine":
        return _half_cosine(peak, low, (progress - config.warmup) / (1.0 - config.warmup))
    return peak * config.decay**decays


def momentum_at(config: Optimization, progress: float) -> float:
    """The momentum where a share of the run is spent: `config.momentum`, but for one-cycle, against the rate."""
    if config.schedule != "one-cycle":
        return config.momentum
    ends, peak = _CYCLE
    if progress < _RISE:
        return _half_cosine(ends, peak, progress / _RISE)
    return _half_cosine(peak, ends, (progress - _RISE) / (1.0 - _RISE))


def _half_cosine(start: float, stop: float, q: float) -> float:
    return stop + (start - stop) * 0.5 * (1.0 + math.cos(math.pi * q))
