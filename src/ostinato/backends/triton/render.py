"""A Plan as the text of a Python module with Triton kernels.

`render` gives three functions: `infer`, `train` and `backward`. Each goes over all steps of a sequence. A program has
`Form.batch` sequences and of every vector its part of the units; what a product reads of other programs' parts goes
through memory, and before it is read the programs of a group meet. Rows of the tape, of x and of the output are numbered
step by step, or as a PackedSequence has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import BatchMean, Loop, Place, Plan, Run, Slot, Store
from .expressions import expression
from .form import Form, power_of_two
from .layout import Layout

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


class _Kernel:
    """One kernel: lines before the first step, of a step, and behind the last."""

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        plan = layout.plan
        self.layout, self.form, self.name, self.plan = layout, form, name, plan
        self.slots: Sequence[Slot] = {"infer": plan.infer, "train": plan.forward, "backward": plan.backward}[name]
        self.back = name == "backward"
        self.before: list[str] = []
        self.body: list[str] = []
        self.after: list[str] = []
        self.env: dict[Place, str] = {}  # what a step has in registers
        self.on_tape: set[Place] = set()  # columns whose value in registers is also on the tape
        self.dirty: set[Place] = set()  # written for other programs, and not met since
        self.known: set[str] = set()  # names defined before the first step
        self.in_step: set[str] = set()  # names defined once in a step
        self.regions: dict[Place, tuple[int, int]] = {}  # of the exchange: where a place begins, its size
        self.room = 0
        self.count = 0
        self.shared = self._shared()

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

    def _shared(self) -> set[Place]:
        """What products read of other programs, or in pieces: it goes through memory."""
        places: set[Place] = set()
        for slot in self.slots:
            if isinstance(slot, Run):
                read = [Place("col", str(e.column)) for e in slot.entries] if slot.transposed else [slot.source]
                places |= {place for place in read if not self.form.in_registers(self.layout.place(place))}
        return places

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

    def row(self, back: int) -> tuple[str, str]:
        """The numbers of a program's rows, [batch, 1], `back` steps before, and which are there."""
        if not back:
            return "row", "at"
        if f"row_{back}" not in self.in_step:
            self.in_step.add(f"row_{back}")
            inside = f"(t_{back} >= 0) & (t_{back} < T)"
            self.body += [
                f"t_{back} = t + {back} if REVERSE else t - {back}",
                f"at_{back} = at & (since >= {back})",
                f"row_{back} = (tl.load(begin + t_{back}, mask={inside}, other=0) if PACKED else t_{back} * B)"
                ".to(tl.int64) + b",
            ]
        return f"row_{back}", f"at_{back}"

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
        self.body.append(f"tl.store({pointer} + row * {width} + {offset} + {j}, {value}, mask={mask})")

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
            return self.load("x", size, 0, size)
        if place.kind == "col":
            return self._column(place, size)
        if place.kind == "mask":
            i, j = layout.masks[name], self.lanes(size)
            row = f"tl.where(k{i}_steps > 1, row, b.to(tl.int64))"
            return f"tl.load(k{i} + {row} * {size} + {j}, mask=at & ok{size}, other=0.0)"
        if place.kind in ("prev", "next"):
            return self._history(name, 1 if place.kind == "prev" else 0)
        if place.kind == "step":
            j = self.lanes(size)
            return f"tl.load(steps + {layout.steps[place.column]} + {j}, mask=ok{size}, other=0.0)"
        raise ValueError(f"nothing stands at {place}")

    def _column(self, place: Place, size: int) -> str:
        if self.back:
            return self.load("tape", self.layout.row, self.layout.columns[place.column], size)
        bias = next((entry.bias for entry in self.plan.fills if entry.column == place.column), None)
        if bias is not None:
            return " + ".join([self.zeros(size), *(self.value(Place("vector", name)) for name in bias)])
        if self.name == "infer":
            return self.load("tape", self.layout.hoisted_row, self.layout.hoisted[place.column], size)
        self.on_tape.add(place)
        return self.load("tape", self.layout.row, self.layout.columns[place.column], size)

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
        return f"tl.where(since == {back - 1}, {self.started(i)}, {found})" if back else found

    # Slots

    def slot(self, slot: Slot) -> None:
        """Write down one slot."""
        if isinstance(slot, Run):
            self._transposed(slot) if slot.transposed else self._product(slot)
        elif isinstance(slot, BatchMean):
            source = self.value(slot.source)
            total = f"tl.sum(tl.where(at, {source}, 0.0), axis=0)[None, :]"
            self._keep_step(slot.target, self.define("mean", f"{total} / running"))
        else:
            self._loop(slot.stores, dict(slot.loads), self.layout.of(slot.size))

    def _product(self, run: Run) -> None:
        """Columns += matrix @ source."""
        terms = [(Place("col", str(entry.column)), entry.matrix) for entry in run.entries]
        self._multiply(run.source, terms, False)

    def _transposed(self, run: Run) -> None:
        """Target (+)= the sum of matrixᵀ @ column."""
        if not run.accumulate:
            self.env[run.target] = self.zeros(self.layout.place(run.target))
        for entry in run.entries:
            self._multiply(Place("col", str(entry.column)), [(run.target, entry.matrix)], True)

    def _multiply(self, source: Place, terms: Sequence[tuple[Place, str]], transposed: bool) -> None:
        """Each target += matrix @ source, or matrixᵀ @ source."""
        size = self.layout.place(source)
        if self.form.in_registers(size):
            value = self.value(source)
            if self.form.lanes(size) > size:
                self.lanes(size)
                value = self.define("source", f"tl.where(ok{size}, {value}, 0.0)")
            for target, matrix in terms:
                self.env[target] = self.define("sum", self._added(target, value, self._weight(matrix, 0, transposed), size))
        else:
            if source in self.dirty:
                self._meet()
            if self.form.resident:
                for k in range(self.form.pieces(size)):
                    value = self.define("source", self._piece(source, size, self._depth(size, k)))
                    for target, matrix in terms:
                        text = self._added(target, value, self._weight(matrix, k, transposed), size)
                        self.env[target] = self.define("sum", text)
            else:
                self._in_pieces(source, terms, transposed)
        for target, _ in terms:
            self.on_tape.discard(target)

    def _in_pieces(self, source: Place, terms: Sequence[tuple[Place, str]], transposed: bool) -> None:
        """The same, weights being read from memory piece by piece."""
        size = self.layout.place(source)
        depth = self._depth(size, 0)
        for target, _ in terms:
            self.env[target] = self.define("sum", f"{self.value(target)} + 0.0")
        tiles = [(target, self._tile(matrix, transposed, "k")) for target, matrix in terms]
        lines = [f"k = {depth} + q * {self.form.piece(size)}", f"piece = {self._piece(source, size, 'k')}"]
        for target, tile in tiles:
            lines.append(f"{self.env[target]} = {self._added(target, 'piece', tile, size)}")
        self.body += [f"for q in range(0, {self.form.pieces(size)}):", *(f"    {line}" for line in lines)]

    def _added(self, target: Place, source: str, weight: str, depth: int) -> str:
        """A sum of products, and a product more."""
        before = self.value(target)
        if depth == 1:
            return f"{before} + {source} * {weight}"
        if self.form.lanes(self.layout.place(target)) == 1:
            return f"{before} + tl.sum({source} * {weight}, axis=1, keep_dims=True)"
        if self.form.narrow:
            return f"tl.dot({source}.to(tl.bfloat16), {weight}.to(tl.bfloat16), {before})"
        return f'tl.dot({source}, {weight}, {before}, input_precision="ieee")'

    def _piece(self, place: Place, size: int, k: str) -> str:
        """A piece of a vector that a product reads from memory, [batch, piece]."""
        where = f"{self._exchange(place, size)} + b * {size} + {k}"
        return f'tl.load({where}, mask=inside & ({k} < {size}), other=0.0, cache_modifier=".cg")'

    def _depth(self, size: int, piece: int) -> str:
        """The numbers of the elements of a piece, [1, piece]."""
        length = self.form.piece(size)
        return self.once(f"d{size}_{piece}", f"({piece * length} + tl.arange(0, {length}))[None, :]")

    def _weight(self, matrix: str, piece: int, transposed: bool) -> str:
        """A tile of a matrix, in registers from the first step on where the form says so."""
        i = self.layout.matrices[matrix]
        depth = self.layout.of(self.plan.matrices[i][1 if transposed else 2])
        text = self._tile(matrix, transposed, self._depth(depth, piece))
        name = f"w{i}{'t' if transposed else ''}_{piece}"
        if self.form.resident:
            return self.once(name, text)
        if name not in self.in_step:
            self.in_step.add(name)
            self.body.append(f"{name} = {text}")
        return name

    def _tile(self, matrix: str, transposed: bool, k: str) -> str:
        """What a piece of a source, its elements numbered k, is multiplied by: [piece, lanes]; [1, piece] for a sum."""
        i = self.layout.matrices[matrix]
        rows, columns = (self.layout.of(size) for size in self.plan.matrices[i][1:])
        depth, width = (rows, columns) if transposed else (columns, rows)
        j = self.lanes(width)
        if depth == 1:
            k, mask = "0", f"ok{width}"
        else:
            k = k if self.form.lanes(width) == 1 else f"tl.trans({k})"
            mask = f"ok{width} & ({k} < {depth})"
        address = f"{k} * ld{i} + {j}" if transposed else f"{j} * ld{i} + {k}"
        return f"tl.load(m{i} + {address}, mask={mask}, other=0.0)"

    # What programs have for one another

    def _exchange(self, place: Place, size: int, parity: str = "(s & 1)") -> str:
        """Where parts of a vector are left; of two places that of this step."""
        if place not in self.regions:
            self.regions[place] = self.room, size
            self.room += 2 * size
        begin, size = self.regions[place]
        return f"exchange + ({begin} + {parity} * {size}) * B"

    def share(self, place: Place, value: str, parity: str = "(s & 1)") -> None:
        """Leave a part of a vector for the others."""
        size = self.layout.place(place)
        where = f"{self._exchange(place, size, parity)} + b * {size} + {self.lanes(size)}"
        self.body.append(f"tl.store({where}, {value}, mask=inside & ok{size}{self.own(size)})")
        self.dirty.add(place)

    def _meet(self) -> None:
        if self.form.slices == 1:
            self.body.append("tl.debug_barrier()")
        else:
            self.body += [f"rounds += {self.form.slices}", "left = f.meet(counters + group, rounds, left)"]
        self.dirty.clear()

    # Pointwise work

    def _loop(self, stores: Sequence[Store], places: dict[int, Place], width: int) -> None:
        """Pointwise work over vectors of one size; every load comes before the first store."""
        nodes = self.plan.nodes
        known: dict[int, str] = {}
        stack = [s.node for s in reversed(stores)]
        while stack:
            i = stack[-1]
            waiting = [] if i in places else [a for a in nodes[i].args if a not in known]
            if i in known or waiting:
                stack.extend(reversed(waiting)) if i not in known else stack.pop()
                continue
            stack.pop()
            if i in places:
                known[i] = self._read(i, places[i])
                continue
            text = expression(nodes[i], [known[a] for a in nodes[i].args])
            known[i] = text if nodes[i].op in ("const", "broadcast") else self.define("n", text)
        sums: dict[tuple[Place, bool], str] = {}
        for s in stores:  # what is added to one place is added up before
            key = s.place, s.total
            sums[key] = f"{sums[key]} + {known[s.node]}" if key in sums else known[s.node]
        added = {s.place for s in stores if s.add}
        for (place, total), value in sums.items():
            if total:
                self._total(place, value, width)
            elif place.kind in ("grad_vector", "grad_scalar"):
                self._gather(place, value, width)
            else:
                self._write(place, value, place in added, width)

    def _read(self, node: int, place: Place) -> str:
        if place.kind == "grad_out" and place not in self.env:
            shape = self.plan.nodes[node].shape
            size = self.layout.of(shape[0]) if shape else 1
            text = self.load("grad_out", self.layout.output_size, self.layout.of(place.name), size)
            self.env[place] = self.define("grad_out", text)
        return self.value(place)

    def _write(self, place: Place, value: str, add: bool, width: int) -> None:
        if place.kind == "out":
            full = self._whole(value, width)
            self.store("out", self.layout.output_size, self.layout.of(place.name), width, full)
            return
        if place.kind == "step":
            zeros = f"tl.zeros([1, {self.form.lanes(width)}], tl.float32)"
            self._keep_step(place, self.define("once", f"{value} + {zeros}"))
            return
        if add and place in self.env:
            value = f"{self.env[place]} + {value}"
        name = self.env[place] = self._whole(value, width)
        if place.kind != "col":
            return
        if place in self.shared:
            self.share(place, f"tl.where(at, {name}, 0.0)" if self.back else name)
        if self.training:
            value = f"tl.where(at, {name}, 0.0)" if self.back else name  # rows past an end add nothing to sums
            rows = "there" if self.back else "at"
            self.store("tape", self.layout.row, self.layout.columns[place.column], width, value, rows)
            self.on_tape.add(place)

    @property
    def training(self) -> bool:
        """Whether there is a whole tape."""
        return self.name != "infer"

    def _whole(self, value: str, size: int) -> str:
        """A value with all its rows and lanes: it may be a number, or a vector of the step."""
        return self.define("v", f"{value} + {self.zeros(size)}")

    def _keep_step(self, target: Place, name: str) -> None:
        """A vector of the step: in registers, and where it is asked for later."""
        self.env[target] = name
        number, size = target.column, self.layout.place(target)
        j = self.lanes(size)
        if self.name == "train" and number < self.plan.kept_steps:
            self.body.append(f"tl.store(steps + {self.layout.steps[number]} + {j}, {name}, mask=ok{size})")
        if not self.back and number in self.plan.statistics:
            i = self.plan.statistics.index(number)
            self.body.append(f"tl.store(stat{i} + s * {size} + {j}, {name}, mask=ok{size} & (counted > 0))")

    def _total(self, place: Place, value: str, width: int) -> None:
        """A sum over a vector's elements: a vector of one."""
        self.lanes(width)
        full = self._whole(value, width)
        name = self.define("total", f"tl.sum(tl.where(ok{width}, {full}, 0.0), axis=1, keep_dims=True)")
        if self.form.sliced(width):
            name = self._over_slices(place, name)
        self.env[place] = name
        if place.kind == "col" and self.name == "train":
            self.store("tape", self.layout.row, self.layout.columns[place.column], 1, name)
            self.on_tape.add(place)

    def _over_slices(self, place: Place, name: str) -> str:
        """The sum of what the programs of a group have, each of its own part."""
        count = self.form.slices
        where = self._exchange(Place("parts of", str(place)), count)
        self.body.append(f"tl.store({where} + b * {count} + part, {name}, mask=inside)")
        self._meet()
        k = self.once("parts", f"tl.arange(0, {power_of_two(count)})[None, :]")
        load = f'tl.load({where} + b * {count} + {k}, mask=inside & ({k} < {count}), other=0.0, cache_modifier=".cg")'
        return self.define("total", f"tl.sum({load}, axis=1, keep_dims=True)")

    def _gather(self, place: Place, value: str, width: int) -> None:
        """Add to the gradient of a parameter; what a program has is summed and written behind the last step."""
        scalar = place.kind == "grad_scalar"
        i = (self.layout.scalars if scalar else self.layout.vectors)[place.name]
        j, own = self.lanes(width), self.own(width)
        name = f"gathered_{'c' if scalar else 'v'}{i}_{width}"
        if name not in self.known:
            self.once(name, f"tl.zeros([{self.form.batch}, {self.form.lanes(width)}], tl.float32)")
            if scalar:
                total = f"tl.sum(tl.where(ok{width}, {name}, 0.0))"
                self._after_add(f"gc{i} + group * {self.form.slices} + part", total, f"(T > 0){own}")
            else:
                self._after_add(f"gv{i} + group * {width} + {j}", f"tl.sum({name}, axis=0)[None, :]", f"ok{width}{own}")
        self.body.append(f"{name} += tl.where(at, {self._whole(value, width)}, 0.0)")

    def _after_add(self, where: str, value: str, mask: str) -> None:
        self.after.append(f"tl.store({where}, tl.load({where}, mask={mask}, other=0.0) + {value}, mask={mask})")

    # The end of a step

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
