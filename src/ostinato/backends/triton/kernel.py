"""A rendered Plan at work: large products by torch, the recurrence by Triton."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendError, ShapeError
from ...schedule import BatchMean, Place, Plan
from ..base import Gradients, Inputs, OutputGradients, Outputs, Wanted
from .form import Form
from .layout import Layout
from .load import load
from .render import render

__all__ = ["TritonBound", "TritonKernel"]

_PATIENCE = 1 << 28  # looks at a counter, over all of a call, before a program gives up


class TritonKernel:
    """See `ostinato.backends.base.Kernel`.

    Args:
        plan: the schedule.
        sizes: in the order of its symbols.
        form: how the work is dealt to programs.
    """

    narrow = False

    def __init__(self, plan: Plan, sizes: Sequence[int], form: Form) -> None:
        self.plan, self.sizes, self.form = plan, list(sizes), form
        self.layout = Layout(plan, sizes)
        self._tape = plan.tape_size(sizes)
        self.text, self.exchange = render(plan, sizes, form)

    @cached_property
    def module(self) -> ModuleType:
        """The kernels."""
        return load(self.text)

    def bind(self, params: Sequence[Tensor]) -> TritonBound:
        """The kernel with its parameters."""
        return TritonBound(self, params)

    def tape_values(self, steps: int, rows: int) -> int:
        """Values of a tape."""
        return self._tape.values(steps, rows)


class TritonBound:
    """See `ostinato.backends.base.Bound`."""

    def __init__(self, kernel: TritonKernel, params: Sequence[Tensor]) -> None:
        self.kernel, self._given = kernel, list(params)
        held = [p.detach() for p in params]
        order = sorted(range(len(held)), key=lambda i: -held[i].dim())
        plan = kernel.plan
        self._order = order
        ordered = [held[i] if held[i].dim() < 2 or held[i].stride(1) == 1 else held[i].contiguous() for i in order]
        self.matrices = dict(zip((name for name, *_ in plan.matrices), ordered, strict=False))
        rest = ordered[len(self.matrices) :]
        self.vectors = dict(zip((name for name, _ in plan.vectors), (v.contiguous() for v in rest), strict=False))
        self.scalars = dict(zip(plan.scalars, rest[len(self.vectors) :], strict=True))
        self._places = [(p.data_ptr(), p.shape, p.stride()) for p in params]

    def same(self, params: Sequence[Tensor]) -> bool:
        """See the protocol."""
        return self._places == [(p.data_ptr(), p.shape, p.stride()) for p in params]

    def again(self, params: Sequence[Tensor]) -> TritonBound:
        """See the protocol."""
        for old, new in zip(self._given, params, strict=True):
            if old.shape != new.shape or old.dtype != new.dtype or old.device != new.device:
                raise ShapeError(
                    f"a parameter was {old.dtype} {list(old.shape)} on {old.device} in forward and is {new.dtype} "
                    f"{list(new.shape)} on {new.device} in backward; run forward again before backward"
                )
        return self if self.same(params) else TritonBound(self.kernel, params)

    def forward(self, inputs: Inputs, training: bool) -> tuple[Outputs, Tensor | None]:
        """See the protocol."""
        kernel, layout, plan = self.kernel, self.kernel.layout, self.kernel.plan
        call = _Call(kernel, inputs)
        x = call.x
        ragged = inputs.lengths is not None
        new = torch.zeros if ragged else torch.empty
        out = x.new_empty(0) if not layout.output_size else new((call.rows, layout.output_size), **call.like)
        width = layout.row if training else layout.hoisted_row
        values = kernel.tape_values(call.steps, call.rows) if training else call.rows * width
        tape = new(values, **call.like)
        self._hoist(call, tape[: call.rows * width].view(call.rows, width), training)
        finals = [torch.empty(1, call.batch, size, **call.like) for size in layout.state_sizes]
        sizes = [layout.of(plan.steps[number]) for number in plan.statistics]
        statistics = [torch.zeros(call.steps, size, **call.like) for size in sizes]
        call.launch("train" if training else "infer", out, tape, self, [*finals, *statistics])
        shape = (*inputs.x.shape[:-1], layout.output_size)
        return Outputs(out.view(shape), tuple(finals), tuple(statistics)), tape if training else None

    def _hoist(self, call: _Call, tape: Tensor, training: bool) -> None:
        """The products of x, for all steps at once."""
        layout = self.kernel.layout
        begin = layout.columns if training else layout.hoisted
        for run in self.kernel.plan.hoist:
            for entry in run.entries:
                weight = self.matrices[entry.matrix]
                place = tape[:, begin[entry.column] : begin[entry.column] + weight.shape[0]]
                if run.accumulate:
                    place.addmm_(call.x, weight.T)
                elif entry.bias:
                    bias = self.vectors[entry.bias[0]]
                    for name in entry.bias[1:]:
                        bias = bias + self.vectors[name]
                    torch.addmm(bias, call.x, weight.T, out=place)
                else:
                    torch.mm(call.x, weight.T, out=place)

    def backward(
        self, tape: Tensor, inputs: Inputs, output: Tensor, grads: OutputGradients, wanted: Wanted
    ) -> Gradients:
        """See the protocol."""
        kernel, layout, plan = self.kernel, self.kernel.layout, self.kernel.plan
        call = _Call(kernel, inputs)
        out = output.reshape(call.rows, layout.output_size).contiguous()
        grad_out = torch.zeros_like(out) if grads.output is None else grads.output.reshape(out.shape).contiguous()
        ends = [
            torch.zeros(1, call.batch, size, **call.like) if grad is None else grad.contiguous()
            for grad, size in zip(grads.finals, layout.state_sizes, strict=True)
        ]
        begun = [torch.empty(1, call.batch, size, **call.like) for size in layout.state_sizes]
        width = layout.of(plan.input_size)
        grad_x = torch.zeros(call.rows, width, **call.like)
        vectors = [torch.zeros(call.groups, layout.of(size), **call.like) for _, size in plan.vectors]
        scalars = [torch.zeros(call.groups, kernel.form.slices, **call.like) for _ in plan.scalars]
        call.launch("backward", out, tape, self, [*ends, grad_out, grad_x, *begun, *vectors, *scalars])
        rows = tape[: call.rows * layout.row].view(call.rows, layout.row)

        def column(number: int) -> Tensor:
            begin = layout.columns[number]
            return rows[:, begin : begin + layout.of(plan.columns[number].size)]

        if wanted.x:
            for run in plan.deferred:
                for entry in run.entries:
                    grad_x.addmm_(column(entry.column), self.matrices[entry.matrix])
        named: dict[str, Tensor] = {name: v.sum(0) for (name, _), v in zip(plan.vectors, vectors, strict=True)}
        named |= {name: v.sum() for name, v in zip(plan.scalars, scalars, strict=True)}
        for name, number in plan.bias_grads:
            named[name] = named[name] + column(number).sum(0)
        history = _History(call, layout, out, column)
        for grad in plan.weight_grads:
            product = column(grad.column).T @ history.operand(grad.operand)
            named[grad.matrix] = named[grad.matrix] + product if grad.matrix in named else product
        made: list[Tensor | None] = [None] * len(self._order)
        names = [*(name for name, *_ in plan.matrices), *(name for name, _ in plan.vectors), *plan.scalars]
        for i, name in zip(self._order, names, strict=True):
            if wanted.params[i]:
                p = self._given[i]
                made[i] = named[name].reshape(p.shape) if name in named else torch.zeros_like(p)
        states = tuple(begun) if wanted.states else (None,) * len(begun)
        return Gradients(grad_x.view(inputs.x.shape) if wanted.x else None, states, tuple(made))


class _Call:
    """What a call runs over, as kernels take it."""

    def __init__(self, kernel: TritonKernel, inputs: Inputs) -> None:
        x, self.states, self.lengths, self.reverse, self.masks = inputs
        self.kernel = kernel
        self.packed = x.dim() == 2
        self.device = x.device
        self.like: dict[str, Any] = {"device": x.device, "dtype": torch.float32}
        if self.packed:
            assert self.lengths is not None
            self.steps, self.batch = int(self.lengths[0]), len(self.lengths)
            running = (self.lengths[None] > torch.arange(self.steps)[:, None]).sum(1)
            self.begin = torch.cat([running.new_zeros(1), running.cumsum(0)])[:-1].to(x.device)
        else:
            self.steps, self.batch = x.shape[:2]
            self.begin = torch.zeros(1, dtype=torch.int64, device=x.device)
        self.rows = x.shape[0] if self.packed else self.steps * self.batch
        self.x = x.reshape(self.rows, x.shape[-1]).contiguous()

    @property
    def groups(self) -> int:
        """How many groups of programs there are, each with its sequences."""
        return -(-self.batch // self.kernel.form.batch)

    def launch(self, name: str, out: Tensor, tape: Tensor, bound: TritonBound, rest: Sequence[Tensor]) -> None:
        """Run one of the kernels."""
        kernel, form = self.kernel, self.kernel.form
        if not self.rows:
            self._nothing(name, rest)
            return
        if self.groups > 1 and any(isinstance(slot, BatchMean) for slot in kernel.plan.infer):
            raise BackendError(
                f"a mean over a batch of {self.batch} sequences needs one program with all of them, and it has "
                f"{form.batch}; use smaller batches, or backend='eager'"
            )
        function: Any = getattr(kernel.module, name)
        none = self.x.new_empty(1)
        lengths = none if self.lengths is None else self.lengths.to(self.device)
        exchange = torch.zeros(kernel.exchange * self.batch + 1, **self.like)
        counters = torch.zeros(self.groups + 1, dtype=torch.int32, device=self.device)
        given: list[Any] = [self.x, out, tape, lengths, self.begin, self.steps, self.batch, self.rows]
        given += [exchange, counters, _PATIENCE]
        for matrix in bound.matrices.values():
            given += matrix, matrix.stride(0)
        given += [*bound.vectors.values(), *bound.scalars.values()]
        for mask in self.masks:
            given += mask.contiguous(), mask.shape[0] if mask.dim() == 3 else self.rows
        states = self.states
        given += [none] * len(kernel.layout.state_sizes) if states is None else [s.contiguous() for s in states]
        constants = {
            "HAS_LENGTHS": self.lengths is not None,
            "PACKED": self.packed,
            "REVERSE": self.reverse,
            "HAS_START": states is not None,
        }
        function[(self.groups, form.slices)](*given, *rest, **constants, num_warps=form.warps)
        if form.slices > 1 and int(counters[-1]):
            raise BackendError("the programs of a kernel did not meet in time; its results are not to be used")

    def _nothing(self, name: str, rest: Sequence[Tensor]) -> None:
        """No step: the states stay what they were, and so do their gradients."""
        count = len(self.kernel.layout.state_sizes)
        if name == "backward":
            for end, begun in zip(rest[:count], rest[count + 2 : 2 * count + 2], strict=True):
                begun.copy_(end)
            return
        for i, final in enumerate(rest[:count]):
            final.zero_() if self.states is None else final.copy_(self.states[i])


class _History:
    """What products read, as rows for the gradients of weights."""

    def __init__(self, call: _Call, layout: Layout, out: Tensor, column: Callable[[int], Tensor]) -> None:
        self.call, self.layout, self.out, self.column = call, layout, out, column

    def operand(self, place: Place) -> Tensor:
        """The rows of x, of a column, or of a state before each step."""
        if place.kind == "x":
            return self.call.x
        return self.column(place.column) if place.kind == "col" else self._before(place.name)

    def _before(self, state: str) -> Tensor:
        """A state before each step, [rows, S]: what it was behind the step before, or what it started from."""
        i = self.layout.states[state]
        place = self.layout.plan.history[i]
        assert place is not None
        if place.kind == "prev":
            after = self._before(place.name)
        else:
            after = self.out if place.kind == "out" else self.operand(place)
        call, size = self.call, self.layout.state_sizes[i]
        start = torch.zeros(call.batch, size, **call.like) if call.states is None else call.states[i][0]
        return torch.cat([start, after])[self._earlier]

    @cached_property
    def _earlier(self) -> Tensor:
        """For each row that of the step before in [start; rows]."""
        call = self.call
        sequence = torch.arange(call.batch)
        t = torch.arange(call.steps)[:, None]
        length = torch.full((call.batch,), call.steps) if call.lengths is None else call.lengths
        begin = call.begin.cpu() if call.packed else torch.arange(call.steps) * call.batch
        before = t + 1 if call.reverse else t - 1
        first = (t >= length - 1) if call.reverse else (t == 0) & (sequence >= 0)
        rows = begin[before.clamp(0, max(call.steps - 1, 0))] + sequence + call.batch
        earlier = torch.where(first, sequence, rows)
        if call.packed:
            earlier = earlier[t < length]
        return earlier.reshape(-1).to(call.device)
