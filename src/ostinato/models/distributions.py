"""What a forecast says of each value: a number, a distribution or quantiles. Each is a head without weights.

A head reads raw numbers [..., P] of a linear layer, makes parameters [..., P] of them that mean something
(`constrain`), and knows their loss, mean, quantiles and samples. The parameters of a value lie side by side.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Normal
from torch.distributions import StudentT as TorchStudentT
from torch.nn import functional

from ..errors import ShapeError
from .checks import entry
from .special import binomial_quantile, student_t_quantile

__all__ = [
    "HEADS",
    "Gaussian",
    "Head",
    "NegativeBinomial",
    "Point",
    "Quantiles",
    "StudentT",
    "head_from_spec",
]

_FLOOR = 1e-4  # the least scale, in units in which the window has one near 1


class Head(ABC):
    """What all heads have.

    Attributes:
        kind: its name in a spec.
        size: P, how many parameters a value has.
        shifts: whether a window may be shifted for it, or scaled only: counts have a zero.
    """

    kind: ClassVar[str]
    shifts: ClassVar[bool] = True

    @property
    @abstractmethod
    def size(self) -> int:
        """P."""

    @abstractmethod
    def constrain(self, raw: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
        """Parameters of a value in its own units.

        Args:
            raw: [..., P], unbounded, of the value as the encoder sees it, (value - shift) / scale.
            shift, scale: [...] or numbers; scale above 0.

        Returns:
            [..., P], in float32 where raw is shorter.
        """

    @abstractmethod
    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """The loss of each target [...] by its parameters [..., P]: of a distribution -log p, in nats."""

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """The mean, [...]."""

    @abstractmethod
    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """The value below which a share q lies, [...], 0 < q < 1; without a gradient.

        Raises:
            ShapeError: q is none, or is not known to the head.
        """

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each value, [...], without a gradient; expand the parameters for more.

        Args:
            parameters: [..., P].
            generator: of torch, of any device; None for torch's own.

        Raises:
            ShapeError: the head is a number and not a distribution.
        """
        there = parameters.detach()
        if generator is not None:
            there = there.to(generator.device)
        return self._draw(there, generator).to(parameters.device)

    @abstractmethod
    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        """As `sample`, where the generator is."""

    def loss(self, parameters: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean of `nll` over the targets that are there; [].

        Args:
            parameters: [..., P].
            target: [...].
            mask: [...], False where a target is missing: whatever stands there has no effect. None: none is.
        """
        if mask is None:
            return self.nll(parameters, target).mean()
        # what is missing is put where its loss is finite: of an infinite one, 0 times the gradient would be none
        target = torch.where(mask, target, self.mean(parameters).detach().to(target.dtype))
        each = self.nll(parameters, target)
        return each.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)

    def spec(self) -> dict[str, Any]:
        """The arguments, in plain values."""
        given: dict[str, Any] = asdict(self)  # pyright: ignore[reportArgumentType]
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}}


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
        return (_full(raw)[..., 0] * scale + shift).unsqueeze(-1)

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
        raise ShapeError(f"a point forecast has no quantiles; train with one of {_WITH_QUANTILES} for them.")

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        raise ShapeError(f"a point forecast has no samples; train with one of {_WITH_QUANTILES} for them.")


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
        loc, width = _full(raw).unbind(-1)
        return torch.stack((loc * scale + shift, _positive(width) * scale), -1)

    def nll(self, parameters: Tensor, target: Tensor) -> Tensor:
        """See `Head`."""
        return -Normal(*parameters.unbind(-1), validate_args=False).log_prob(target)

    def mean(self, parameters: Tensor) -> Tensor:
        """loc."""
        return parameters[..., 0]

    def quantile(self, parameters: Tensor, q: float) -> Tensor:
        """See `Head`."""
        _check_share(q)
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
        loc, width, df = _full(raw).unbind(-1)
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
        _check_share(q)
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
        mean, dispersion = _full(raw).unbind(-1)
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
        _check_share(q)
        mean, dispersion = parameters.detach().unbind(-1)
        return binomial_quantile(q, mean, dispersion).to(mean)

    def _draw(self, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        # a Poisson number of a rate that is drawn from a gamma distribution
        mean, dispersion = parameters.unbind(-1)
        return torch.poisson(_gamma(1 / dispersion, generator) * dispersion * mean, generator=generator)


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
        raw = _full(raw)
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
        _check_share(q)
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


HEADS: dict[str, type[Head]] = {head.kind: head for head in (Point, Gaussian, StudentT, NegativeBinomial, Quantiles)}
_WITH_QUANTILES = ", ".join(name for name in HEADS if name != "point")


def head_from_spec(spec: Any) -> Head:
    """The head that a `spec` describes.

    Raises:
        ProgramError: the spec is damaged or of another version.

    >>> head_from_spec({"kind": "point", "error": "mae"})
    Point(error='mae', delta=1.0)
    """
    kind = HEADS[entry(spec, "kind", tuple(HEADS))]
    return kind(**{name: value for name, value in spec.items() if name != "kind"})


def _full(raw: Tensor) -> Tensor:
    """At least float32, in which a floor of 1e-4 is a number."""
    return raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw


def _doubled(x: Tensor) -> Tensor:
    """In float64 where the device has it, with its gradient."""
    return x if x.device.type == "mps" else x.double()


def _positive(raw: Tensor) -> Tensor:
    return functional.softplus(raw) + _FLOOR


def _check_share(q: float) -> None:
    if not 0.0 < q < 1.0:
        raise ShapeError(f"the quantile is {q}; it is a share: pass a number between 0 and 1.")


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _gamma(shape: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws of a gamma distribution of these shapes and rate 1, none of them 0."""
    drawn = torch._standard_gamma(shape, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
    return drawn.clamp(min=torch.finfo(shape.dtype).tiny)
