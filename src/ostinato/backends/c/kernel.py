"""A compiled Plan: arguments in, tensors out."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendError, ShapeError
from ...schedule import Loop, Plan, StepLoop
from ..base import Gradients, Inputs, OutputGradients, Outputs, Wanted, extent_of
from .memory import Memory

_TRAINING, _WANT_INPUT, _WANT_PARAMS, _UNPACKED, _NARROW, _PACKED = 1, 2, 4, 8, 32, 64
_UNPACKED_ROWS = 3  # so few rows do not pay for packing the weights


@lru_cache(maxsize=1)
def _team() -> tuple[int, int]:
    """Addresses of two functions: one runs work on torch's own pool of threads, the other says how many take part.

    A second pool beside torch's would have both spinning on the same cores. 0, 0 if it is not found.
    """
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        try:
            library = ctypes.CDLL(str(path))
            run, size = library.GOMP_parallel, library.omp_get_num_threads
        except (OSError, AttributeError):
            continue
        return ctypes.cast(run, ctypes.c_void_p).value or 0, ctypes.cast(size, ctypes.c_void_p).value or 0
    return 0, 0


_forks: list[bool] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forks.append(True))


def _pool() -> tuple[int, int]:
    """The pool does not survive a fork: in a child the kernel starts threads of its own."""
    return (0, 0) if _forks else _team()


class CBound:
    """See `ostinato.backends.base.Bound`: the sizes, and where each parameter lies, as the kernel reads them.

    It holds the parameters' storage, so that no other tensor can come to lie at the same address while it is in use.
    """

    def __init__(self, kernel: CKernel, params: Sequence[Tensor]) -> None:
        self._kernel = kernel
        self._held = list(map(Tensor.detach, params))
        self._places, self._strides, self._numels = _layout(params)
        # a matrix of one row or column may be turned without another address, stride or count
        self._shapes = list(map(_shape, params)) if kernel.thin(params) else None
        self._copied = False
        self._numbers = array("q", kernel.sizes)
        for i in kernel.order(params):
            p, place, stride = self._held[i], self._places[i], self._strides[i]
            if p.is_neg() or (stride and stride[-1] != 1 and p.shape[-1] > 1):
                p = self._held[i] = p.resolve_neg().contiguous()
                place, stride = p.data_ptr(), p.stride()
                self._copied = True
            self._numbers.extend((place, stride[0]) if len(stride) == 2 else (place,))
        self._address = self._numbers.buffer_info()[0]

    def same(self, params: Sequence[Tensor]) -> bool:
        return (
            self._places == list(map(Tensor.data_ptr, params))
            and self._strides == list(map(Tensor.stride, params))
            and self._numels == list(map(Tensor.numel, params))
            and (self._shapes is None or self._shapes == list(map(_shape, params)))
            and not self._copied  # what was copied may have changed in place since
        )

    def again(self, params: Sequence[Tensor]) -> CBound:
        if self.same(params):
            return self
        for old, new in zip(self._held, params, strict=True):
            if old.shape != new.shape or old.dtype != new.dtype or old.device != new.device:
                raise ShapeError(
                    f"a parameter was {old.dtype} {list(old.shape)} on {old.device} in forward and is {new.dtype} "
                    f"{list(new.shape)} on {new.device} in backward; run forward again before backward"
                )
        return CBound(self._kernel, params)

    def forward(self, inputs: Inputs, training: bool) -> tuple[Outputs, Tensor | None]:
        x, states, lengths, reverse, masks = inputs
        kernel, x = self._kernel, _rows(x)
        steps, batch = extent_of(x, lengths)
        place, x_step, x_batch = _sequence(x)
        size = kernel.output_size
        empty = wide = x.new_empty
        if x.dim() == 2:
            rows, flags = x.shape[0], _PACKED
            out, out_step, out_batch = empty(rows, size), size, size
        else:
            rows, flags = steps * batch, 0
            if batch > 1 and x_batch > x_step:  # the layout of x: each sequence in one piece
                out_step, out_batch = size, steps * size
                # by its strides: a view, made here, could not be changed in place by the caller
                out = x.new_empty_strided((steps, batch, size), (out_step, out_batch, 1))
            else:
                out_step, out_batch = batch * size, size
                out = empty(steps, batch, size)
        if training:
            flags |= _TRAINING
        elif rows <= _UNPACKED_ROWS:
            flags |= _UNPACKED
        if x.dtype == torch.bfloat16:
            flags |= _NARROW
            wide = partial(empty, dtype=torch.float32)
        tape = kernel.tape(steps, rows, x.dtype) if training else None
        call = [steps, batch, torch.get_num_threads(), reverse, flags]
        call += place, x_step, x_batch, out.data_ptr(), out_step, out_batch
        call.append(0 if lengths is None else lengths.data_ptr())
        call += _pool()
        call.append(0 if tape is None else tape.data_ptr())
        keep: list[Tensor] = []  # contiguous copies live until the kernel returns
        for mask in masks:
            call += _given(mask, keep)
        finals = tuple([wide(1, batch, size) for size in kernel.state_sizes])
        if states is None:
            for final in finals:
                call += 0, 0, final.data_ptr()
        else:
            for i, final in enumerate(finals):
                call += _state(states[i], keep)
                call.append(final.data_ptr())
        statistics: tuple[Tensor, ...] = ()
        if kernel.statistic_sizes:
            statistics = tuple([wide(steps, size) for size in kernel.statistic_sizes])
            if lengths is not None or not batch:  # there may be steps in which no sequence runs
                for statistic in statistics:
                    statistic.zero_()
            call += map(Tensor.data_ptr, statistics)
        _run(kernel.library.forward, self._address, call)
        return Outputs(out, finals, statistics), tape

    def backward(
        self, tape: Tensor, inputs: Inputs, output: Tensor, grads: OutputGradients, wanted: Wanted
    ) -> Gradients:
        _, states, lengths, reverse, masks = inputs
        kernel, x = self._kernel, _rows(inputs.x)
        steps, batch = extent_of(x, lengths)
        flags = (wanted.x and _WANT_INPUT) | (any(wanted.params) and _WANT_PARAMS) | (x.dim() == 2 and _PACKED)
        call = [
            *(steps, batch, torch.get_num_threads(), reverse),
            _TRAINING | flags,
            *_sequence(x),
            *_sequence(output),
            0 if lengths is None else lengths.data_ptr(),
            *_pool(),
            tape.data_ptr(),
        ]
        grad_output = torch.zeros_like(output) if grads.output is None else _rows(grads.output)
        grad_x = torch.empty_like(x) if wanted.x else None
        if grad_x is not None and grad_x.stride(-1) != 1:
            grad_x = x.new_empty(x.shape)
        keep: list[Tensor] = []
        for mask in masks:
            call += _given(mask, keep)
        call += (*_sequence(grad_output), *_sequence(grad_x))
        grad_states: list[Tensor | None] = []
        for i, size in enumerate(kernel.state_sizes):
            grad = x.new_empty(1, batch, size) if wanted.states else None
            call += (*_state(None if states is None else states[i], keep), *_state(grads.finals[i], keep))
            call.append(0 if grad is None else grad.data_ptr())
            grad_states.append(grad)
        grad_params = _memory_for(self._held, wanted.params)
        for i in kernel.order(self._held):
            grad = grad_params[i]
            call.append(0 if grad is None else grad.data_ptr())
        _run(kernel.library.backward, self._address, call)
        return Gradients(grad_x, tuple(grad_states), tuple(grad_params))


class CLibrary:
    """The compiled code of a Plan for one dtype, for layers of all sizes."""

    def __init__(self, plan: Plan, dtype: torch.dtype, path: Path, memory: Memory) -> None:
        self.plan = plan
        self.memory = memory
        loaded = ctypes.CDLL(str(path))
        self.forward, self.backward = loaded.ostinato_forward, loaded.ostinato_backward
        for function in (self.forward, self.backward):
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
            function.restype = ctypes.c_int
        loops = [slot for slot in plan.infer if isinstance(slot, Loop | StepLoop)]
        self.narrow = dtype == torch.bfloat16 and not any(place.kind == "x" for s in loops for _, place in s.loads)


class CKernel:
    """See `ostinato.backends.base.Kernel`.

    Attributes:
        sizes: in the order of the Plan's symbols.
        output_size, state_sizes, statistic_sizes: of what a run gives.
    """

    def __init__(self, library: CLibrary, sizes: Sequence[int]) -> None:
        plan = library.plan
        self.library = library
        self.sizes = sizes
        self.narrow = library.narrow
        at = dict(zip(plan.symbols, sizes, strict=True))
        self.output_size = at[plan.output_size]
        self.state_sizes = [at[s] for _, s in plan.states]
        self.statistic_sizes = [at[plan.steps[number]] for number in plan.statistics]
        self._tape = plan.tape_size(sizes)
        self._order: list[int] | None = None
        self._thin: bool | None = None

    def bind(self, params: Sequence[Tensor]) -> CBound:
        """The kernel with its parameters."""
        return CBound(self, params)

    def tape(self, steps: int, rows: int, dtype: torch.dtype) -> Tensor:
        """What forward writes for backward."""
        return self.library.memory.empty(self._tape.values(steps, rows), dtype)

    def order(self, params: Sequence[Tensor]) -> list[int]:
        """Positions of the matrices, then vectors, then scalars; they have the same shapes in each call."""
        if self._order is None:
            self._order = sorted(range(len(params)), key=lambda i: -params[i].dim())
        return self._order

    def thin(self, params: Sequence[Tensor]) -> bool:
        """Whether there is a matrix of one row or column among them."""
        if self._thin is None:
            self._thin = any(1 in p.shape for p in params)
        return self._thin


_shape: Callable[[Tensor], torch.Size] = attrgetter("shape")


def _memory_for(params: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """Memory for the gradients of those that are wanted."""
    if all(wanted) and all(map(Tensor.is_contiguous, params)):  # then empty_like is so too, and need not be told
        return list(map(torch.empty_like, params))
    contiguous = torch.contiguous_format
    return [
        torch.empty_like(p, memory_format=contiguous) if want else None for p, want in zip(params, wanted, strict=True)
    ]


@lru_cache(maxsize=64)
def _packer(count: int) -> Callable[..., bytes]:
    return Struct(f"{count}q").pack


def _run(function: Any, bound: int, call: list[int]) -> None:
    """The numbers of a `CBound`, and those of the call, as `read_arguments` in job.h reads them."""
    if function(bound, _packer(len(call))(*call)):
        raise BackendError("the kernel found no memory for its scratch; free memory, or use a smaller batch")


def _layout(params: Sequence[Tensor]) -> tuple[list[int], list[tuple[int, ...]], list[int]]:
    return list(map(Tensor.data_ptr, params)), list(map(Tensor.stride, params)), list(map(Tensor.numel, params))


def _rows(tensor: Tensor) -> Tensor:
    """Rows must lie in one piece; time and batch may have any strides. A negation that torch put off is done now."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _sequence(tensor: Tensor | None) -> tuple[int, int, int]:
    """Where a [T, B, size] lies, and how far steps and sequences are apart; packed, [N, size], both are rows."""
    if tensor is None:
        return 0, 0, 0
    strides = tensor.stride()
    return tensor.data_ptr(), strides[0], strides[-2]


def _given(mask: Tensor, keep: list[Tensor]) -> tuple[int, int, int]:
    """Where a mask lies; one for all steps has them 0 apart."""
    rows = _rows(mask)
    if rows is not mask:
        keep.append(rows)
    place, step, batch = _sequence(rows)
    return place, step if rows.shape[0] > 1 else 0, batch


def _state(tensor: Tensor | None, keep: list[Tensor]) -> tuple[int, int]:
    """Where a state [1, B, S] lies, and how far its rows are apart."""
    if tensor is None:
        return 0, 0
    _, row, column = tensor.stride()
    if column != 1 or tensor.is_neg():
        tensor = tensor.resolve_neg().contiguous()
        row = tensor.stride(1)
        keep.append(tensor)
    return tensor.data_ptr(), row
