"""Where what a Plan names lies in memory, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir import size_value
from ...schedule import Entry, Loop, Place, Plan
from ...schedule.plan import WIDEST

__all__ = ["Layout"]


class Layout:
    """A Plan at given sizes.

    Args:
        plan: the schedule.
        sizes: in the order of the Plan's symbols.

    Attributes:
        columns, row: where each column of a row of the tape begins, and how long a row is.
        hoisted, hoisted_row: the same without gradients: of the columns that are written before the first step alone.
        steps, step: where each vector of a step that is kept begins, and how much a step has.
        states, matrices, vectors, scalars, masks: the number of each by its name.
        gathered, gathered_scalars: vectors, with their sizes, and scalars whose gradients a backward kernel adds to.
        stacked: what `outside.stacks` found.
        adds_to_x: whether the products for the gradient of x are added to what is there.
    """

    def __init__(self, plan: Plan, sizes: Sequence[int]) -> None:
        self.plan = plan
        self.size = dict(zip(plan.symbols, sizes, strict=True))
        self._numbers: dict[str, int] = {}
        self.stacked: dict[Any, list[tuple[slice, list[Entry]]]] = {}
        widths = [self.of(column.size) for column in plan.columns]
        self.columns, end = _placed(dict(enumerate(widths)))
        self.row = end + WIDEST
        ahead = sorted({entry.column for run in plan.hoist for entry in run.entries})
        self.hoisted, self.hoisted_row = _placed({c: widths[c] for c in ahead})
        self.steps, self.step = _placed({i: self.of(size) for i, size in enumerate(plan.steps[: plan.kept_steps])})
        self.states = {s: i for i, (s, _) in enumerate(plan.states)}
        self.state_sizes = [self.of(size) for _, size in plan.states]
        self.matrices = {m: i for i, (m, *_) in enumerate(plan.matrices)}
        self.vectors = {v: i for i, (v, _) in enumerate(plan.vectors)}
        self.scalars = {v: i for i, v in enumerate(plan.scalars)}
        self.masks = {m: i for i, (m, _) in enumerate(plan.masks)}
        self.output_size = self.of(plan.output_size)
        stores = [store.place for slot in plan.backward if isinstance(slot, Loop) for store in slot.stores]
        summed = {place.name for place in stores if place.kind == "grad_vector"}
        self.gathered = {v: self.of(size) for v, size in plan.vectors if v in summed}
        self.gathered_scalars = [v for v in plan.scalars if Place("grad_scalar", v) in stores]
        self.adds_to_x = not plan.deferred or any(place.kind == "grad_x" for place in stores)

    def of(self, size: str) -> int:
        """A size in numbers."""
        if size not in self._numbers:
            self._numbers[size] = size_value(size, self.size)
        return self._numbers[size]

    def width(self, column: int) -> int:
        """The size of a column."""
        return self.of(self.plan.columns[column].size)

    def place(self, place: Place) -> int:
        """The size of what stands at a place; of a part of the output see `part`."""
        plan, name = self.plan, place.name
        match place.kind:
            case "x" | "grad_x":
                return self.of(plan.input_size)
            case "prev" | "next" | "grad_next" | "grad_prev":
                return self.state_sizes[self.states[name]]
            case "col":
                return self.width(place.column)
            case "vector" | "grad_vector":
                return self.of(plan.vectors[self.vectors[name]][1])
            case "mask":
                return self.of(plan.masks[self.masks[name]][1])
            case "temp":
                return self.of(plan.temps[place.column])
            case "step":
                return self.of(plan.steps[place.column])
            case "out" | "grad_out":
                raise ValueError("a part of the output has its own size")
            case _:  # a scalar, a size
                return 1


def _placed(widths: dict[int, int]) -> tuple[dict[int, int], int]:
    """Where each begins, whole vectors apart, and where the last ends."""
    places: dict[int, int] = {}
    end = 0
    for name, width in widths.items():
        places[name] = end
        end += -(-width // WIDEST) * WIDEST
    return places, end
