"""The lines of a kernel: its names, its memory, and where values are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...schedule import Place, Run, Slot
from .form import Form
from .layout import Layout

__all__ = ["AHEAD", "Lines"]

AHEAD = "# the next step's loads"


class Lines:
    """Lines before the first step, of a step, and behind the last; what writes slots stands on it.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.

    Attributes:
        env: what a step has in registers, by its place.
        on_tape: columns whose value in registers is also on the tape.
        dirty: what was written for other programs, and not met since; arrived: they were told that it is there.
        stores: what is stored for no program of this kernel, when others no longer wait for this one.
        replacing: the same of vectors that every program has whole: where the first stores, others may still be to read
            what the tape had there for this step. They have when they next arrive, so it stands behind a wait.
        met: programs waited for one another in this step.
        rooms: elements that a sequence has in the exchange, and in that of sums over a vector.
    """

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        plan = layout.plan
        self.layout, self.form, self.name, self.plan = layout, form, name, plan
        self.slots: Sequence[Slot] = {"infer": plan.infer, "train": plan.forward, "backward": plan.backward}[name]
        self.back = name == "backward"
        self.before: list[str] = []
        self.body: list[str] = []
        self.after: list[str] = []
        self.env: dict[Place, str] = {}
        self.on_tape: set[Place] = set()
        self.dirty: set[Place] = set()
        self.arrived = False
        self.stores: list[str] = []
        self.replacing: list[str] = []
        self.met = False
        self.known: set[str] = set()  # names defined before the first step
        self.in_step: set[str] = set()  # names defined once in a step
        self.regions: dict[Place, tuple[str, int, int]] = {}  # where a place is exchanged: in which room, from where on
        self.rooms = {"exchange": 0, "totals": 0}
        self.count = 0
        self.late = ""  # behind the names of where the next step is, while what it loads is written down
        self.upcoming: list[str] = []  # what the next step loads
        self.current: list[str] = []  # what this step takes of what was loaded for it
        self.shared = self._shared()

    @property
    def training(self) -> bool:
        """Whether there is a whole tape."""
        return self.name != "infer"

    def _shared(self) -> set[Place]:
        """What products read of other programs: it goes through memory."""
        places: set[Place] = set()
        for slot in self.slots:
            if isinstance(slot, Run):
                read = [Place("col", str(e.column)) for e in slot.entries] if slot.transposed else [slot.source]
                places |= {place for place in read if not self.form.in_registers(self.layout.place(place))}
        return places

    def changed(self, place: Place) -> None:
        """A place has a new value in registers."""
        self.on_tape.discard(place)

    def known_elsewhere(self, place: Place) -> bool:
        """Whether a place has a value of this step that is not in registers."""
        return False

    # Names

    def fresh(self, stem: str) -> str:
        """A name of its own."""
        self.count += 1
        return f"{stem}_{self.count}"

    def define(self, stem: str, text: str) -> str:
        """A value of the step."""
        name = self.fresh(stem)
        self.body.append(f"{name} = {text}")
        return name

    def once(self, name: str, text: str) -> str:
        """A value computed before the first step."""
        if name not in self.known:
            self.known.add(name)
            self.before.append(f"{name} = {text}")
        return name

    def lanes(self, size: int) -> str:
        """The numbers of a program's elements of a vector of this size, [1, lanes]; `ok` beside it says which exist."""
        count = self.form.lanes(size)
        first = f"part * {count} + " if self.form.sliced(size) else ""
        self.once(f"j{size}", f"({first}tl.arange(0, {count}))[None, :]")
        self.once(f"ok{size}", f"j{size} < {size}")
        return f"j{size}"

    def zeros(self, size: int) -> str:
        """A program's part of a vector of zeros."""
        return self.once(f"zeros{size}", f"tl.zeros([{self.form.batch}, {self.form.lanes(size)}], tl.float32)")

    def own(self, size: int) -> str:
        """Of what all programs of a group have, the first one writes."""
        return "" if self.form.slices == 1 or self.form.sliced(size) else " & first"

    def started(self, i: int) -> str:
        """State i before the first step."""
        size = self.layout.state_sizes[i]
        j = self.lanes(size)
        load = f"tl.load(start{i} + b * {size} + {j}, mask=inside & ok{size}, other=0.0)"
        return self.once(f"started{i}", f"{load} if HAS_START else {self.zeros(size)}")

    def ended(self, i: int) -> str:
        """The gradient of state i behind the last step."""
        size = self.layout.state_sizes[i]
        return f"tl.load(end{i} + b * {size} + {self.lanes(size)}, mask=inside & ok{size}, other=0.0)"

    # Memory

    def ahead(self, loaded: Callable[[], str]) -> str:
        """What is loaded for a step while the one before it is on its way: nothing that the kernel writes."""
        name, now = self.fresh("ahead"), self.fresh("loaded")
        self.body, body = self.upcoming, self.body
        self.late = "_next"
        self.body.append(f"{name} = {loaded()}")
        self.late, self.body = "", body
        self.current.append(f"{now} = {name}")
        return now

    def begin_ahead(self) -> None:
        """Here, if nowhere before, the next step's loads begin: what this step waits for is on its way."""
        if AHEAD not in self.body:
            self.body.append(AHEAD)

    def row(self, back: int) -> tuple[str, str]:
        """The numbers of a program's rows, [batch, 1], `back` steps before, and which are there."""
        late = self.late
        if not back:
            return f"row{late}", f"at{late}"
        row, at, t = f"row_{back}{late}", f"at_{back}{late}", f"t_{back}{late}"
        if row not in self.in_step:
            self.in_step.add(row)
            packed = f"tl.load(begin + {t}, mask=({t} >= 0) & ({t} < T), other=0)"
            self.body += [
                f"{t} = t{late} + {back} if REVERSE else t{late} - {back}",
                f"{at} = at{late} & (since{late} >= {back})",
                f"{row} = ({packed} if PACKED else {t}.to(tl.int64) * B) + b",
            ]
        return row, at

    def load(self, pointer: str, width: int, offset: int, size: int, back: int = 0) -> str:
        """A program's elements of rows that are `width` long, as float32."""
        row, running = self.row(back)
        j = self.lanes(size)
        text = f"tl.load({pointer} + {row} * {width} + {offset} + {j}, mask={running} & ok{size}, other=0.0)"
        return f"{text}.to(tl.float32)"

    def store(self, pointer: str, width: int, offset: int, size: int, value: str, rows: str = "at") -> None:
        """Write a program's elements of rows that are `width` long."""
        j = self.lanes(size)
        mask = f"{rows} & ok{size}{self.own(size)}"
        line = f"tl.store({pointer} + row * {width} + {offset} + {j}, {value}, mask={mask})"
        if self.form.meeting:
            (self.stores if self.form.sliced(size) else self.replacing).append(line)
        else:
            self.body.append(line)

    # Values at places

    def value(self, place: Place) -> str:
        """The value at a place, as this step has it; it is loaded where it is not in registers."""
        if place in self.env:
            return self.env[place]
        if place.kind == "size":
            return repr(float(self.layout.size[place.name]))
        if place.kind == "vector":
            size = self.layout.place(place)
            i, j = self.layout.vectors[place.name], self.lanes(size)
            return self.once(f"vector{i}", f"tl.load(v{i} + {j}, mask=ok{size}, other=0.0)")
        if place.kind == "scalar":
            i = self.layout.scalars[place.name]
            return self.once(f"scalar{i}", f"tl.load(c{i})")
        self.env[place] = self.define(place.kind, self._loaded(place))
        return self.env[place]

    def _loaded(self, place: Place) -> str:
        layout, size, name = self.layout, self.layout.place(place), place.name
        if place.kind == "x":
            return self.ahead(lambda: self.load("x", size, 0, size))
        if place.kind == "col":
            return self._column(place, size)
        if place.kind == "mask":
            i, j = layout.masks[name], self.lanes(size)
            return self.ahead(
                lambda: (
                    f"tl.load(k{i} + tl.where(k{i}_steps > 1, {self.row(0)[0]}, b.to(tl.int64)) * {size} + {j}, "
                    f"mask={self.row(0)[1]} & ok{size}, other=0.0)"
                )
            )
        if place.kind in ("prev", "next"):
            return self.ahead(lambda: self._history(name, 1 if place.kind == "prev" else 0))
        if place.kind == "step":
            j = self.lanes(size)
            return f"tl.load(steps + {layout.steps[place.column]} + {j}, mask=ok{size} & real, other=0.0)"
        raise ValueError(f"nothing stands at {place}")

    def _column(self, place: Place, size: int) -> str:
        layout = self.layout
        bias = next((entry.bias for entry in self.plan.fills if entry.column == place.column), None)
        if bias is not None and not self.back:
            return " + ".join([self.zeros(size), *(self.value(Place("vector", name)) for name in bias)])
        if self.name == "infer":
            return self.ahead(lambda: self.load("tape", layout.hoisted_row, layout.hoisted[place.column], size))
        if self.name == "train":
            self.on_tape.add(place)
        return self.ahead(lambda: self.load("tape", layout.row, layout.columns[place.column], size))

    def _history(self, state: str, back: int) -> str:
        """A state's value behind the step `back` steps before this one; before its first step, what it started from."""
        i = self.layout.states[state]
        place, size = self.plan.history[i], self.layout.state_sizes[i]
        assert place is not None, f"backward does not keep {state}"
        if place.kind == "prev":
            found = self.define("old", self._history(place.name, back + 1))
        elif place.kind == "col":
            found = self.load("tape", self.layout.row, self.layout.columns[place.column], size, back)
        else:
            found = self.load(place.kind, size, 0, size, back)
        return f"tl.where(since{self.late} == {back - 1}, {self.started(i)}, {found})" if back else found

    # What programs have for one another

    def exchange(self, place: Place, size: int, parity: str = "(s & 1)", room: str = "exchange") -> str:
        """Where parts of a vector are left; of two places that of this step."""
        if place not in self.regions:
            self.regions[place] = room, self.rooms[room], size
            self.rooms[room] += 2 * size
        room, begin, size = self.regions[place]
        return f"{room} + ({begin} + {parity} * {size}) * B"

    def share(self, place: Place, value: str, parity: str = "(s & 1)") -> None:
        """Leave a part of a vector for the others."""
        size = self.layout.place(place)
        where = f"{self.exchange(place, size, parity)} + b * {size} + {self.lanes(size)}"
        self.body.append(f"tl.store({where}, {value}, mask=inside & ok{size}{self.own(size)})")
        self.dirty.add(place)
        self.arrived = False

    def arrive(self) -> None:
        """Say that all that was shared is there; what nobody waits for is stored behind it."""
        self.body += [f"rounds += {self.form.slices}", "f.arrive(counters + group)", *self.stores]
        self.stores.clear()
        self.arrived = True

    def meet(self) -> None:
        """Wait for what was shared; what a product reads is NaN where one waited in vain."""
        if not self.arrived:
            self.arrive()
        never = "tl.where(left > 0, 0.0, float('nan'))"
        self.body += ["left = f.wait(counters + group, rounds, left)", f"lost = {never}", *self.replacing]
        self.replacing.clear()
        self.met = True
        self.dirty.clear()
