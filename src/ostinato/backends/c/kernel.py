"""A compiled Plan: arguments in, tensors out."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...errors import BackendError
from ...schedule import Plan
from ..base import Forward, Gradients, Wanted

_TRAINING, _WANT_INPUT, _WANT_PARAMS, _UNPACKED = 1, 2, 4, 8
_UNPACKED_ROWS = 3  # so few rows do not pay for packing the weights


@lru_cache(maxsize=1)
def _team() -> int:
    """Address of the function that runs work on torch's own pool of threads; 0 if it is not found.

    A second pool beside torch's would have both spinning on the same cores.
    """
    for path in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


_PROCESS = os.getpid()


def _pool() -> int:
    """The pool does not survive a fork; in a child the kernel starts threads of its own."""
    return _team() if os.getpid() == _PROCESS else 0


class CKernel:
    """See `ostinato.backends.base.Kernel`."""

    def __init__(self, plan: Plan, library: Path) -> None:
        self.plan = plan
        loaded = ctypes.CDLL(str(library))
        self._forward, self._backward = loaded.ostinato_forward, loaded.ostinato_backward
        for function in (self._forward, self._backward):
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_int
        self._shape = {v: i for i, v in enumerate(plan.symbols)}
        self._state_sizes = [self._shape[s] for _, s in plan.states]
        self._output = self._shape[plan.output_size]
        # positions of the matrices, vectors and scalars among parameters of these ranks: cells share a kernel
        self._orders: dict[tuple[int, ...], tuple[list[int], ...]] = {}

    def tape_values(self, sizes: Sequence[int], rows: int) -> int:
        """Length of the tape of so many rows: padded columns, a vector more, and room to read past the end."""
        return self.plan.tape_values(sizes, rows)

    def _arguments(
        self,
        x: Tensor,
        out: Tensor,
        sizes: Sequence[int],
        lengths: Tensor | None,
        reverse: bool,
        flags: int,
        tape: Tensor | None,
        grad_out: Tensor | None,
        grad_x: Tensor | None,
    ) -> list[int]:
        steps, batch, _ = x.shape
        x_step, x_batch, _ = x.stride()
        out_step, out_batch, _ = out.stride()
        a = [steps, batch, torch.get_num_threads(), flags, reverse, x.data_ptr(), x_step, x_batch]
        a += (out.data_ptr(), out_step, out_batch)
        a += (0 if lengths is None else lengths.data_ptr(), 0 if tape is None else tape.data_ptr())
        for g in (grad_out, grad_x):
            a += (0, 0, 0) if g is None else (g.data_ptr(), *g.stride()[:2])
        a.append(_pool() if batch > 1 else 0)
        a += sizes
        return a

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
        """Run over x [T, B, D]."""
        x = _rows(x)
        steps, batch, _ = x.shape
        out = _like_rows(x, sizes[self._output])
        finals = [x.new_empty((batch, sizes[s])) for s in self._state_sizes]
        tape = x.new_empty(self.tape_values(sizes, steps * batch)) if training else None
        flags = _TRAINING if training else _UNPACKED if steps * batch <= _UNPACKED_ROWS else 0
        a = self._arguments(x, out, sizes, lengths, reverse, flags, tape, None, None)
        keep: list[Tensor] = []  # contiguous copies live until the kernel returns
        for i, final in enumerate(finals):
            start, stride = _state(None if states is None else states[i], keep)
            a += (start, stride, final.data_ptr(), 0, 0, 0)
        self._params(a, params, None, keep)
        self._call(self._forward, a)
        return Forward(out, tuple(finals), tape)

    def _params(
        self, a: list[int], params: Sequence[Tensor], grads: Sequence[Tensor | None] | None, keep: list[Tensor]
    ) -> None:
        """Matrices, then vectors, then scalars, each in the order of the Plan."""
        ranks = tuple([p.dim() for p in params])
        order = self._orders.get(ranks)
        if order is None:
            order = self._orders[ranks] = tuple([i for i, r in enumerate(ranks) if r == rank] for rank in (2, 1, 0))
        matrices, *others = order
        for i in matrices:
            p = params[i]
            row, column = p.stride()
            if column != 1:
                p = p.contiguous()
                row = p.stride(0)
                keep.append(p)
            a += (p.data_ptr(), row, 0 if grads is None else _address(grads[i]))
        for group in others:
            for i in group:
                p = params[i]
                if not p.is_contiguous():
                    p = p.contiguous()
                    keep.append(p)
                a += (p.data_ptr(), 0 if grads is None else _address(grads[i]))

    @staticmethod
    def _call(function: Callable[[int], int], arguments: list[int]) -> None:
        packed = array("q", arguments)
        if function(packed.buffer_info()[0]):
            raise BackendError("the kernel found no memory for its scratch; free memory, or use a smaller batch")

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
        """Gradients of what forward computed."""
        x = _rows(x)
        batch = x.shape[1]
        grad_output = torch.zeros_like(output) if grad_output is None else _rows(grad_output)
        grad_x = _like_rows(x, x.shape[2]) if wanted.x else None
        flags = _TRAINING | (_WANT_INPUT if wanted.x else 0) | (_WANT_PARAMS if wanted.params else 0)
        a = self._arguments(x, output, sizes, lengths, reverse, flags, tape, grad_output, grad_x)
        keep: list[Tensor] = []
        grad_states: list[Tensor | None] = []
        for i, size in enumerate(self._state_sizes):
            start, stride = _state(None if states is None else states[i], keep)
            last, last_stride = _state(grad_finals[i], keep)
            grad_states.append(x.new_empty((batch, sizes[size])) if wanted.states else None)
            a += [start, stride, 0, last, last_stride, _address(grad_states[-1])]
        grads = [torch.empty_like(p, memory_format=torch.contiguous_format) if wanted.params else None for p in params]
        self._params(a, params, grads, keep)
        self._call(self._backward, a)
        return Gradients(grad_x, tuple(grad_states), tuple(grads))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> Tensor:
    """Rows must lie in one piece; time and batch may have any strides."""
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def _like_rows(x: Tensor, width: int) -> Tensor:
    """An empty [T, B, width] in the layout of x: sequences in one piece if they are so in x."""
    steps, batch, _ = x.shape
    if batch > 1 and x.stride(1) > x.stride(0):
        return x.new_empty((batch, steps, width)).transpose(0, 1)
    return x.new_empty((steps, batch, width))


def _state(tensor: Tensor | None, keep: list[Tensor]) -> tuple[int, int]:
    if tensor is None:
        return 0, 0
    row, column = tensor.stride()
    if column != 1:
        tensor = tensor.contiguous()
        row = tensor.stride(0)
        keep.append(tensor)
    return tensor.data_ptr(), row
