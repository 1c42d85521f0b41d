"""A Plan as the text of a Python module with Triton kernels.

`render` gives three functions: `infer`, `train` and `backward`. Each goes over all steps of a sequence. A program has
`Form.batch` sequences and of every vector its part of the units; what a product reads of other programs' parts goes
through memory, and before it is read the programs of a group meet. Rows of the tape, of x and of the output are
numbered step by step, or as a PackedSequence has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import BatchMean, Loop, Place, Plan, Run, Slot
from .form import Form
from .layout import Layout
from .pointwise import Pointwise
from .products import Products

__all__ = ["CONSTANTS", "arguments", "render"]

CONSTANTS = ("HAS_LENGTHS", "PACKED", "REVERSE", "HAS_START")

_HEAD = '''"""Rendered from a Plan."""

import triton
import triton.language as tl

from ostinato.backends.triton import functions as f
'''


def arguments(plan: Plan, backward: bool) -> list[str]:
    """The names of a kernel's arguments, in order, before its constants."""
    states = range(len(plan.states))
    names = ["x", "out", "tape", "lengths", "begin", "T", "B", "rows", "exchange", "counters", "patience"]
    names += [name for i in range(len(plan.matrices)) for name in (f"m{i}", f"ld{i}")]
    names += [f"v{i}" for i in range(len(plan.vectors))] + [f"c{i}" for i in range(len(plan.scalars))]
    names += [name for i in range(len(plan.masks)) for name in (f"k{i}", f"k{i}_steps")]
    names += [f"start{i}" for i in states] + [f"end{i}" for i in states]
    if not backward:
        return names + [f"stat{i}" for i in range(len(plan.statistics))]
    names += ["grad_out", "grad_x", *(f"begun{i}" for i in states)]
    return names + [f"gv{i}" for i in range(len(plan.vectors))] + [f"gc{i}" for i in range(len(plan.scalars))]


def render(plan: Plan, sizes: Sequence[int], form: Form) -> tuple[str, int]:
    """The module's text, and how much a sequence has in the exchange.

    Args:
        plan: the schedule.
        sizes: in the order of the Plan's symbols.
        form: how the work is dealt to programs.
    """
    layout = Layout(plan, sizes)
    kernels = [_Kernel(layout, form, name) for name in ("infer", "train", "backward")]
    text = "\n\n\n".join([_HEAD.rstrip(), *(kernel.text() for kernel in kernels)]) + "\n"
    return text, max(kernel.room for kernel in kernels)


class _Kernel(Products, Pointwise):
    """One kernel."""

    def text(self) -> str:
        """The function."""
        plan, layout = self.plan, self.layout
        states = range(len(plan.states))
        for i, (state, _) in enumerate(plan.states):
            place = Place("grad_next" if self.back else "prev", state)
            self.env[place] = f"state{i}"
        first = [f"state{i} = {self.ended(i) if self.back else self.started(i)}" for i in states]
        self.body, share = [], self.body
        for state, _ in plan.states:
            if Place("prev", state) in self.shared:
                self.share(Place("prev", state), self.env[Place("prev", state)], "0")
        share, self.body = self.body, []
        for slot in self.slots:
            self.slot(slot)
        self._close_step()
        if self.name == "train":
            self._keep_sums()
        for i, (state, _) in enumerate(plan.states):
            place = Place("grad_prev" if self.back else "next", state)
            self.body.append(f"state{i} = tl.where(at, {self.value(place)}, state{i})")
            if Place("prev", state) in self.shared:
                self.share(Place("prev", state), f"state{i}", "((s + 1) & 1)")
        for i in states:
            size = layout.state_sizes[i]
            pointer = f"begun{i}" if self.back else f"end{i}"
            j, own = self.lanes(size), self.own(size)
            self.after.append(f"tl.store({pointer} + b * {size} + {j}, state{i}, mask=inside & ok{size}{own})")
        if self.form.slices > 1:
            self.after.append("tl.store(counters + tl.num_programs(0), 1, mask=left <= 0)")
        head = [
            "group = tl.program_id(0)",
            "part = tl.program_id(1)",
            "first = part == 0",
            f"b = (group * {self.form.batch} + tl.arange(0, {self.form.batch}))[:, None]",
            "inside = b < B",
            "length = tl.load(lengths + b, mask=inside, other=0) if HAS_LENGTHS else tl.zeros_like(b) + T",
            "rounds = 0",
            "left = patience",
        ]
        step = [
            *(["s = T - 1 - n"] if self.back else []),
            "at = inside & (s < length)",
            "there = at if PACKED else inside",  # a padded row past an end is visited too, once
            "since = tl.zeros_like(length) + s",
            "t = tl.where(s < length, length - 1 - s, s) if REVERSE else s",
            "row = (tl.load(begin + t, mask=t < T) if PACKED else t * B).to(tl.int64) + b",
            f"steps = tape + rows * {layout.row} + s * {layout.step}",
        ]
        if any(isinstance(slot, BatchMean) for slot in self.slots):
            step += ["counted = tl.sum(at.to(tl.float32), axis=0)[None, :]", "running = tl.maximum(counted, 1.0)"]
        names = [*arguments(plan, self.back), *(f"{name}: tl.constexpr" for name in CONSTANTS)]
        lines = [*head, *self.before, *first, *share, f"for {'n' if self.back else 's'} in range(0, T):"]
        lines += [f"    {line}" for line in (*step, *self.body)]
        lines += self.after
        return "\n".join(["@triton.jit", f"def {self.name}({', '.join(names)}):", *(f"    {line}" for line in lines)])

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

    def _close_step(self) -> None:
        """The gradient of x, where loops write it: products are added to it later."""
        place = Place("grad_x")
        if place in self.env:
            size = self.layout.place(place)
            self.store("grad_x", size, 0, size, f"tl.where(at, {self.env[place]}, 0.0)", "there")

    def _keep_sums(self) -> None:
        """Sums of products that backward reads as they are, and that no loop has written to the tape."""
        read = {place for slot in self.plan.backward if isinstance(slot, Loop) for _, place in slot.loads}
        written = {s.place for slot in self.plan.forward if isinstance(slot, Loop) for s in slot.stores}
        for place in sorted(read - written, key=str):
            if place.kind == "col" and place not in self.on_tape and self._is_sum(place):
                size = self.layout.place(place)
                self.store("tape", self.layout.row, self.layout.columns[place.column], size, self.value(place))

    def _is_sum(self, place: Place) -> bool:
        """Whether a column is one that forward adds products to, or fills."""
        runs = [*self.plan.hoist, *(slot for slot in self.plan.forward if isinstance(slot, Run))]
        sums = {entry.column for run in runs for entry in run.entries} | {e.column for e in self.plan.fills}
        return place.column in sums
