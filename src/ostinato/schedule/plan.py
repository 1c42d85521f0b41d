"""`Plan`: what a backend sees of a cell. Frozen, hashable, printable.

Rows are (step, sequence) pairs. Every row owns a stretch of the *tape*, cut into *columns*: accumulators, kept values,
operands. Backward overwrites the accumulators by their gradients, which later products read. Other places a value can
be in:

    x, out[:OFFSET]    the step's input, and a part of its output
    prev:S, next:S     state S before and after the step
    grad_out[:OFFSET]  gradient of it
    grad_next:S        gradient of state S after the step; comes in
    grad_prev:S        gradient of state S before the step; goes out
    grad_x             gradient of x
    temp:N             a vector of the row that lives for the step
    vector:P, scalar:P a parameter;  grad_vector:P, grad_scalar:P  what is added to its gradient
    mask:M             random numbers given to the step
    size:S             the number that a size stands for
    step:N             a vector of the step, the same for all its rows; backward finds the first of them on the tape
    col:N              column N of the tape

A scalar of a row stands in a column or temporary of the size "1".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from ..ir import OPS, Node, written


@dataclass(frozen=True)
class Place:
    """Where a value is: a kind of the list above, and which one."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def column(self) -> int:
        """The number of a tape column, or of a vector of the step."""
        return int(self.name)


@dataclass(frozen=True)
class Column:
    """A column of the tape: its size symbol, and what it holds for the reader of a printed plan."""

    size: str
    name: str


