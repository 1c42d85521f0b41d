"""Heads that are distributions: a mean and a spread of each value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Normal
from torch.distributions import StudentT as TorchStudentT
from torch.nn import functional

from .head import Head, check_share, full
from .special import binomial_quantile, student_t_quantile

__all__ = ["Gaussian", "NegativeBinomial", "StudentT"]

_FLOOR = 1e-4  # the least scale, in units in which the window has one near 1


@dataclass(frozen=True)
class Gaussian(Head):
    """A normal distribution: parameters loc, scale; the raw scale goes through softplus and a floor.

    >>> head = Gaussian()
    >>> head.quantile(head.constrain(torch.zeros(2), shift=10.0), 0.5)
    tensor(10.)
    """

    kind: ClassVar[str] = "gaussian"

    @property
    def size(self) -> int:
        """loc, scale."""
        return 2

    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """See `Head`."""
        loc, width = full(raw).unbind(-1)
        return torch.stack((loc * scale + shift, _positive(width) * scale), -1)

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`."""
        return -Normal(*parameters.unbind(-1), validate_args=False).log_prob(target)

    def mean(self, parameters: Tensor) -> Tensor:
        """loc."""
        return parameters[..., 0]

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """See `Head`."""
        check_share(q)
        loc, width = parameters.detach().unbind(-1)
        return loc + width * (math.sqrt(2) * torch.erfinv(torch.tensor(2 * q - 1, dtype=torch.float64)).item())

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        loc, width = parameters.unbind(-1)
        return loc + width * _normal(loc, generator)


@dataclass(frozen=True)
class StudentT(Head):
    """Student's t: parameters loc, scale, df. Its tails are heavy, so that outliers pull less (Lange et al. 1989).

    df = 2 + softplus, so that a variance exists. The loss is torch's, computed in float64, where the difference of two
    lgamma is exact enough. Quantiles are found by Newton's method (`special.student_t_quantile`).

    >>> head = StudentT()
    >>> head.quantile(torch.tensor([0.0, 1.0, 5.0]), 0.975)
    tensor(2.5706)
    """

    kind: ClassVar[str] = "student_t"

    @property
    def size(self) -> int:
        """loc, scale, df."""
        return 3

    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """See `Head`."""
        loc, width, df = full(raw).unbind(-1)
        return torch.stack((loc * scale + shift, _positive(width) * scale, 2.0 + functional.softplus(df)), -1)

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`."""
        loc, width, df = _doubled(parameters).unbind(-1)
        each = -TorchStudentT(df, loc, width, validate_args=False).log_prob(_doubled(target))
        return each.to(parameters.dtype)

    def mean(self, parameters: Tensor) -> Tensor:
        """loc."""
        return parameters[..., 0]

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """See `Head`."""
        check_share(q)
        loc, width, df = parameters.detach().unbind(-1)
        return loc + width * student_t_quantile(q, df).to(loc)

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        loc, width, df = parameters.unbind(-1)
        chi2 = 2 * _gamma(df / 2, generator)
        return loc + width * _normal(loc, generator) * (df / chi2).sqrt()


@dataclass(frozen=True)
class NegativeBinomial(Head):
    """Counts 0, 1, 2, ...: parameters mean and dispersion, variance = mean + dispersion mean² (Salinas et al. 2020).

    A window is scaled for it and never shifted: mean = scale softplus, dispersion = softplus / √scale. The loss is
    torch's, computed in float64, where differences of lgamma are exact enough. Quantiles are found by bisection of the
    cdf (`special.binomial_quantile`).

    >>> head = NegativeBinomial()
    >>> head.quantile(torch.tensor([3.0, 1.0]), 0.9)
    tensor(8.)
    """

    kind: ClassVar[str] = "negative_binomial"
    shifts: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """mean, dispersion."""
        return 2

    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """See `Head`; a shift has no place."""
        mean, dispersion = full(raw).unbind(-1)
        return torch.stack((_positive(mean) * scale, _positive(dispersion) / scale**0.5), -1)

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`; targets are whole numbers, 0 or more."""
        mean, dispersion = _doubled(parameters).unbind(-1)
        counts = TorchNegativeBinomial(1 / dispersion, logits=mean.log() + dispersion.log(), validate_args=False)
        return -counts.log_prob(_doubled(target)).to(parameters.dtype)

    def mean(self, parameters: Tensor) -> Tensor:
        """mean."""
        return parameters[..., 0]

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """See `Head`; a count."""
        check_share(q)
        mean, dispersion = parameters.detach().unbind(-1)
        return binomial_quantile(q, mean, dispersion).to(mean)

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        # a Poisson number of a rate that is drawn from a gamma distribution
        mean, dispersion = parameters.unbind(-1)
        return torch.poisson(_gamma(1 / dispersion, generator) * dispersion * mean, generator=generator)


def _doubled(x: Tensor) -> Tensor:
    """In float64 where the device has it, with its gradient."""
    return x if x.device.type == "mps" else x.double()


def _positive(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + _FLOOR


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _gamma(shape: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws of a gamma distribution of these shapes and rate 1, none of them 0."""
    drawn = torch._standard_gamma(shape, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
    return drawn.clamp(min=torch.finfo(shape.dtype).tiny)
