"""A Plan as kernels between products: what a step computes until its next product is one of them.

Products are left to the vendor's library. What a product reads lies in a source, [B, width], columns side by side where
a product takes several; what it gives in sums, [B, width], which later kernels add to what they are sums of. States lie
where they end, and other values that a later kernel of the step reads are kept in a buffer. A kernel finds the
addresses of what it is given, and the number of the step, in a table in memory, so that a CUDA graph of kernels and
products serves every call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...schedule import BatchMean, Place, Plan, Run, Slot
from .form import Form
from .layout import Layout
from .render import HEAD
from .step import Step, arguments, function

__all__ = ["STAGE", "Product", "Staged", "render_stages"]

_COUNTED = ("T", "B")  # in 32 bits
STAGE = ("table", "source", "sums", "kept", "of_step", "ahead")


@dataclass(frozen=True)
class Product:
    """sums = source @ the matrices: below one another and transposed, or (`transposed`) above one another as they are.

    Args:
        source, sums: their numbers.
        matrices: of the Plan, in order.
    """

    source: int
    sums: int
    matrices: tuple[str, ...]
    transposed: bool


@dataclass
class Staged:
    """The kernels and products of a step.

    Attributes:
        text: the module. `note` writes a table; kernels are named `stage_0`, `stage_1` and so on.
        order: the numbers of kernels, and products, in the order in which a step does them.
        sources, sums: the width of each.
        starts: (source, offset, state): where a state lies for products before the first step.
        kept: values that a sequence has in the buffer; steps: those of a step there.
    """

    text: str = ""
    order: list[int | Product] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    starts: list[tuple[int, int, str]] = field(default_factory=list)
    kept: int = 0
    steps: int = 0


def table(plan: Plan, backward: bool) -> list[str]:
    """What stands in a table, in order."""
    return ["clock", *arguments(plan, backward)]


def render_stages(layout: Layout, form: Form, name: str) -> Staged:
    """The kernels and products of a step.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
    """
    return _Stages(layout, form, name).staged()


class _Stages(Step):
    """Writes the kernels of a step, one after the other."""

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        super().__init__(layout, form, name)
        self.made = Staged()
        self.functions: list[str] = []
        self.touched: set[Place] = set()  # whose value is in registers alone
        self.pending: dict[Place, list[tuple[int, int]]] = {}  # sums that are to be added: which, and where in it
        self.bare: set[Place] = set()  # whose value is those sums alone
        self.kept: dict[Place, int] = {}  # where a value of this step lies in the buffer
        self.room: dict[Place, int] = {}  # where it lies when it is kept
        self.found: dict[tuple[Place, ...], int] = {}  # the source of a product that reads these
        for slot in self.slots:
            if isinstance(slot, Run) and self._operands(slot) not in self.found:
                self.found[self._operands(slot)] = len(self.made.sources)
                self.made.sources.append(sum(map(layout.place, self._operands(slot))))

    def staged(self) -> Staged:
        """All of it."""
        for i, slot in enumerate(self.slots):
            if isinstance(slot, Run):
                self._cut(self.slots[i:])
                self._product(slot)
            else:
                self.slot(slot)
        self.close()
        for i, (state, _) in enumerate(self.plan.states):
            self._commit(i, state)
        self._cut(())
        made = self.made
        for read, number in self.found.items():
            offset = 0
            for place in read:
                if place.kind == "prev":
                    made.starts.append((number, offset, place.name))
                offset += self.layout.place(place)
        names = arguments(self.plan, self.back)
        lines = ["tl.store(table, tl.full([], 0, tl.int64))"]
        lines += [f"tl.store(table + {i}, {name}.to(tl.int64))" for i, name in enumerate(names, 1)]
        note = function("note", ["table", *names], lines, constants=())
        made.text = "\n\n\n".join([HEAD, note, *self.functions]) + "\n"
        return made

    # Products

    def _shared(self) -> set[Place]:
        return {place for slot in self.slots if isinstance(slot, Run) for place in self._operands(slot)}

    def _operands(self, run: Run) -> tuple[Place, ...]:
        """What a product reads."""
        return tuple(Place("col", str(e.column)) for e in run.entries) if run.transposed else (run.source,)

    def _product(self, run: Run) -> None:
        """A product; its sums are added where they are asked for."""
        made, number = self.made, len(self.made.sums)
        widths = [self.layout.of(self.plan.matrices[self.layout.matrices[e.matrix]][1]) for e in run.entries]
        source, matrices = self.found[self._operands(run)], tuple(e.matrix for e in run.entries)
        made.order.append(Product(source, number, matrices, run.transposed))
        if run.transposed:
            made.sums.append(self.layout.place(run.target))
            if not run.accumulate:
                self.bare.add(run.target)
            self.pending.setdefault(run.target, []).append((number, 0))
            return
        made.sums.append(sum(widths))
        for i, entry in enumerate(run.entries):
            self.pending.setdefault(Place("col", str(entry.column)), []).append((number, sum(widths[:i])))

    def share(self, place: Place, value: str, parity: str = "") -> None:
        """Leave a vector where products read it."""
        size = self.layout.place(place)
        for read, number in self.found.items():
            offset = sum(self.layout.place(p) for p in read[: read.index(place)]) if place in read else None
            if offset is not None:
                width, j = self.made.sources[number], self.lanes(size)
                before = sum(self.made.sources[:number])
                where = f"source + {before} * B + b * {width} + {offset} + {j}"
                self.body.append(f"tl.store({where}, {value}, mask=at & ok{size}{self.own(size)})")

    # Values from one kernel to the next

    def ahead(self, loaded: Callable[[], str]) -> str:
        return loaded()

    def changed(self, place: Place) -> None:
        super().changed(place)
        self.touched.add(place)
        self.kept.pop(place, None)

    def value(self, place: Place) -> str:
        if place in self.env or place not in self.pending:
            return super().value(place)
        size, terms = self.layout.place(place), list[str]()
        if place not in self.bare:
            terms.append(self.define("before", self._loaded(place)))
        for number, offset in self.pending[place]:
            before, width = sum(self.made.sums[:number]), self.made.sums[number]
            where = f"sums + {before} * B + b * {width} + {offset} + {self.lanes(size)}"
            terms.append(f"tl.load({where}, mask=at & ok{size}, other=0.0)")
        self.env[place] = self.define("sum", " + ".join(terms))
        self.changed(place)
        return self.env[place]

    def known_elsewhere(self, place: Place) -> bool:
        return place in self.kept or place in self.pending

    def _loaded(self, place: Place) -> str:
        size = self.layout.place(place)
        if place in self.kept:
            j = self.lanes(size)
            if place.kind == "step":
                return f"tl.load(of_step + {self.kept[place]} + {j}, mask=ok{size}, other=0.0)"
            return f"tl.load(kept + {self.kept[place]} * B + b * {size} + {j}, mask=at & ok{size}, other=0.0)"
        if place.kind == "grad_next" or (place.kind == "prev" and not self.back):
            return self._state(self.layout.states[place.name])
        return super()._loaded(place)

    def _state(self, i: int) -> str:
        """State i, or its gradient, as the step found it."""
        size = self.layout.state_sizes[i]
        pointer = f"begun{i}" if self.back else f"end{i}"
        return f"tl.load({pointer} + b * {size} + {self.lanes(size)}, mask=inside & ok{size}, other=0.0)"

    def _commit(self, i: int, state: str) -> None:
        """A state is what the step made of it."""
        size = self.layout.state_sizes[i]
        pointer = f"begun{i}" if self.back else f"end{i}"
        value = self.value(self.after_state(state))
        j = self.lanes(size)
        self.body.append(f"tl.store({pointer} + b * {size} + {j}, {value}, mask=at & ok{size}{self.own(size)})")
        if not self.back:
            self.share(Place("prev", state), value)

    def gather(self, place: Place, value: str, width: int) -> None:
        """Add to the gradient of a parameter: in memory, as other steps do."""
        full = self.define("added", f"tl.where(at, {self.whole(value, width)}, 0.0)")
        self.body.append(self.adding(place, full, width))

    # Kernels

    def _cut(self, later: Sequence[Slot]) -> None:
        """End a kernel in front of what is done later, and keep what that reads."""
        needed = self._needed(later) if self.env else set[Place]()
        for place in sorted(self.touched & needed - self.on_tape, key=str):
            self._keep(place)
        for place in self.touched:
            self.pending.pop(place, None)
            self.bare.discard(place)
        if self.body:
            self._end()
        self.env, self.touched, self.on_tape = {}, set(), set()
        self.before, self.body, self.after, self.known, self.in_step = [], [], [], set(), set()

    def _keep(self, place: Place) -> None:
        size = self.layout.place(place)
        j, of_step = self.lanes(size), place.kind == "step"
        if place not in self.room:
            self.room[place] = self.made.steps if of_step else self.made.kept
            if of_step:
                self.made.steps += size
            else:
                self.made.kept += size
        begin = self.kept[place] = self.room[place]
        where = f"of_step + {begin} + {j}" if of_step else f"kept + {begin} * B + b * {size} + {j}"
        mask = f"ok{size}" if of_step else f"at & ok{size}{self.own(size)}"
        self.body.append(f"tl.store({where}, {self.env[place]}, mask={mask})")

    def _needed(self, later: Sequence[Slot]) -> set[Place]:
        """What is read from here on, in this step."""
        found: set[Place] = set()
        for slot in later:
            if isinstance(slot, Run):
                found |= self._targets(slot) if slot.accumulate else set()
            elif isinstance(slot, BatchMean):
                found.add(slot.source)
            else:
                found |= {place for _, place in slot.loads} | {s.place for s in slot.stores if s.add}
        if later:
            found |= {self.after_state(state) for state, _ in self.plan.states} | {Place("grad_x"), *self.bare_sums()}
        return found

    def _targets(self, run: Run) -> set[Place]:
        return {run.target} if run.transposed else {Place("col", str(e.column)) for e in run.entries}

    def _end(self) -> None:
        """The lines so far are a kernel."""
        number = "tl.load(table).to(tl.int32) + ahead"
        lines = [*self.sequences(), f"s = T - 1 - ({number})" if self.back else f"s = {number}"]
        lines += [*self.before, *self.place_of(), *self.of_step(), *self.body]
        used = _words("\n".join(lines))
        head = ["group = tl.program_id(0)", "part = tl.program_id(1)", "first = part == 0"]
        for i, name in enumerate(table(self.plan, self.back)[1:], 1):
            found = f"tl.load(table + {i})"
            if name in _COUNTED:
                found = f"{found}.to(tl.int32)"
            elif name != "rows" and not name.endswith("_steps"):
                kind = "tl.int64" if name in ("lengths", "begin") else "tl.float32"
                found = f"tl.multiple_of({found}.to(tl.pointer_type({kind})), 16)"
            head += [f"{name} = {found}"] if name in used else []
        number = len(self.functions)
        self.made.order.append(number)
        self.functions.append(function(f"stage_{number}", STAGE, [*head, *lines]))


def _words(text: str) -> set[str]:
    """The names in a text."""
    return set(re.findall(r"\w+", text))
