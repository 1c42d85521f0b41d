"""A compiled Plan: arguments in, tensors out."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendError, ShapeError
from ...schedule import Loop, Plan, StepLoop
from ..base import Gradients, Wanted
from .memory import Memory

_TRAINING, _WANT_INPUT, _WANT_PARAMS, _UNPACKED, _NARROW = 1, 2, 4, 8, 32
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

    def __init__(self, kernel: CKernel, params: Sequence[Tensor], sizes: Sequence[int]) -> None:
        self._kernel = kernel
        self._sizes = sizes
        self._state_sizes = [sizes[s] for s in kernel.state_sizes]
        self._statistic_sizes = [sizes[s] for s in kernel.statistic_sizes]
        self._output_size = sizes[kernel.output_size]
        self._tape = kernel.plan.tape_size(sizes)
        self._held = [p.detach() for p in params]
        self._places, self._strides, self._numels = _layout(params)
        self._order = kernel.order(tuple(map(Tensor.dim, params)))
        # a matrix of one row or column may be turned without another address, stride or count
        self._shapes = [p.shape for p in params] if any(1 in p.shape for p in params) else None
        self._copied = False
        self._numbers = array("q", sizes)
        for i in self._order:
            p = self._held[i]
            if p.is_neg() or (p.dim() and p.stride(-1) != 1 and p.shape[-1] > 1):
                p = self._held[i] = p.resolve_neg().contiguous()
                self._copied = True
            self._numbers.extend((p.data_ptr(), p.stride(0)) if p.dim() == 2 else (p.data_ptr(),))
        self._address = self._numbers.buffer_info()[0]

    def same(self, params: Sequence[Tensor]) -> bool:
        return (
            self._places == list(map(Tensor.data_ptr, params))
            and self._strides == list(map(Tensor.stride, params))
            and self._numels == list(map(Tensor.numel, params))
            and (self._shapes is None or self._shapes == [p.shape for p in params])
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
        return CBound(self._kernel, params, self._sizes)

    def forward(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        lengths: Tensor | None,
        reverse: bool,
        training: bool,
        masks: Sequence[Tensor] = (),
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
        x = _rows(x)
        steps, batch, _ = x.shape
        x_step, x_batch, _ = x.stride()
        size = self._output_size
        if batch > 1 and x_batch > x_step:  # the layout of x: each sequence in one piece
            # by its strides: a view, made here, could not be changed in place by the caller
            out_step, out_batch = size, steps * size
            out = x.new_empty_strided((steps, batch, size), (out_step, out_batch, 1))
        else:
            out = x.new_empty(steps, batch, size)
            out_step, out_batch = batch * size, size
        narrow = _NARROW if x.dtype == torch.bfloat16 else 0
        call = [
            *(steps, batch, torch.get_num_threads(), reverse),
            (_TRAINING if training else _UNPACKED if steps * batch <= _UNPACKED_ROWS else 0) | narrow,
            *(x.data_ptr(), x_step, x_batch, out.data_ptr(), out_step, out_batch),
            0 if lengths is None else lengths.data_ptr(),
            *_pool(),
        ]
        tape = None
        if training:
            tape = self._kernel.memory.empty(self._tape.values(steps, batch), x.dtype)
        call.append(_address(tape))
        wide = torch.float32 if narrow else x.dtype
        finals: list[Tensor] = []
        keep: list[Tensor] = []  # contiguous copies live until the kernel returns
        for mask in masks:
            call += _given(mask, keep)
        for i, size in enumerate(self._state_sizes):
            call += (0, 0) if states is None else _state(states[i], keep)
            final = torch.empty(1, batch, size, dtype=wide)
            call.append(final.data_ptr())
            finals.append(final)
        for size in self._statistic_sizes:
            statistic = torch.zeros(steps, size, dtype=wide)
            call.append(statistic.data_ptr())
            finals.append(statistic)
        _run(self._kernel.forward, self._address, call)
        return out, tuple(finals), tape

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
        x = _rows(x)
        steps, batch, _ = x.shape
        call = [
            *(steps, batch, torch.get_num_threads(), reverse),
            _TRAINING | (_WANT_INPUT if wanted.x else 0) | (_WANT_PARAMS if any(wanted.params) else 0),
            *_sequence(x),
            *_sequence(output),
            _address(lengths),
            *_pool(),
            tape.data_ptr(),
        ]
        grad_output = torch.zeros_like(output) if grad_output is None else _rows(grad_output)
        grad_x = torch.empty_like(x) if wanted.x else None
        if grad_x is not None and grad_x.stride(2) != 1:
            grad_x = x.new_empty(x.shape)
        keep: list[Tensor] = []
        for mask in masks:
            call += _given(mask, keep)
        call += (*_sequence(grad_output), *_sequence(grad_x))
        grad_states: list[Tensor | None] = []
        for i, size in enumerate(self._state_sizes):
            grad = x.new_empty(1, batch, size) if wanted.states else None
            call += (*_state(None if states is None else states[i], keep), *_state(grad_finals[i], keep))
            call.append(_address(grad))
            grad_states.append(grad)
        grads = [
            torch.empty_like(p, memory_format=torch.contiguous_format) if want else None
            for p, want in zip(params, wanted.params, strict=True)
        ]
        call += [_address(grads[i]) for i in self._order]
        _run(self._kernel.backward, self._address, call)
        return Gradients(grad_x, tuple(grad_states), tuple(grads))


class CKernel:
    """See `ostinato.backends.base.Kernel`."""

    def __init__(self, plan: Plan, dtype: torch.dtype, library: Path, memory: Memory) -> None:
        self.plan = plan
        self.memory = memory
        loaded = ctypes.CDLL(str(library))
        self.forward, self.backward = loaded.ostinato_forward, loaded.ostinato_backward
        for function in (self.forward, self.backward):
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
            function.restype = ctypes.c_int
        at = {v: i for i, v in enumerate(plan.symbols)}
        self.state_sizes = [at[s] for _, s in plan.states]
        self.statistic_sizes = [at[plan.steps[number]] for number in plan.statistics]
        self.output_size = at[plan.output_size]
        loops = [slot for slot in plan.infer if isinstance(slot, Loop | StepLoop)]
        self.narrow = dtype == torch.bfloat16 and not any(place.kind == "x" for s in loops for _, place in s.loads)
        self._orders: dict[tuple[int, ...], list[int]] = {}

    def bind(self, params: Sequence[Tensor], sizes: Sequence[int]) -> CBound:
        """The kernel with its parameters."""
        return CBound(self, params, sizes)

    def order(self, ranks: tuple[int, ...]) -> list[int]:
        """Positions of the matrices, then vectors, then scalars; by rank, since cells share a kernel."""
        found = self._orders.get(ranks)
        if found is None:
            found = self._orders[ranks] = sorted(range(len(ranks)), key=lambda i: -ranks[i])
        return found


def _run(function: Any, bound: int, call: list[int]) -> None:
    """The numbers of a `CBound`, and those of the call, as `read_arguments` in job.h reads them."""
    numbers = array("q", call)
    if function(bound, numbers.buffer_info()[0]):
        raise BackendError("the kernel found no memory for its scratch; free memory, or use a smaller batch")


def _layout(params: Sequence[Tensor]) -> tuple[list[int], list[tuple[int, ...]], list[int]]:
    return list(map(Tensor.data_ptr, params)), list(map(Tensor.stride, params)), list(map(Tensor.numel, params))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> Tensor:
    """Rows must lie in one piece; time and batch may have any strides. A negation that torch put off is done now."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def _sequence(tensor: Tensor | None) -> tuple[int, int, int]:
    """Where a [T, B, size] lies, and how far steps and sequences are apart."""
    if tensor is None:
        return 0, 0, 0
    step, batch, _ = tensor.stride()
    return tensor.data_ptr(), step, batch


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
