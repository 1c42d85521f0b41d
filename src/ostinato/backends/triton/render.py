"""A Plan as the text of a Python module with Triton kernels.

`render` gives three functions: `infer`, `train` and `backward`. Each goes over all steps of a sequence. A program has
`Form.batch` sequences and of every vector its part of the units; what a product reads of other programs' parts goes
through memory, and before it is read the programs of a group meet. Rows of the tape, of x and of the output are
numbered step by step, or as a PackedSequence has them.
"""

from __future__ import annotations

from ...schedule import Place, Plan
from .form import Form
from .layout import Layout
from .lines import AHEAD
from .step import Step, arguments, function

__all__ = ["HEAD", "KERNELS", "given", "render"]

KERNELS = ("infer", "train", "backward")

HEAD = '''"""Rendered from a Plan."""

import triton
import triton.language as tl

from ostinato.backends.triton import functions as f'''


def given(plan: Plan, backward: bool) -> list[str]:
    """The names of a kernel's arguments, in order, before its constants."""
    names = ["exchange", "totals", "counters", "failed", "patience", "earlier"]
    names += [name for i in range(len(plan.matrices)) for name in (f"m{i}", f"ld{i}")]
    return names + arguments(plan, backward)


def render(layout: Layout, form: Form, name: str) -> tuple[str, dict[str, int]]:
    """A module with the kernel of this name, and how much a sequence has in the exchange and in that of sums.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: one of `KERNELS`.
    """
    kernel = _Kernel(layout, form, name)
    return f"{HEAD}\n\n\n{kernel.text()}\n", kernel.rooms


class _Kernel(Step):
    """A kernel over whole sequences."""

    def text(self) -> str:
        """The function."""
        plan, layout = self.plan, self.layout
        states = range(len(plan.states))
        for i, (state, _) in enumerate(plan.states):
            self.env[Place("grad_next" if self.back else "prev", state)] = f"state{i}"
        first = [f"state{i} = {self.ended(i) if self.back else self.started(i)}" for i in states]
        for state, _ in plan.states:
            if Place("prev", state) in self.shared:
                self.share(Place("prev", state), self.env[Place("prev", state)], "0")
        if self.dirty:
            self.arrive()
        share, self.body = self.body, []
        for slot in self.slots:
            self.slot(slot)
        self.close()
        for i, (state, _) in enumerate(plan.states):
            self.body.append(f"state{i} = tl.where(at, {self.value(self.after_state(state))}, state{i})")
            if Place("prev", state) in self.shared:
                self.share(Place("prev", state), f"state{i}", "((s + 1) & 1)")
        if any(Place("prev", state) in self.shared for state, _ in plan.states):
            self.arrive()
        if self.replacing and not self.met:
            self.meet()
        self.body += self.stores + self.replacing
        for i in states:
            size = layout.state_sizes[i]
            pointer = f"begun{i}" if self.back else f"end{i}"
            j, own = self.lanes(size), self.own(size)
            self.after.append(f"tl.store({pointer} + b * {size} + {j}, state{i}, mask=inside & ok{size}{own})")
        meeting = self.form.meeting
        if meeting:
            self.after.append("tl.store(failed, 1, mask=left <= 0)")
        head = ["group = earlier + tl.program_id(0)", "part = tl.program_id(1)", "first = part == 0", *self.sequences()]
        head += ["rounds = 0", "left = patience", "lost = 0.0"] if meeting else []
        following = [*self.place_of("_next"), *self.upcoming]
        i = self.body.index(AHEAD) if AHEAD in self.body else 0
        number = "s_next = T - 1 - tl.cast({}, tl.int32)" if self.back else "s_next = tl.cast({}, tl.int32)"
        step = [f"{name} = {name}_next" for name in ("s", "real", "at", "since", "t", "row")]
        step += [*self.of_step(), *self.current, *self.body[:i], number.format("i + 1"), *following, *self.body[i:]]
        # num_stages: other programs write in the loop what is loaded there, so no load may be moved to an earlier step
        lines = [*head, *self.before, *first, *share, number.format(0), *following]
        lines += ["for i in tl.range(0, T, num_stages=1):", *(f"    {line}" for line in step)]
        return function(self.name, given(plan, self.back), [*lines, *self.after])
