"""What a forecast says of each value: a head without weights.

A head reads raw numbers [..., P] of a linear layer, makes parameters [..., P] of them that mean something
(`constrain`), and knows their loss, mean, quantiles and samples. The parameters of a value lie side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ShapeError

__all__ = ["Head", "check_share", "full"]


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


def full(raw: Tensor) -> Tensor:
    """At least float32, in which a floor of 1e-4 is a number."""
    return raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw


def check_share(q: float) -> None:
    """A quantile is named by a share of all.

    Raises:
        ShapeError: it is none.
    """
    if not 0.0 < q < 1.0:
        raise ShapeError(f"the quantile is {q}; it is a share: pass a number between 0 and 1.")
