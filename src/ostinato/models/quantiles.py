"""Heads that are no distribution: one number, or values below which given shares lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError
from .head import Head, check_share, full

__all__ = ["Point", "Quantiles"]


@dataclass(frozen=True)
class Point(Head):
    """One number, trained by its squared error (the mean), absolute error (the median), or Huber's (1964) between.

        mse: (y - ŷ)²        mae: |y - ŷ|        huber: e² / 2 for |e| <= delta, else delta (|e| - delta / 2)

    Args:
        error: "mse", "mae" or "huber".
        delta: where Huber's loss turns linear, in the target's units.

    >>> Point("mae").loss(torch.tensor([[1.0], [5.0]]), torch.tensor([3.0, 5.0]))
    tensor(1.)
    """

    kind: ClassVar[str] = "point"
    error: str = "mse"
    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.error not in ("mse", "mae", "huber"):
            raise ShapeError(f"the loss of a point is {self.error!r}; give 'mse', 'mae' or 'huber'.")
        if not 0 < self.delta < math.inf:
            raise ShapeError(f"delta is {self.delta}; pass a number above 0.")

    @property
    def size(self) -> int:
        """The number alone."""
        return 1

    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """See `Head`."""
        return (full(raw)[..., 0] * scale + shift).unsqueeze(-1)

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`; of the three losses that which was chosen."""
        value = parameters[..., 0]
        if self.error == "mse":
            return (value - target).square()
        if self.error == "mae":
            return (value - target).abs()
        return functional.huber_loss(value, target, reduction="none", delta=self.delta)

    def mean(self, parameters: Tensor) -> Tensor:
        """The number."""
        return parameters[..., 0]

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """A number has none."""
        raise ShapeError(
            "a point forecast has no quantiles; train with one of gaussian, student_t, negative_binomial, quantiles "
            "for them."
        )

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        raise ShapeError(
            "a point forecast has no samples; train with one of gaussian, student_t, negative_binomial, quantiles "
            "for them."
        )


@dataclass(frozen=True)
class Quantiles(Head):
    """Values below which given shares lie, trained by the pinball loss (Koenker & Bassett 1978); they never cross.

        v_1 = raw_1        v_{k+1} = v_k + softplus(raw_{k+1})
        loss = mean over k of max(q_k (y - v_k), (q_k - 1) (y - v_k))

    Between the levels the quantile function is taken as linear, beyond the outermost as flat: of that the mean is the
    mean, and samples are drawn.

    Args:
        levels: the shares, rising, each between 0 and 1.

    >>> head = Quantiles((0.1, 0.5, 0.9))
    >>> head.quantile(torch.tensor([-1.0, 0.0, 4.0]), 0.7)
    tensor(2.)
    """

    kind: ClassVar[str] = "quantiles"
    levels: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def __post_init__(self) -> None:
        levels = tuple(float(q) for q in self.levels)
        object.__setattr__(self, "levels", levels)
        if not levels or list(levels) != sorted(set(levels)) or not (levels[0] > 0 and levels[-1] < 1):
            raise ShapeError(f"levels are {list(levels)}; give shares that rise, each between 0 and 1.")

    @property
    def size(self) -> int:
        """As many as there are levels."""
        return len(self.levels)

    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """See `Head`."""
        raw = full(raw)
        steps = torch.cat((raw[..., :1], functional.softplus(raw[..., 1:])), -1)
        shift, scale = (v.unsqueeze(-1) if isinstance(v, Tensor) else v for v in (shift, scale))
        return steps.cumsum(-1) * scale + shift

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`; the pinball loss, a mean over levels."""
        levels = parameters.new_tensor(self.levels)
        error = target.unsqueeze(-1) - parameters
        return torch.maximum(levels * error, (levels - 1) * error).mean(-1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Of the quantile function between and beyond the levels."""
        parts = torch.tensor((0.0, *self.levels, 1.0), dtype=torch.float64).diff()  # of the shares, between levels
        weights = torch.cat((parts[:1], parts[1:-1] / 2)) + torch.cat((parts[1:-1] / 2, parts[-1:]))
        return parameters @ weights.to(parameters)

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """See `Head`; between the outermost levels."""
        check_share(q)
        if not self.levels[0] <= q <= self.levels[-1]:
            raise ShapeError(
                f"the quantile {q} lies outside of those that were learned, {self.levels[0]} to {self.levels[-1]}; "
                "train with levels= that enclose it."
            )
        values = parameters.detach()
        return self._at(values, values.new_full(values.shape[:-1], q))

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        shape, like = parameters.shape[:-1], {"device": parameters.device, "dtype": parameters.dtype}
        return self._at(parameters, torch.rand(shape, generator=generator, **like))

    def _at(self, values: Tensor, shares: Tensor) -> Tensor:
        """The quantile function at shares [...]."""
        levels = values.new_tensor(self.levels)
        if self.size == 1:
            return values[..., 0]
        above = torch.searchsorted(levels, shares).clamp(1, self.size - 1)
        part = ((shares - levels[above - 1]) / (levels[above] - levels[above - 1])).clamp(0.0, 1.0)
        low = values.gather(-1, (above - 1).unsqueeze(-1)).squeeze(-1)
        high = values.gather(-1, above.unsqueeze(-1)).squeeze(-1)
        return torch.lerp(low, high, part)
