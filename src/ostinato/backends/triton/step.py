"""The step of a Plan, slot by slot: what kernels over whole sequences and kernels of a stage have in common."""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import BatchMean, Loop, Place, Plan, Run, Slot
from .pointwise import Pointwise
from .products import Products

__all__ = ["CONSTANTS", "NUMBERS", "Step", "arguments", "function"]

CONSTANTS = ("HAS_LENGTHS", "PACKED", "REVERSE", "HAS_START")
NUMBERS = ("T", "B", "rows", "patience", "earlier", "ahead")


def arguments(plan: Plan, backward: bool) -> list[str]:
    """The names of what a kernel is given, in order, before its constants."""
    states = range(len(plan.states))
    names = ["x", "out", "tape", "lengths", "begin", "T", "B", "rows"]
    names += [f"v{i}" for i in range(len(plan.vectors))] + [f"c{i}" for i in range(len(plan.scalars))]
    names += [name for i in range(len(plan.masks)) for name in (f"k{i}", f"k{i}_steps")]
    names += [f"start{i}" for i in states] + [f"end{i}" for i in states]
    if not backward:
        return names + [f"stat{i}" for i in range(len(plan.statistics))]
    names += ["grad_out", "grad_x", *(f"begun{i}" for i in states)]
    return names + [f"gv{i}" for i in range(len(plan.vectors))] + [f"gc{i}" for i in range(len(plan.scalars))]


def function(name: str, given: Sequence[str], lines: Sequence[str], constants: Sequence[str] = CONSTANTS) -> str:
    """A kernel's text; it is not compiled anew for the values of its `NUMBERS`."""
    plain = ", ".join(f'"{n}"' for n in given if n in NUMBERS or n.endswith("_steps"))
    names = ", ".join([*given, *(f"{constant}: tl.constexpr" for constant in constants)])
    head = [f"@triton.jit(do_not_specialize=[{plain}])", f"def {name}({names}):"]
    return "\n".join([*head, *(f"    {line}" for line in lines)])


class Step(Products, Pointwise):
    """Writes a step's slots."""

    def slot(self, slot: Slot) -> None:
        """Write down one slot."""
        if isinstance(slot, Run):
            self.transposed(slot) if slot.transposed else self.product(slot)
        elif isinstance(slot, BatchMean):
            source = self.value(slot.source)
            total = f"tl.sum(tl.where(at, {source}, 0.0), axis=0)[None, :]"
            self.keep_step(slot.target, self.define("mean", f"{total} / running"))
        else:
            self.loop(slot.stores, dict(slot.loads), self.layout.of(slot.size))

    def place_of(self, late: str = "") -> list[str]:
        """Where a step is: its number, its row of each sequence, and which sequences are at it.

        Args:
            late: behind each name.
        """
        t, at, s = f"t{late}", f"at{late}", f"s{late}"
        return [
            f"real{late} = ({s} >= 0) & ({s} < T)",  # a graph may go on beyond the end
            f"{at} = inside & real{late} & ({s} < length)",
            f"since{late} = tl.zeros_like(length) + {s}",
            f"{t} = tl.where({s} < length, length - 1 - {s}, {s}) if REVERSE else since{late}",
            f"row{late} = (tl.load(begin + {t}, mask={at}, other=0) if PACKED else {t}.to(tl.int64) * B) + b",
        ]

    def of_step(self) -> list[str]:
        """What else is known of the step at hand."""
        found = [
            "there = at if PACKED else inside & real",  # a padded row past an end is visited too, once
            f"steps = tape + rows.to(tl.int64) * {self.layout.row} + s.to(tl.int64) * {self.layout.step}",
        ]
        if any(isinstance(slot, BatchMean) for slot in self.slots):
            found += ["counted = tl.sum(at.to(tl.float32), axis=0)[None, :]", "running = tl.maximum(counted, 1.0)"]
        return found

    def sequences(self) -> list[str]:
        """A program's sequences and their lengths."""
        return [
            f"b = (group * {self.form.batch} + tl.arange(0, {self.form.batch}))[:, None]",
            "inside = b < B",
            "length = tl.load(lengths + b, mask=inside, other=0).to(tl.int32) if HAS_LENGTHS else tl.zeros_like(b) + T",
        ]

    def after_state(self, state: str) -> Place:
        """The place of a state when the step is done."""
        return Place("grad_prev" if self.back else "next", state)

    def close(self) -> None:
        """What is written behind the last slot."""
        place = Place("grad_x")  # where loops write it: products are added to it later
        if self.back and (place in self.env or self.known_elsewhere(place)):
            size = self.layout.place(place)
            self.store("grad_x", size, 0, size, f"tl.where(at, {self.value(place)}, 0.0)", "there")
        for place in self.bare_sums():
            if place not in self.on_tape:
                size = self.layout.place(place)
                self.store("tape", self.layout.row, self.layout.columns[place.column], size, self.value(place))

    def bare_sums(self) -> list[Place]:
        """Sums of products that backward reads as they are, and that no loop has written to the tape."""
        if self.name != "train":
            return []
        plan = self.plan
        read = {place for slot in plan.backward if isinstance(slot, Loop) for _, place in slot.loads}
        written = {s.place for slot in plan.forward if isinstance(slot, Loop) for s in slot.stores}
        runs = [*plan.hoist, *(slot for slot in plan.forward if isinstance(slot, Run))]
        sums = {entry.column for run in runs for entry in run.entries} | {e.column for e in plan.fills}
        return [p for p in sorted(read - written, key=str) if p.kind == "col" and p.column in sums]
