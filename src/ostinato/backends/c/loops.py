"""Pointwise loops of a Plan as C: over the rows of a step, and over vectors of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir import INFIX, OPS
from ...schedule import Loop, Place, Plan, StepLoop, Store

_CALLS = ("tanh", "relu", "exp", "log", "sqrt", "abs")
_CALLS += ("sin", "cos", "floor", "maximum", "minimum")
_DOWN = ("sigmoid", "softplus")  # computed from exp(-|x|), which those of x and of -x share


class Tables:
    """The number by which C knows each thing that a Plan names."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.symbols = {s: i for i, s in enumerate(plan.symbols)}
        self.matrices = {m: i for i, (m, *_) in enumerate(plan.matrices)}
        self.vectors = {v: i for i, (v, _) in enumerate(plan.vectors)}
        self.scalars = {v: i for i, v in enumerate(plan.scalars)}
        self.masks = {m: i for i, (m, _) in enumerate(plan.masks)}
        self.states = {s: i for i, (s, _) in enumerate(plan.states)}

    def history(self, place: Place | None) -> int:
        """An entry of the table HISTORY; see `history` in job.h."""
        if place is None:
            return -3
        if place.kind == "prev":
            return -4 - self.states[place.name]
        return {"out": -1, "x": -2}[place.kind] if place.kind in ("out", "x") else place.column


def over_rows(name: str, loops: Sequence[LoopText]) -> str:
    """Pointwise loops over the rows of a step, one after another on each row; a member has its own rows."""
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


def over_the_step(name: str, loop: LoopText) -> str:
    """A pointwise loop over vectors of the step: every member has the columns that it has of a mean."""
    head = f"static void {name}(Job *g, Part *p, long t) {{"
    return "\n".join([head, *loop.lines(shared=True), "}"])


class LoopText:
    """A pointwise loop over a row: whole vectors, then what is left of it."""

    def __init__(self, tables: Tables, loop: Loop | StepLoop, back: bool) -> None:
        self.r, self.loop, self.back = tables, loop, back
        self.loads = dict(loop.loads)
        self.pointers: dict[Place, tuple[str, str, bool]] = {}  # place -> name, address, padded
        self.row_values: list[str] = []  # scalars of the row, computed once before its loop
        self.known_of_row: dict[int | str, str] = {}

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
            where = "row_at(g, p, t, k, g->grad_out_step, g->grad_out_batch)"
            return f"g->grad_out + {where}{self._offset(name)}", False
        if kind in ("prev", "next") and self.back:
            return f"history(g, p, {r.states[name]}, t{' - 1' if kind == 'prev' else ''}, k)", False
        if kind in ("prev", "next", "grad_next", "grad_prev"):
            s = r.states[name]
            which = "now" if kind in ("prev", "grad_next") else "next"
            return f"p->{which}[{s}] + k * row_of(g->size[SIZE_OF_STATE[{s}]])", True
        if kind == "grad_x":
            return "grad_x_row(g, p, t, k)", bool(r.plan.deferred)
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

        def define(key: int | str, kind: str, name: str, text: str, scalar: bool) -> None:
            known[key] = name
            if scalar:
                self.known_of_row[key] = name
                self.row_values.append(f"            const {kind} {name} = {text}")
            else:
                self._lines_of(key, lines).append(f"                const {kind} {name} = {text}")

        nodes = self.r.plan.nodes
        stack = [s.node for s in reversed(self.loop.stores)]
        while stack:
            i = stack[-1]
            node = nodes[i]
            waiting = [] if i in self.loads else [a for a in node.args if a not in known]
            if i in known or waiting:
                stack.extend(reversed(waiting)) if i not in known else stack.pop()
                continue
            stack.pop()
            load = i in self.loads
            scalar = not node.shape
            args = [] if load else [known[a] for a in node.args]
            if node.op in _DOWN and not load:
                size = known[self._unsigned(node.args[0])]
                if f"down_{size}" not in known:
                    define(f"down_{size}", "vec", f"down_{size}", f"exp_down({size});", scalar)
                args.append(f"down_{size}")
            text = self._load(self.loads[i], scalar, tail) if load else self._text(i, args)
            comment = f" /* {node.name} */" if node.name and not load else ""
            define(i, "ivec" if OPS[node.op].kind == "compare" else "vec", f"v{i}", f"{text};{comment}", scalar)
        sums: dict[tuple[Place, int], tuple[Store, str]] = {}  # what is added to one place is added up before
        for s in self.loop.stores:
            key = (s.place, s.node if s.total else -1)
            first, value = sums.get(key, (s, ""))
            sums[key] = first, f"{value} + {known[s.node]}" if value else known[s.node]
        for s, value in sums.values():  # loads come first: a store may overwrite what was loaded
            lines.append(f"                {self._store(s, value, tail)}")
        return lines

    def _lines_of(self, key: int | str, lines: list[str]) -> list[str]:
        """Where the line of a node, or of what belongs to one, goes: with those of its loop."""
        return lines

    def _unsigned(self, position: int) -> int:
        """What a node is the negative of, or itself."""
        node = self.r.plan.nodes[position]
        return node.args[0] if node.op == "neg" and position not in self.loads else position

    def _store(self, s: Store, value: str, tail: bool) -> str:
        if s.total:
            return f"total_{s.node} += {f'first_lanes({value}, lanes)' if tail else value};"
        name, padded = self._pointer(s.place)
        if s.place.kind == "grad_scalar":
            value = f"first_lanes({value}, lanes)" if tail else value
            return f"store({name}, load({name}) + {value});"
        if s.add:
            value = f"{self._load(s.place, False, tail)} + {value}"
        if not padded and tail:
            return f"store_part({name} + j, {value}, lanes);"
        return f"store({name} + j, {f'first_lanes({value}, lanes)' if tail and padded else value});"

    def _text(self, position: int, args: Sequence[str]) -> str:
        node = self.r.plan.nodes[position]
        if node.op == "const":
            value = float(node.attr or 0.0)
            return f"splat((real){_number(value)})"
        if node.op in INFIX:
            return f"{args[0]} {INFIX[node.op]} {args[1]}"
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
        if node.op in _DOWN:
            return f"{node.op}_of({', '.join(args)})"
        if node.op in _CALLS:
            return f"v_{node.op}({', '.join(args)})"
        raise ValueError(f"no C for {node.op}")


def _number(value: float) -> str:
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return repr(value)
