"""What a compiling backend is: it refuses with a reason, or makes a kernel of a Plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..schedule import Plan


class Gradients(NamedTuple):
    """What a kernel's backward returns; None where a gradient was not wanted."""

    x: Tensor | None
    states: tuple[Tensor | None, ...]
    params: tuple[Tensor | None, ...]


class Wanted(NamedTuple):
    """Which gradients backward computes; of the parameters one by one, since some may be fixed."""

    x: bool
    states: bool
    params: Sequence[bool]


class Bound(Protocol):
    """A kernel together with its parameters, which it takes by address."""

    def same(self, params: Sequence[Tensor]) -> bool:
        """Whether these are the parameters it was bound to, none moved, reshaped or converted since."""
        ...

    def again(self, params: Sequence[Tensor]) -> Bound:
        """Bound to parameters of the same shapes that may have moved.

        Raises:
            ShapeError: one has another shape or dtype.
        """
        ...

    def forward(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        lengths: Tensor | None,
        reverse: bool,
        training: bool,
        masks: Sequence[Tensor] = (),
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        """Run over x [T, B, D]; ``states=None`` starts from zeros; masks [T, B, S] or [1, B, S].

        Returns the outputs [T, B, O]; the final states, each [1, B, S], and behind them the statistics of the Plan,
        each [T, S] in the order in which steps run, zeros where no sequence does; and in `training` the tape that
        backward reads.
        """
        ...

    def backward(
        self,
        tape: Tensor,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        lengths: Tensor | None,
        reverse: bool,
        output: Tensor,
        grad_output: Tensor | None,
        grad_finals: Sequence[Tensor | None],
        wanted: Wanted,
        masks: Sequence[Tensor] = (),
    ) -> Gradients:
        """Gradients of what forward computed; overwrites the tape."""
        ...


class Kernel(Protocol):
    """A compiled Plan for one dtype.

    narrow: without training, x may be bfloat16 where parameters, states and masks are float32; the output is bfloat16
        then.
    """

    narrow: bool

    def bind(self, params: Sequence[Tensor], sizes: Sequence[int]) -> Bound:
        """The kernel with its parameters, whose shapes the caller has checked; `sizes` in the order of the Plan's."""
        ...


class Backend(Protocol):
    """A compiling backend."""

    name: str

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        ...

    def compile(self, plan: Plan, dtype: torch.dtype) -> Kernel:
        """The kernel, from the cache if it is there.

        One of bfloat16 takes float32 tensors, and rounds what it multiplies.

        Raises:
            CompileError, CacheError: it could not be made or kept.
        """
        ...
