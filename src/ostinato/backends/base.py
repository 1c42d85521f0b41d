"""What a compiling backend is: it refuses with a reason, or makes a kernel of a Plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..schedule import Plan


class Forward(NamedTuple):
    """What a kernel's forward returns: outputs [T, B, O], final states [B, S], and the tape backward reads."""

    output: Tensor
    finals: tuple[Tensor, ...]
    tape: Tensor | None


class Gradients(NamedTuple):
    """What a kernel's backward returns; None where a gradient was not wanted."""

    x: Tensor | None
    states: tuple[Tensor | None, ...]
    params: tuple[Tensor | None, ...]


class Wanted(NamedTuple):
    """Which gradients backward computes."""

    x: bool
    states: bool
    params: bool


class Kernel(Protocol):
    """A compiled Plan for one dtype."""

    def forward(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        sizes: Sequence[int],
        lengths: Tensor | None,
        reverse: bool,
        training: bool,
    ) -> Forward:
        """Run over x [T, B, D]; ``states=None`` starts from zeros; `training` writes a tape."""
        ...

    def backward(
        self,
        tape: Tensor,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        sizes: Sequence[int],
        lengths: Tensor | None,
        reverse: bool,
        output: Tensor,
        grad_output: Tensor | None,
        grad_finals: Sequence[Tensor | None],
        wanted: Wanted,
    ) -> Gradients:
        """Gradients of what forward computed; overwrites the tape."""
        ...

    def tape_values(self, sizes: Sequence[int], rows: int) -> int:
        """How many values the tape of so many rows has."""
        ...


class Backend(Protocol):
    """A compiling backend."""

    name: str

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        ...

    def compile(self, plan: Plan, dtype: torch.dtype) -> Kernel:
        """The kernel, from the cache if it is there.

        Raises:
            CompileError, CacheError: it could not be made or kept.
        """
        ...
