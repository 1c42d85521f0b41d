"""How long a run lasts and how fast it learns on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Budget", "learning_rate_at"]


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


def learning_rate_at(progress: float, peak: float, warmup: float, final: float) -> float:
    """Linear warm-up, then a half cosine down (Loshchilov and Hutter 2017), by the share of the budget spent.

        rate = peak * (progress / warmup)                                    while progress < warmup
        rate = peak * (final + (1 - final) * (1 + cos(pi * q)) / 2)          after it, q from 0 to 1

    Args:
        progress: from 0 to 1.
        peak: the highest rate.
        warmup: the share of the budget spent rising.
        final: the last rate, as a share of `peak`.

    >>> [learning_rate_at(p, peak=1.0, warmup=0.5, final=0.0) for p in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        # The first step is not wasted on a rate of exactly 0.
        return peak * max(progress / warmup, 1e-3)
    q = (progress - warmup) / (1.0 - warmup)
    return peak * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * q)))