@dataclass(frozen=True)
class Entry:
    """One matrix of a packed product and the tape column it writes (forward) or reads (backward)."""

    matrix: str
    column: int
    bias: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A packed product. Forward: entries' columns (+)= matrix @ source. Backward: target (+)= Σ matrixᵀ @ column.

    `accumulate`: add to what is there, else start from the entries' biases (forward) or 0.
    """

    source: Place
    target: Place
    entries: tuple[Entry, ...]
    accumulate: bool
    transposed: bool


@dataclass(frozen=True)
class Store:
    """Write (or add) the value of a node to a place; `total`: the sum of its elements."""

    place: Place
    node: int
    add: bool = False
    total: bool = False


@dataclass(frozen=True)
class Loop:
    """Pointwise work over vectors of one size; `loads` are the values that lie ready."""

    size: str
    stores: tuple[Store, ...]
    loads: tuple[tuple[int, Place], ...]


@dataclass(frozen=True)
class BatchMean:
    """target = the mean of source over the rows of the step. All sequences must be in one place for it."""

    size: str
    source: Place
    target: Place


@dataclass(frozen=True)
class StepLoop:
    """Pointwise work over vectors of the step, once for all its rows; loads and stores as in a `Loop`."""

    size: str
    stores: tuple[Store, ...]
    loads: tuple[tuple[int, Place], ...]


Slot = Run | Loop | BatchMean | StepLoop


@dataclass(frozen=True)
class WeightGrad:
    """matrix gradient += column (the accumulator's gradient) ⊗ operand, summed over all rows."""

    matrix: str
    column: int
    operand: Place


WIDEST = 16  # values of the widest vector
TAPE_NOTES = 16  # values before the first row, where forward notes for backward how the tape is cut


class TapeSize(NamedTuple):
    """Values of a tape: of each row, of each step, and beside them."""

    row: int
    step: int
    rest: int

    def values(self, steps: int, rows: int) -> int:
        """Of the whole."""
        return rows * self.row + steps * self.step + self.rest


@dataclass(frozen=True)
class Plan:
    """The schedule of a cell.

    Args:
        name: the cell's name.
        nodes: the pointwise graph the loops refer to.
        states: (name, size) of each state.
        input_size, output_size: sizes of x and the output.
        matrices: (name, rows, columns) of each matrix; vectors: (name, size); scalars: names.
        columns: the tape.
        hoist: products of x, for many steps at once; fills: accumulators without one and their biases.
        infer, forward: the slots of a step without and with what backward needs.
        history: where backward finds a state's value after a step (None: not needed): in the output, a column, x, or
            where another state's value before the step is found.
        backward: the slots of a step's derivative; deferred: the products for the gradient of x.
        weight_grads: matrix gradients; bias_grads: (vector, column) whose rows are summed.
        temps: sizes of the temporary vectors of a row; steps: of those of a step, of which the first `kept_steps` stay
            for backward.
        masks: (name, size) of the random numbers given to the step.
        statistics: the number of each vector of the step that a run puts out for every step.
    """

    name: str
    nodes: tuple[Node, ...]
    states: tuple[tuple[str, str], ...]
    input_size: str
    output_size: str
    matrices: tuple[tuple[str, str, str], ...]
    vectors: tuple[tuple[str, str], ...]
    scalars: tuple[str, ...]
    columns: tuple[Column, ...]
    hoist: tuple[Run, ...]
    fills: tuple[Entry, ...]
    infer: tuple[Slot, ...]
    forward: tuple[Slot, ...]
    history: tuple[Place | None, ...]
    backward: tuple[Slot, ...]
    deferred: tuple[Run, ...]
    weight_grads: tuple[WeightGrad, ...]
    bias_grads: tuple[tuple[str, int], ...]
    temps: tuple[str, ...]
    steps: tuple[str, ...] = ()
    kept_steps: int = 0
    masks: tuple[tuple[str, str], ...] = ()
    statistics: tuple[int, ...] = ()

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every size that occurs, sums of symbols as well; D and H first."""
        found = {s for _, s in (*self.states, *self.masks)}
        found |= {self.input_size, self.output_size, *self.temps, *self.steps}
        found |= {s for _, *shape in self.matrices for s in shape} | {s for _, s in self.vectors}
        found |= {c.size for c in self.columns}
        found |= {slot.size for slots in (self.infer, self.backward) for slot in slots if not isinstance(slot, Run)}
        found |= {str(n.attr) for n in self.nodes if n.op == "size"}
        found |= {a for s in found for a in s.split("+")}
        return ("D", "H", *sorted(found - {"D", "H"}))

    def tape_size(self, sizes: Sequence[int]) -> TapeSize:
        """How large the tape is; `sizes` in the order of `symbols`.

        A row has columns padded to whole vectors, and a vector more; a step the vectors that are kept; beside them are
        two vectors to read past the end, and what the backend notes.
        """
        at = {symbol: i for i, symbol in enumerate(self.symbols)}

        def padded(names: Iterable[str]) -> int:
            return sum(-(-sizes[at[name]] // WIDEST) * WIDEST for name in names)

        row = padded(c.size for c in self.columns) + WIDEST
        return TapeSize(row, padded(self.steps[: self.kept_steps]), 2 * WIDEST + TAPE_NOTES)

    @property
    def stages(self) -> int:
        """Recurrent products that wait for one another within a step."""
        return sum(
            1
            for before, slot in zip((None, *self.infer), self.infer, strict=False)
            if isinstance(slot, Run) and not isinstance(before, Run)
        )

    def anonymous(self) -> Plan:
        """Without what only a reader needs, so that equal kernels have equal plans."""
        nodes = tuple(replace(n, name="") for n in self.nodes)
        return replace(self, name="", nodes=nodes, columns=tuple(Column(c.size, "") for c in self.columns))

    def __str__(self) -> str:
        lines = [f"plan {self.name}: {self.stages} stage{'s' if self.stages != 1 else ''} a step"]
        lines.append("tape")
        lines += [f"  col:{i:<3} [{c.size}]  {c.name}" for i, c in enumerate(self.columns)]
        lines.append("once for all steps")
        lines += [f"  {self._run(run)}" for run in self.hoist]
        lines += [f"  col:{e.column} = {' + '.join(e.bias) or '0'}" for e in self.fills]
        for title, slots in (("each step", self.infer), ("each step, for backward", self.forward)):
            lines += [title, *self._slots(slots)]
        for (state, _), place in zip(self.states, self.history, strict=True):
            if place is not None:
                lines.append(f"  backward finds {state} in {place}")
        lines += [f"  statistic {k} is step:{number}" for k, number in enumerate(self.statistics)]
        lines += ["each step, backward", *self._slots(self.backward)]
        lines.append("for all steps, backward")
        lines += [f"  {self._run(run)}" for run in self.deferred]
        lines += [f"  grad {g.matrix} += Σ col:{g.column} ⊗ {g.operand}" for g in self.weight_grads]
        lines += [f"  grad {v} += Σ col:{c}" for v, c in self.bias_grads]
        return "\n".join(lines)

    def _run(self, run: Run) -> str:
        sign = "+=" if run.accumulate else "="
        if run.transposed:
            return f"{run.target} {sign} " + " + ".join(f"{e.matrix}ᵀ col:{e.column}" for e in run.entries)
        left = ", ".join(f"col:{e.column}" for e in run.entries)
        right = "; ".join(" + ".join([e.matrix, *e.bias]) for e in run.entries)
        return f"[{left}] {sign} [{right}] @ {run.source}"

    def _slots(self, slots: tuple[Slot, ...]) -> list[str]:
        lines: list[str] = []
        for slot in slots:
            if isinstance(slot, Run):
                lines.append(f"  {self._run(slot)}")
                continue
            if isinstance(slot, BatchMean):
                lines.append(f"  {slot.target} = mean of {slot.source} over the batch")
                continue
            once = ", once for the step" if isinstance(slot, StepLoop) else ""
            lines.append(f"  for each of {slot.size}{once}:")
            loads = {node: str(place) for node, place in slot.loads}
            for s in slot.stores:
                text = self._text(s.node, loads)[0]
                lines.append(f"    {s.place} {'+=' if s.add else '='} {f'sum({text})' if s.total else text}")
        return lines

    def _text(self, position: int, loads: dict[int, str]) -> tuple[str, int]:
        if position in loads:
            return loads[position], 100
        node = self.nodes[position]
        if node.op == "const":
            return f"{node.attr:g}", 100
        op = OPS[node.op]
        parts: list[str] = []
        for k, a in enumerate(node.args):
            text, binding = self._text(a, loads)
            strict = k == 1 and node.op in ("sub", "div")
            parts.append(f"({text})" if op.binding < 100 and binding < op.binding + strict else text)
        attr = f"{node.attr:g}" if isinstance(node.attr, float) else str(node.attr or "")
        return written(op.text, parts, attr), op.binding
