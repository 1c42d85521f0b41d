"""A Plan as one C file: tables and pointwise loops rendered here, the rest read from ``source/``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from ...schedule import TAPE_NOTES, BatchMean, Loop, Place, Plan, Run, Slot, StepLoop, Store

SOURCE = Path(__file__).parent / "source"

_CALLS = ("sigmoid", "tanh", "relu", "exp", "log", "sqrt", "softplus", "abs")
_CALLS += ("sin", "cos", "floor", "maximum", "minimum")
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
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
        self.symbols = {s: i for i, s in enumerate(plan.symbols)}
        self.matrices = {m: i for i, (m, *_) in enumerate(plan.matrices)}
        self.vectors = {v: i for i, (v, _) in enumerate(plan.vectors)}
        self.scalars = {v: i for i, v in enumerate(plan.scalars)}
        self.masks = {m: i for i, (m, _) in enumerate(plan.masks)}
        self.states = {s: i for i, (s, _) in enumerate(plan.states)}
        self.runs: list[Run] = []

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
        means = [slot for slot in plan.forward if isinstance(slot, BatchMean)]
        counts = {
            "N_SYMBOLS": len(self.symbols),
            "N_STATES": len(self.states),
            "N_MATRICES": len(self.matrices),
            "N_VECTORS": len(self.vectors),
            "N_SCALARS": len(self.scalars),
            "N_COLUMNS": len(plan.columns),
            "N_TEMPS": len(plan.temps),
            "N_STEPS": len(plan.steps),
            "KEPT_STEPS": plan.kept_steps,
            "FORWARD_TEMPS": 1 + max((s.source.column for s in means if s.source.kind == "temp"), default=-1),
            "N_MASKS": len(plan.masks),
            "N_STATISTICS": len(plan.statistics),
            "ALWAYS_TOGETHER": int(bool(plan.steps)),
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
            "SIZE_OF_X": self.symbols[plan.input_size],
            "SIZE_OF_OUT": self.symbols[plan.output_size],
            "OUTER_COUNT": 256,
            "CHUNK_BYTES": 1 << 18,
            "PRIVATE_BYTES": 2 << 20,
            "TAPE_NOTES": TAPE_NOTES,
        }
        return "\n".join(f"#define {name} {value}" for name, value in counts.items())

    def _biases(self) -> list[tuple[int, int]]:
        entries = [e for run in self.plan.hoist for e in run.entries] + list(self.plan.fills)
        return [(e.column, self.vectors[v]) for e in entries for v in e.bias]

    def _tables(self) -> str:
        plan = self.plan
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
        history = [-2 if h is None else -1 if h.kind == "out" else h.column for h in plan.history]
        outer = sorted(
            [[*self._end(w.operand), self.matrices[w.matrix], w.column] for w in plan.weight_grads], key=lambda r: r[:2]
        )
        return "\n".join(
            [
                _table("int", "SIZE_OF_COLUMN", [self.symbols[c.size] for c in plan.columns]),
                _table("int", "SIZE_OF_STATE", [self.symbols[s] for _, s in plan.states]),
                _table("int", "SIZE_OF_VECTOR", [self.symbols[s] for _, s in plan.vectors]),
                _table("int", "SIZE_OF_TEMP", [self.symbols[s] for s in plan.temps]),
                _table("int", "SIZE_OF_STEP", [self.symbols[s] for s in plan.steps]),
                _table("int", "HISTORY", history),
                _table("int", "FILLS", [e.column for e in plan.fills]),
                _table("int", "MATRIX_SIZE", [[self.symbols[r], self.symbols[c]] for _, r, c in plan.matrices], "[2]"),
                _table("int", "BIASES", [list(b) for b in self._biases()], "[2]"),
                _table("int", "BIAS_GRADS", [[self.vectors[v], c] for v, c in plan.bias_grads], "[2]"),
                _text_of("types.h"),
                _table("Run", "RUNS", rows),
                _table("Entry", "ENTRIES", [[self.matrices[m], c] for m, c in entries]),
                _table("Outer", "OUTER", outer),
            ]
        )

    def _end(self, place: Place) -> list[str | int]:
        kind = "AT_GRAD_X" if place.kind == "grad_x" else f"AT_{_PLACES[place.kind]}"
        if place.kind in ("prev", "grad_prev"):
            return [kind, self.states[place.name]]
        return [kind, int(place.name) if place.name else 0]

    def _slots(self, name: str, slots: Iterable[Slot], back: bool, loops: list[str]) -> list[str]:
        calls: list[str] = []
        written: set[Place] = set()  # since threads last met

        def call(text: str, places: Iterable[Place], reads: Place | None = None) -> None:
            """Threads meet before it, unless it reads only what lay there when they last met, or its own columns."""
            if not calls or reads is None or reads in written:
                calls.append("meet(g, p);")
                written.clear()
            written.update(places)
            calls.append(text)

        put_out = () if back else self.plan.statistics
        for _, neighbours in groupby(slots, type):
            group = list(neighbours)
            same = [slot for slot in group if isinstance(slot, Loop)]
            if same:  # neighbouring loops go through the rows together: what one writes is still at hand
                loop = f"{name}_{len(loops)}"
                loops.append(_rows(loop, [_LoopText(self, slot, back) for slot in same]))
                call(f"{loop}(g, p, t, n);", [s.place for slot in same for s in slot.stores])
            for slot in group:
                if isinstance(slot, Run):
                    if slot not in self.runs:
                        self.runs.append(slot)
                    places = [slot.target, *(Place("col", str(e.column)) for e in slot.entries)]
                    call(f"step_run(g, p, {self.runs.index(slot)}, t, n);", places)
                elif isinstance(slot, BatchMean):
                    size = f"g->size[{self.symbols[slot.size]}]"
                    number = self.plan.statistics.index(slot.target.column) if slot.target.column in put_out else -1
                    statistic = f"g->statistic[{number}] + t * {size}" if number >= 0 else "0"
                    place = f"{self._base(slot.source)}, step_vector(g, p, t, {slot.target.name}), {statistic}"
                    call(f"batch_mean(p, n, {size}, {place});", (), slot.source)
                elif isinstance(slot, StepLoop):
                    loop = f"{name}_{len(loops)}"
                    loops.append(_once(loop, _LoopText(self, slot, back)))
                    call(f"{loop}(g, p, t);", (), slot.stores[0].place)
        return calls

    def _base(self, place: Place) -> str:
        """The first row of a place, and how far rows lie apart."""
        if place.kind == "col":
            return f"tape_row(g, p, t, 0) + g->column[{place.name}], g->row_size"
        return f"p->temp[{place.name}], row_of(g->size[SIZE_OF_TEMP[{place.name}]])"

    def _steps(self, name: str, calls: Sequence[str]) -> str:
        body = "\n".join(f"    {call}" for call in calls)
        return f"static void slots_{name}(Job *g, Part *p, long t, long n) {{\n{body}\n}}"


def _table(kind: str, name: str, rows: Sequence[object], inner: str = "") -> str:
    """A constant table; never empty, since C has no empty arrays."""

    def text(row: object) -> str:
        return "{" + ", ".join(map(str, row)) + "}" if isinstance(row, list) else str(row)

    filled = [text(r) for r in rows] or ["{0}" if kind != "int" or inner else "0"]
    return f"static const {kind} {name}[]{inner} = {{{', '.join(filled)}}};"


def _rows(name: str, loops: Sequence[_LoopText]) -> str:
    """Pointwise loops over the rows of a step, one after another on each row."""
    body: list[str] = []
    for loop in loops:
        body += ["        {", *loop.lines(), "        }"]
    return "\n".join(
        [
            f"static void {name}(Job *g, Part *p, long t, long n) {{",
            "    for (long k = share(p, n, 0); k < share(p, n, 1); k++) {",
            "        real *row = tape_row(g, p, t, k);",
            "        (void)row;",
            *body,
            "    }",
            "}",
        ]
    )


def _once(name: str, loop: _LoopText) -> str:
    """A pointwise loop over vectors of the step: every member has the columns that it has of a mean."""
    head = f"static void {name}(Job *g, Part *p, long t) {{"
    return "\n".join([head, *loop.lines(shared=True), "}"])


class _LoopText:
    """A pointwise loop over a row: whole vectors, then what is left of it."""

    def __init__(self, renderer: _Renderer, loop: Loop | StepLoop, back: bool) -> None:
        self.r, self.loop, self.back = renderer, loop, back
        self.loads = dict(loop.loads)
        self.pointers: dict[Place, tuple[str, str, bool]] = {}  # place -> name, address, padded
        self.row_values: list[str] = []  # scalars of the row, computed once before its loop
        self.known_of_row: dict[int, str] = {}

    def lines(self, shared: bool = False) -> list[str]:
        """The loop over one row, or over a member's share of its columns."""
        whole, part = self._body(False), self._body(True)
        totals = [(s.node, self._pointer(s.place)[0]) for s in self.loop.stores if s.total]
        part_of = "share(p, padded(width) / LANES, {}) * LANES"
        first, last = (part_of.format(0), f"least(width, {part_of.format(1)})") if shared else ("0", "width")
        return [
            f"            const long width = g->size[{self.r.symbols[self.loop.size]}];",
            *(f"            real *{n} = (real *)({a});" for n, a, _ in self.pointers.values()),
            *(f"            vec total_{node} = splat(0);" for node, _ in totals),
            *self.row_values,
            f"            long j = {first};",
            f"            const long end = {last};",
            "            for (; j + LANES <= end; j += LANES) {",
            *whole,
            "            }",
            "            if (j < end) {",
            "                const long lanes = width - j;",
            *part,
            "            }",
            *(f"            *{to} = lanes_total(total_{node});" for node, to in totals),
        ]

    def _address(self, place: Place) -> tuple[str, bool]:
        """Where the row of a place begins, and whether it is scratch, padded to whole vectors."""
        r, name = self.r, place.name
        kind = place.kind
        if kind == "col":
            return f"row + g->column[{name}]", True
        if kind == "x":
            return "x_row(g, p, t, k)", False
        if kind == "out":
            return f"out_row(g, p, t, k){self._offset(name)}", False
        if kind == "grad_out":
            where = "position(g, p, t, k) * g->grad_out_step + p->batch[k] * g->grad_out_batch"
            return f"g->grad_out + {where}{self._offset(name)}", False
        if kind in ("prev", "next") and self.back:
            return f"history(g, p, {r.states[name]}, t{' - 1' if kind == 'prev' else ''}, k)", False
        if kind in ("prev", "next", "grad_next", "grad_prev"):
            s = r.states[name]
            which = "now" if kind in ("prev", "grad_next") else "next"
            return f"p->{which}[{s}] + k * row_of(g->size[SIZE_OF_STATE[{s}]])", True
        if kind == "grad_x":
            return "p->grad_x + (p->offset[t] + k - p->chunk) * row_of(g->size[SIZE_OF_X])", True
        if kind == "temp":
            return f"p->temp[{name}] + k * row_of(g->size[SIZE_OF_TEMP[{name}]])", True
        if kind == "mask":
            return f"mask_row(g, p, {r.masks[name]}, t, k)", False
        if kind == "step":
            return f"step_vector(g, p, t, {name})", True
        if kind == "vector":
            return f"g->vector_padded[{r.vectors[name]}]", True
        if kind == "grad_vector":
            return f"p->grad_vector[{r.vectors[name]}]", True
        if kind == "scalar":
            return f"(real *)g->scalar[{r.scalars[name]}].value", True
        return f"p->grad_scalar[{r.scalars[name]}]", True

    def _offset(self, size: str) -> str:
        """Where a part of the output begins."""
        parts = [part for part in size.split("+") if part]
        return "".join(f" + {p}" if p.isdigit() else f" + g->size[{self.r.symbols[p]}]" for p in parts)

    def _pointer(self, place: Place) -> tuple[str, bool]:
        if place not in self.pointers:
            address, padded = self._address(place)
            name = f"{place.kind}_{len(self.pointers)}"
            self.pointers[place] = (name, address, padded)
        name, _, padded = self.pointers[place]
        return name, padded

    def _load(self, place: Place, scalar: bool, tail: bool) -> str:
        if place.kind == "size":
            return f"splat((real)g->size[{self.r.symbols[place.name]}])"
        name, padded = self._pointer(place)
        if scalar:
            return f"splat(*{name})"
        return f"load_part({name} + j, lanes)" if tail and not padded else f"load({name} + j)"

    def _body(self, tail: bool) -> list[str]:
        lines: list[str] = []
        known = dict(self.known_of_row)
        nodes = self.r.plan.nodes
        done: list[tuple[Store, str]] = []
        stack = [s.node for s in reversed(self.loop.stores)]
        while stack:
            i = stack[-1]
            node = nodes[i]
            waiting = [] if i in self.loads else [a for a in node.args if a not in known]
            if i in known or waiting:
                stack.extend(reversed(waiting)) if i not in known else stack.pop()
                continue
            stack.pop()
            truth = node.op in ("lt", "le", "gt", "ge")
            load = i in self.loads
            scalar = not node.shape
            text = self._load(self.loads[i], scalar, tail) if load else self._text(i, [known[a] for a in node.args])
            known[i] = f"v{i}"
            comment = f" /* {node.name} */" if node.name and i not in self.loads else ""
            line = f"const {'ivec' if truth else 'vec'} v{i} = {text};{comment}"
            if node.shape:
                lines.append(f"                {line}")
            else:
                self.known_of_row[i] = known[i]
                self.row_values.append(f"            {line}")
        done = [(s, known[s.node]) for s in self.loop.stores]
        for s, value in done:  # loads come first: a store may overwrite what was loaded
            lines.append(f"                {self._store(s, value, tail)}")
        return lines

    def _store(self, s: Store, value: str, tail: bool) -> str:
        if s.total:
            return f"total_{s.node} += {f'first_lanes({value}, lanes)' if tail else value};"
        name, padded = self._pointer(s.place)
        if s.place.kind == "grad_scalar":
            value = f"first_lanes({value}, lanes)" if tail else value
            return f"store({name}, load({name}) + {value});"
        if not padded and tail:
            return f"store_part({name} + j, {value}, lanes);"
        if s.add:
            value = f"load({name} + j) + {value}"
        return f"store({name} + j, {f'first_lanes({value}, lanes)' if tail and padded else value});"

    def _text(self, position: int, args: Sequence[str]) -> str:
        node = self.r.plan.nodes[position]
        if node.op == "const":
            value = float(node.attr or 0.0)
            return f"splat((real){_number(value)})"
        if node.op in _INFIX:
            return f"{args[0]} {_INFIX[node.op]} {args[1]}"
        if node.op == "broadcast":
            return args[0]
        if node.op == "neg":
            return f"-{args[0]}"
        if node.op == "where":
            return f"choose({', '.join(args)})"
        if node.op == "pow":
            exponent = float(node.attr or 0.0)
            if exponent == -0.5:
                return f"splat(1) / v_sqrt({args[0]})"
            if exponent == -1.5:
                return f"splat(1) / ({args[0]} * v_sqrt({args[0]}))"
            if exponent in (3.0, 4.0):
                square = f"({args[0]} * {args[0]})"
                return f"{square} * {args[0]}" if exponent == 3.0 else f"{square} * {square}"
            return f"v_pow({args[0]}, {_number(exponent)})"
        if node.op in _CALLS:
            return f"v_{node.op}({', '.join(args)})"
        raise ValueError(f"no C for {node.op}")


def _number(value: float) -> str:
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return repr(value)
