"""Products over all rows of a call, before and behind the recurrence, by the vendor's library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from ...schedule import Entry, Place
from ..base import on_device
from .call import Call
from .form import NARROW
from .layout import Layout

__all__ = ["History", "bias_gradients", "deferred", "factor", "hoisted", "multiply", "weight_gradients"]


def factor(values: Tensor, factors: str) -> Tensor:
    """What is multiplied: rounded to the type of factors, if that is a narrow one."""
    return values.to(getattr(torch, factors)) if factors in NARROW else values


def multiply(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left @ right in float32; of narrow factors their exact products are summed."""
    if left.dtype == torch.float32:
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    if left.is_cuda:
        if out is None:
            return torch.mm(left, right, out_dtype=torch.float32)
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return multiply(left.float(), right.float(), out)


def stacks(entries: Sequence[Entry], layout: Layout, hoisted_alone: bool = False) -> list[tuple[slice, list[Entry]]]:
    """Entries whose columns lie one behind the other, together; and where in a row they lie.

    Args:
        entries: products, or what is summed.
        layout: where columns begin.
        hoisted_alone: in rows without gradients.
    """
    key = tuple(entries), hoisted_alone
    if key not in layout.stacked:
        begin = layout.hoisted if hoisted_alone else layout.columns
        layout.stacked[key] = list(_stacks(entries, begin, layout.width))
    return layout.stacked[key]


def _stacks(
    entries: Sequence[Entry], begin: Mapping[int, int], width: Callable[[int], int]
) -> Iterator[tuple[slice, list[Entry]]]:
    together: list[Entry] = []
    first = end = 0
    for entry in sorted(entries, key=lambda e: begin[e.column]):
        if together and end != begin[entry.column]:
            yield slice(first, end), together
            together = []
        if not together:
            first = begin[entry.column]
        together.append(entry)
        end = begin[entry.column] + width(entry.column)
    if together:
        yield slice(first, end), together


def hoisted(
    call: Call,
    rows: Tensor,
    alone: bool,
    matrices: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    factors: str,
) -> None:
    """The products of x, for all steps at once, in the columns of rows: of the tape, or of what is hoisted `alone`."""
    layout = call.layout
    x = factor(call.x, factors) if layout.plan.hoist else call.x
    for run in layout.plan.hoist:
        for columns, stack in stacks(run.entries, layout, alone):
            place = rows[:, columns]
            weight = factor(_joined([matrices[e.matrix] for e in stack]), factors)
            biased = any(e.bias for e in stack) and not run.accumulate
            base = place
            if biased:
                base = _joined([_sum([vectors[v] for v in e.bias], call, layout.width(e.column)) for e in stack])
            if x.dtype == torch.float32 and (run.accumulate or biased):
                torch.addmm(base, x, weight.T, out=place)
            elif run.accumulate:
                place += multiply(x, weight.T)
            else:
                multiply(x, weight.T, place)
                if biased:
                    place += base


