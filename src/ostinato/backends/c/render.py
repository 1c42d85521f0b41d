"""A Plan as one C file: tables and pointwise loops rendered here, the rest read from ``source/``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from ...schedule import TAPE_NOTES, BatchMean, Loop, Place, Plan, Run, Slot, StepLoop
from .columns import over_columns
from .loops import LoopText, Tables, over_rows, over_the_step

SOURCE = Path(__file__).parent / "source"

_PLACES = {"tape": "TAPE", "x": "X", "prev": "STATE", "col": "COLUMN", "temp": "TEMP", "grad_prev": "GRAD_STATE"}


@lru_cache(maxsize=64)
def _text_of(name: str) -> str:
    return (SOURCE / name).read_text()


def render(plan: Plan) -> str:
    """The C source of a Plan; equal plans give equal text."""
    return _Renderer(plan).source()


def products() -> str:
    """The C source of what every kernel is linked with."""
    return "\n".join(_text_of(name) for name in ("vector.h", "half.h", "products.h", "gemm.c", "outer.c"))


class _Renderer:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tables = Tables(plan)
        self.runs: list[Run] = []
        self.by_columns = _by_columns(plan)

    def source(self) -> str:
        plan = self.plan
        loops: list[str] = []
        bounds: list[int] = []
        self.runs += plan.hoist
        bounds.append(len(self.runs))
        infer = self._slots("infer", plan.infer, False, loops)
        forward = self._slots("forward", plan.forward, False, loops)
        bounds.append(len(self.runs))
        backward = self._slots("backward", plan.backward, True, loops)
        bounds.append(len(self.runs))
        self.runs += plan.deferred
        parts = [
            f"/* {plan.name}: rendered by Ostinato */",
            self._sizes(bounds),
            _text_of("vector.h"),
            _text_of("math.h"),
            _text_of("half.h"),
            _text_of("products.h"),
            self._tables(),
            _text_of("job.h"),
            *loops,
            "static void step_run(const Job *g, Part *p, int index, long t, long n);",
            *(
                self._steps(name, calls)
                for name, calls in (("infer", infer), ("forward", forward), ("backward", backward))
            ),
            _text_of("drive.h").replace('#include "backward.h"', _text_of("backward.h")),
        ]
        return "\n".join(parts)

    def _sizes(self, bounds: Sequence[int]) -> str:
        plan = self.plan
        outer = len(plan.weight_grads)
        loops = [slot for slot in (*plan.infer, *plan.forward) if isinstance(slot, Loop)]
        temps = [s.place.column for slot in loops for s in slot.stores if s.place.kind == "temp"]
        counts = {
            "N_SYMBOLS": len(self.tables.symbols),
            "N_STATES": len(self.tables.states),
            "N_MATRICES": len(self.tables.matrices),
            "N_VECTORS": len(self.tables.vectors),
            "N_SCALARS": len(self.tables.scalars),
            "N_COLUMNS": len(plan.columns),
            "N_TEMPS": len(plan.temps),
            "N_STEPS": len(plan.steps),
            "KEPT_STEPS": plan.kept_steps,
            "FORWARD_TEMPS": 1 + max(temps, default=-1),
            "N_MASKS": len(plan.masks),
            "N_STATISTICS": len(plan.statistics),
            "ALWAYS_TOGETHER": int(bool(plan.steps)),
            "BY_COLUMNS": int(self.by_columns),
            "FORWARD_IN_PLACE": int(_in_place(plan.forward) and _in_place(plan.infer)),
            "BACKWARD_IN_PLACE": int(_in_place(plan.backward)),
            "N_RUNS": len(self.runs),
            "N_OUTER": outer,
            "N_BIASES": len(self._biases()),
            "N_BIAS_GRADS": len(plan.bias_grads),
            "N_FILLS": len(plan.fills),
            "HOIST_FROM": 0,
            "HOIST_TO": bounds[0],
            "STEP_TO": bounds[1],
            "BACKWARD_FROM": bounds[1],
            "DEFERRED_FROM": bounds[2],
            "DEFERRED_TO": len(self.runs),
            "SIZE_OF_X": self.tables.symbols[plan.input_size],
            "SIZE_OF_OUT": self.tables.symbols[plan.output_size],
            "OUTER_COUNT": 256,  # rows of the tape whose outer products are summed at a time
            "CHUNK_BYTES": 1 << 18,  # of the tape between two hoisted products: a part of the second-level cache
            "PRIVATE_BYTES": 2 << 20,  # of all threads' own sums for the weights' gradients; beyond, they share one
            "TAPE_NOTES": TAPE_NOTES,
        }
        return "\n".join(f"#define {name} {value}" for name, value in counts.items())

    def _biases(self) -> list[tuple[int, int]]:
        entries = [e for run in self.plan.hoist for e in run.entries] + list(self.plan.fills)
        return [(e.column, self.tables.vectors[v]) for e in entries for v in e.bias]

    def _tables(self) -> str:
        plan, at = self.plan, self.tables
        entries = [(e.matrix, e.column) for run in self.runs for e in run.entries]
        first, rows = 0, []
        for run in self.runs:
            rows.append(
                [
                    *self._end(run.source),
                    *self._end(run.target),
                    first,
                    len(run.entries),
                    int(run.accumulate),
                    int(run.transposed),
                ]
            )
            first += len(run.entries)
        history = [at.history(place) for place in plan.history]
        outer = sorted(
            [[*self._end(w.operand), at.matrices[w.matrix], w.column] for w in plan.weight_grads], key=lambda r: r[:2]
        )
        return "\n".join(
            [
                _table("int", "SIZE_OF_COLUMN", [at.symbols[c.size] for c in plan.columns]),
                _table("int", "SIZE_OF_STATE", [at.symbols[s] for _, s in plan.states]),
                _table("int", "SIZE_OF_VECTOR", [at.symbols[s] for _, s in plan.vectors]),
                _table("int", "SIZE_OF_TEMP", [at.symbols[s] for s in plan.temps]),
                _table("int", "SIZE_OF_STEP", [at.symbols[s] for s in plan.steps]),
                _table("int", "HISTORY", history),
                _table("int", "FILLS", [e.column for e in plan.fills]),
                _table("int", "MATRIX_SIZE", [[at.symbols[r], at.symbols[c]] for _, r, c in plan.matrices], "[2]"),
                _table("int", "BIASES", [list(b) for b in self._biases()], "[2]"),
                _table("int", "BIAS_GRADS", [[at.vectors[v], c] for v, c in plan.bias_grads], "[2]"),
                _text_of("types.h"),
                _table("Run", "RUNS", rows),
                _table("Entry", "ENTRIES", [[at.matrices[m], c] for m, c in entries]),
                _table("Outer", "OUTER", outer),
            ]
        )

    def _end(self, place: Place) -> list[str | int]:
        kind = "AT_GRAD_X" if place.kind == "grad_x" else f"AT_{_PLACES[place.kind]}"
        if place.kind in ("prev", "grad_prev"):
            return [kind, self.tables.states[place.name]]
        return [kind, int(place.name) if place.name else 0]

    def _slots(self, name: str, slots: Iterable[Slot], back: bool, loops: list[str]) -> list[str]:
        calls: list[str] = []
        meets = _Meets(self.by_columns)

        def call(text: str, *slots: Slot) -> None:
            if meets.before(*slots):
                calls.append("meet(g, p);")
            calls.append(text)

        put_out = {} if back else {number: k for k, number in enumerate(self.plan.statistics)}
        section = list(slots)

        def kind(slot: Slot) -> object:
            return isinstance(slot, Run) if self.by_columns else type(slot)

        for _, neighbours in groupby(section, kind):
            group = list(neighbours)
            loop = f"{name}_{len(loops)}"
            same = [slot for slot in group if isinstance(slot, Loop)]
            if self.by_columns and not isinstance(group[0], Run):
                loops.append(over_columns(loop, self.tables, group, section, put_out, back))
                call(f"{loop}(g, p, t, n);", *group)
                continue
            if same:  # neighbouring loops go through the rows together: what one writes is still at hand
                loops.append(over_rows(loop, [LoopText(self.tables, slot, back) for slot in same]))
                call(f"{loop}(g, p, t, n);", *same)
            for slot in group:
                if isinstance(slot, Run):
                    if slot not in self.runs:
                        self.runs.append(slot)
                    call(f"step_run(g, p, {self.runs.index(slot)}, t, n);", slot)
                elif isinstance(slot, BatchMean):
                    size = f"g->size[{self.tables.symbols[slot.size]}]"
                    number = put_out.get(slot.target.column, -1)
                    statistic = f"g->statistic[{number}] + t * {size}" if number >= 0 else "0"
                    place = f"{self._base(slot.source)}, step_vector(g, p, t, {slot.target.name}), {statistic}"
                    call(f"batch_mean(p, n, {size}, {place});", slot)
                elif isinstance(slot, StepLoop):
                    loop = f"{name}_{len(loops)}"
                    loops.append(over_the_step(loop, LoopText(self.tables, slot, back)))
                    call(f"{loop}(g, p, t);", slot)
        return calls

    def _base(self, place: Place) -> str:
        """The first row of a place, and how far rows lie apart."""
        if place.kind == "col":
            return f"tape_row(g, p, t, 0) + g->column[{place.name}], g->row_size"
        return f"p->temp[{place.name}], row_of(g->size[SIZE_OF_TEMP[{place.name}]])"

    def _steps(self, name: str, calls: Sequence[str]) -> str:
        body = "\n".join(f"    {call}" for call in calls)
        return f"static void slots_{name}(Job *g, Part *p, long t, long n) {{\n{body}\n}}"


def _by_columns(plan: Plan) -> bool:
    """True if a member can have the same columns of all pointwise work and of all means over the batch."""
    work = [slot for slots in (plan.infer, plan.forward, plan.backward) for slot in slots if not isinstance(slot, Run)]
    totals = any(s.total for slot in work if isinstance(slot, Loop) for s in slot.stores)
    return bool(plan.steps) and len({slot.size for slot in work}) == 1 and not totals


def _in_place(slots: Sequence[Slot]) -> bool:
    """True if a state can be overwritten as it is computed: nothing but loops, and none behind reads the old value."""
    written: set[str] = set()
    for slot in slots:
        if not isinstance(slot, Loop):
            return False
        if any(place.kind in ("prev", "grad_next") and place.name in written for _, place in slot.loads):
            return False
        written |= {s.place.name for s in slot.stores if s.place.kind in ("next", "grad_prev")}
    return True


class _Meets:
    """Where threads that work on one part wait for one another: before what reads, or overwrites, others' work."""

    def __init__(self, by_columns: bool) -> None:
        self.by_columns = by_columns
        self.last: Slot | None = None
        self.written: set[Place] = set()  # by others, since they last met
        self.products = False  # since then

    def before(self, *slots: Slot) -> bool:
        """Whether they meet before these neighbours, which are next."""
        waits = self.last is None or any(self._waits(slot, self.last) for slot in slots)
        if waits:
            self.written.clear()
            self.products = False
        for slot in slots:
            if isinstance(slot, Run):
                self.written |= {slot.target, *(Place("col", str(e.column)) for e in slot.entries)}
                self.products = True
            elif isinstance(slot, Loop) and not self.by_columns:
                self.written |= {s.place for s in slot.stores}
        self.last = slots[-1]
        return waits

    def _waits(self, slot: Slot, last: Slot) -> bool:
        if isinstance(slot, Run):  # of two into one target a member has the same columns
            same = isinstance(last, Run) and last.transposed and slot.transposed and last.target == slot.target
            return not same
        if isinstance(slot, StepLoop):  # a member has the columns of it that it has of the means
            return False
        if isinstance(slot, BatchMean):
            return slot.source in self.written
        return self.products or not self.by_columns


def _table(kind: str, name: str, rows: Sequence[object], inner: str = "") -> str:
    """A constant table; never empty, since C has no empty arrays."""

    def text(row: object) -> str:
        return "{" + ", ".join(map(str, row)) + "}" if isinstance(row, list) else str(row)

    filled = [text(r) for r in rows] or ["{0}" if kind != "int" or inner else "0"]
    return f"static const {kind} {name}[]{inner} = {{{', '.join(filled)}}};"
