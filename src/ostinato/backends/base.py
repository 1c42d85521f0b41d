"""What a compiling backend is: it refuses with a reason, or makes a kernel of a Plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..schedule import Plan

AT_ONCE: ContextVar[int] = ContextVar("AT_ONCE", default=1)
"""How many kernels are to run on a GPU at the same time, as two directions do: each may fill so small a part of it."""


class Inputs(NamedTuple):
    """What a step runs over, beside its parameters.

    Args:
        x: [T, B, D]; or packed, [N, D]: the rows of step 0, those of step 1, and so on, in each those of the sequences
            that are running. The lengths fall then, and are at least 1.
        states: before the first step, each [1, B, S]; None for zeros.
        lengths: steps of each sequence, int64 [B] on the CPU; None if each has T.
        reverse: from each sequence's last step to its first.
        masks: in the order of the step's: over time as x is, [T, B, S] or [N, S]; [1, B, S] for all steps; or the shape
            of a matrix.
    """

    x: Tensor
    states: Sequence[Tensor] | None = None
    lengths: Tensor | None = None
    reverse: bool = False
    masks: Sequence[Tensor] = ()


def extent_of(x: Tensor, lengths: Tensor | None) -> tuple[int, int]:
    """T and B of an x, see `Inputs`."""
    shape = x.shape
    if len(shape) == 3:
        return shape[0], shape[1]
    assert lengths is not None
    numbers = lengths.tolist()  # one operation of torch, where taking the first would be two
    return numbers[0], len(numbers)


def seen_through() -> bool:
    """Whether somebody wants to see the operations of a call: a transform of torch.func, a trace, another mode."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or _get_current_dispatch_mode() is not None
    )


def captured(device: torch.device) -> bool:
    """Whether somebody records a CUDA graph, in which what is done on this device now takes part."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """``values.to(device)`` for lengths and the like, which lie on the CPU and are not changed any more.

    To a GPU they are copied once for each stream, and nobody waits for what the GPU has yet to do.
    """
    if device.type != "cuda" or not values.is_cpu or torch.compiler.is_compiling() or seen_through():
        return values.to(device)
    copies: dict[tuple[torch.device, int], Tensor] = vars(values).setdefault("_ostinato_copies", {})
    place = device, torch.cuda.current_stream(device).cuda_stream
    if place not in copies:
        if captured(device):
            return values.to(device)  # which says that a CUDA graph takes no numbers of the CPU
        copies[place] = _sent(values, device)
    return copies[place]


def _sent(values: Tensor, device: torch.device) -> Tensor:
    return values.pin_memory().to(device, non_blocking=True)


class Outputs(NamedTuple):
    """What a run of a step gives.

    Args:
        output: [T, B, O], or [N, O] where x is packed.
        finals: the states after each sequence's last step, each [1, B, S].
        statistics: those that the step measures, each [T, S] in the order in which steps run, zeros where no sequence
            does; nothing is differentiated through them.
    """

    output: Tensor
    finals: tuple[Tensor, ...]
    statistics: tuple[Tensor, ...] = ()


class OutputGradients(NamedTuple):
    """The gradients of the output and of the final states; None for zeros."""

    output: Tensor | None
    finals: Sequence[Tensor | None]


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

    def forward(self, inputs: Inputs, training: bool) -> tuple[Outputs, Tensor | None]:
        """Run; in `training` also the tape that backward reads. Masks of matrices are none of a kernel's.

        Raises:
            LaunchError: it cannot be launched for this call; what it was given is as it was. Also in backward.
            StalledError: what a kernel gave, perhaps in an earlier call, is not to be used. Also in backward.
        """
        ...

    def backward(
        self, tape: Tensor, inputs: Inputs, output: Tensor, grads: OutputGradients, wanted: Wanted
    ) -> Gradients:
        """Gradients of what forward computed, whose `tape` it overwrites and whose `output` it reads."""
        ...


class Kernel(Protocol):
    """A compiled Plan for one dtype, at given sizes.

    narrow: without training, x may be of the dtype of the factors, a narrow one, where parameters, states and masks are
        float32; the output is as x is then.
    """

    @property
    def narrow(self) -> bool: ...

    def bind(self, params: Sequence[Tensor]) -> Bound:
        """The kernel with its parameters, whose shapes the caller has checked."""
        ...


class Backend(Protocol):
    """A compiling backend: its name, and how it is called in a sentence."""

    name: str
    title: str

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        ...

    def compile(self, plan: Plan, dtype: torch.dtype, sizes: Sequence[int]) -> Kernel:
        """The kernel, from the cache if it is there; `sizes` in the order of the Plan's symbols.

        One of bfloat16 or float16 takes float32 tensors, and rounds what it multiplies.

        Raises:
            BackendError, CacheError: it could not be made or kept.
        """
        ...