def deferred(grad_x: Tensor, rows: Tensor, layout: Layout, matrices: Mapping[str, Tensor], factors: str) -> None:
    """The products for the gradient of x, in it or added to it: of gradients of sums, in the tape's rows."""
    begun = layout.adds_to_x
    for run in layout.plan.deferred:
        for columns, stack in stacks(run.entries, layout):
            weight = factor(_joined([matrices[e.matrix] for e in stack]), factors)
            if not begun:
                multiply(factor(rows[:, columns], factors), weight, grad_x)
                begun = True
            elif weight.dtype == torch.float32:
                grad_x.addmm_(rows[:, columns], weight)
            else:
                grad_x += multiply(factor(rows[:, columns], factors), weight)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _sum(parts: Sequence[Tensor], call: Call, size: int) -> Tensor:
    if not parts:
        return call.zeros(size)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class History:
    """What products of each step read, beside gradients of what they gave.

    Args:
        call: the call; out: its output, [rows, O].
        column: a column of the tape, [rows, size].
    """

    def __init__(self, call: Call, out: Tensor, column: Callable[[int], Tensor]) -> None:
        self.call, self.layout, self.out, self.column = call, call.layout, out, column

    def product(self, grads: Tensor, operand: Place, factors: str) -> Tensor:
        """gradsᵀ @ the operand's rows."""
        grads = factor(grads, factors)
        if operand.kind != "prev":
            return multiply(grads.T, factor(self._rows(operand), factors))
        call, i = self.call, self.layout.states[operand.name]
        place = self.layout.plan.history[i]
        assert place is not None
        if call.packed or place.kind == "prev":
            return multiply(grads.T, factor(self._before(operand.name), factors))
        # a step before is a whole batch of rows before; behind a sequence's end all of this is zeros
        after, size = factor(self._rows(place), factors), call.batch
        later, earlier = (grads[:-size], after[size:]) if call.reverse else (grads[size:], after[:-size])
        total = multiply(later.T, earlier)
        if call.states is not None and call.rows:
            total += multiply(grads[self._first].T, factor(call.start(i), factors))
        return total

    def _rows(self, place: Place) -> Tensor:
        if place.kind == "x":
            return self.call.x
        if place.kind == "out":
            return self.out
        return self.column(place.column)

    @cached_property
    def _first(self) -> Tensor:
        """The row of each sequence's first step."""
        call = self.call
        sequence = torch.arange(call.batch, device=call.device)
        return (self._lengths(call.device) - 1).clamp(min=0) * call.batch + sequence if call.reverse else sequence

    def _lengths(self, device: torch.device) -> Tensor:
        call = self.call
        if call.lengths is None:
            return torch.full((call.batch,), call.steps, device=device)
        return on_device(call.lengths, device)

    def _before(self, state: str) -> Tensor:
        """A state before each step, [rows, S]: what it was behind the step before, or what it started from."""
        i = self.layout.states[state]
        place = self.layout.plan.history[i]
        assert place is not None
        after = self._before(place.name) if place.kind == "prev" else self._rows(place)
        return torch.cat([self.call.start(i), after])[self._earlier]

    @cached_property
    def _earlier(self) -> Tensor:
        """For each row that of the step before in [start; rows]."""
        call = self.call
        # of packed rows, the device would have to be waited for to know how many there are
        where = torch.device("cpu") if call.packed else call.device
        sequence = torch.arange(call.batch, device=where)
        t = torch.arange(call.steps, device=where)[:, None]
        length = self._lengths(where)
        before = t + 1 if call.reverse else t - 1
        first = (t >= length - 1) if call.reverse else (t == 0) & (sequence >= 0)
        last = before.clamp(0, max(call.steps - 1, 0))
        rows = (call.begin[last] if call.packed else last * call.batch) + sequence + call.batch
        earlier = torch.where(first, sequence, rows)
        return on_device(earlier[t < length], call.device) if call.packed else earlier.reshape(-1)


def weight_gradients(history: History, rows: Tensor, factors: str) -> dict[str, Tensor]:
    """The gradient of each matrix: gradients of sums, in the tape's rows, with what was multiplied there."""
    layout = history.layout
    found: dict[str, Tensor] = {}
    operands = list(dict.fromkeys(grad.operand for grad in layout.plan.weight_grads))
    for operand in operands:
        entries = [Entry(g.matrix, g.column) for g in layout.plan.weight_grads if g.operand == operand]
        made = partial(_product, history, rows, operand, factors)
        _share_out(found, entries, layout, made)
    return found


def _product(history: History, rows: Tensor, operand: Place, factors: str, columns: slice) -> Tensor:
    return history.product(rows[:, columns], operand, factors)


def bias_gradients(rows: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The gradient of each vector that is added to a sum: gradients of sums, in the tape's rows, added up."""
    found: dict[str, Tensor] = {}
    entries = [Entry(vector, column) for vector, column in layout.plan.bias_grads]
    _share_out(found, entries, layout, lambda columns: rows[:, columns].sum(0))
    return found


def _share_out(
    found: dict[str, Tensor], entries: Sequence[Entry], layout: Layout, made: Callable[[slice], Tensor]
) -> None:
    """To each parameter its part of what is made of columns that lie together; a column may be of several of them."""
    layers: list[list[Entry]] = []
    for entry in entries:
        layer = next((each for each in layers if all(e.column != entry.column for e in each)), None)
        layers.append([entry]) if layer is None else layer.append(entry)
    for layer in layers:
        for columns, stack in stacks(layer, layout):
            parts = made(columns).split([layout.width(e.column) for e in stack])
            for entry, part in zip(stack, parts, strict=True):
                found[entry.matrix] = found[entry.matrix] + part if entry.matrix in found else part
