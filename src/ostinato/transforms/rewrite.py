"""What transforms are written with: a Program is copied node by node, and a transform replaces some of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from ..errors import CellError
from ..ir import STATE, Builder, Mask, Node, Program, Shape, Statistic, activations, delayed, levels, simplify
from ..lang import Cell

# (position in the old Program, position of its copy) -> what stands in the copy's place
Replace = Callable[[int, int], int]


class Rewriter:
    """A copy of a cell's Program in the making.

    Concatenations are taken apart first (`ostinato.ir.simplify`), so that a product has one matrix and one operand.

    Args:
        cell: whose equations are copied.
        name: of the cell that is made, such as ``"zoneout(lstm, 0.1)"``.

    Attributes:
        old: the Program that is copied; level: of each of its nodes (see `ostinato.ir.levels`).
        b: the new nodes; place: where each old node went.
        next_states, output: of the new Program, by position; set by `copy`.
    """

    def __init__(self, cell: Cell, name: str) -> None:
        if not isinstance(cell, Cell):  # pyright: ignore[reportUnnecessaryIsInstance]
            what = name.partition("(")[0]
            raise CellError(f"{what} was given {type(cell).__name__}; give it a cell, such as ostinato.cells.lstm")
        self.cell = cell
        self.name = name
        self.old = simplify(cell.program())
        self.level = levels(self.old)
        self.b = Builder()
        self.place: list[int] = []
        self.states = list(self.old.states)
        self.next_states: list[int] = []
        self.output = -1
        self._init = list(self.old.init)
        self._masks = list(self.old.masks)
        self._statistics = list(self.old.statistics)
        self._taken = {*self.old.params, *self.old.states, "x"}
        self._taken |= {mask.name for mask in self.old.masks} | {s.name for s in self.old.statistics}

    def refuse(self, fact: str, remedy: str) -> NoReturn:
        """A CellError about this transform of this cell."""
        raise CellError(f"{self.name}: {fact}; {remedy}")

    # What is found in the old Program.

    def products(self, level: int) -> list[int]:
        """The products of a matrix with a value of this level: INPUT of x alone, STATE of a state as well."""
        return [i for i, n in enumerate(self.old.nodes) if n.op == "matmul" and self.level[n.args[1]] == level]

    def recurrent(self) -> list[int]:
        """The products with a value that depends on a state.

        Raises:
            CellError: there are none.
        """
        found = self.products(STATE)
        if not found:
            self.refuse(
                f"cell {self.cell.name} has no product of a matrix with a value that depends on a state",
                "take a cell with recurrent matrices, as lstm, gru or elman",
            )
        return found

    def matrix(self, product: int) -> str:
        """The name of the parameter that a product's matrix is made of, a trained one if there is one."""
        stack = [self.old.nodes[product].args[0]]
        found: list[str] = []
        while stack:
            node = self.old.nodes[stack.pop()]
            if node.op == "param":
                found.append(str(node.attr))
            stack.extend(reversed(node.args))
        trained = [name for name in found if name not in self.old.fixed]
        return next(iter((*trained, *found)), "matrix")

    def activations(self, delays: bool = False) -> list[int]:
        """The numbers of the states that are activations; with `delays` also of those that hold old ones."""
        good = {*activations(self.old), *(set(delayed(self.old)) - set(self.old.auxiliary) if delays else ())}
        return [k for k, name in enumerate(self.old.states) if name in good]

    def state(self, name: str, delays: bool = False) -> int:
        """The number of a state that is an activation, or with `delays` holds an old one.

        Raises:
            CellError: there is none of that name, and the message suggests the nearest; or it is bookkeeping.
        """
        known = self.old.states
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"its states are {', '.join(known) or 'none'}"
            self.refuse(f"cell {self.cell.name} has no state {name!r}", hint)
        number, good = known.index(name), self.activations(delays)
        if number not in good:
            held = name not in self.old.auxiliary
            kind = "a delay line, which holds an old value" if held else "a counter or normaliser of the cell"
            why = kind if held else f"{kind}, or goes with one"
            others = ", ".join(known[k] for k in good)
            remedy = f"its activations are {others}" if others else "take another cell"
            self.refuse(f"the state {name} of cell {self.cell.name} is {why}, not an activation", remedy)
        return number

    def chosen(self, state: str | None, delays: bool = False) -> int:
        """The number of the state that is asked for, or of the first activation.

        Raises:
            CellError: as of `state`; or the cell has no states, or no activations among them.
        """
        return self._some(delays)[0] if state is None else self.state(state, delays)

    def per_state(self, what: str, given: float | Mapping[str, float], delays: bool = False) -> dict[int, float]:
        """A rate for states, one number for all activations or a number by name, as rates above 0 by the states'
        numbers; with `delays` also for the states that hold old activations.
        """
        if not isinstance(given, Mapping):
            value = self.rate(what, given)
            return dict.fromkeys(self._some(delays), value) if value else {}
        found = {self.state(name, delays): self.rate(f"{what} of {name}", value) for name, value in given.items()}
        return {k: value for k, value in found.items() if value}

    def _some(self, delays: bool) -> list[int]:
        """`activations`; a CellError if there are none."""
        if not self.old.states:
            self.refuse(f"cell {self.cell.name} has no states", "take a cell that carries one")
        found = self.activations(delays)
        if not found:
            names = ", ".join(self.old.states)
            self.refuse(
                f"no state of cell {self.cell.name} is an activation: {names} only hold old values or count",
                "take a cell that carries one",
            )
        return found

    def rate(self, what: str, value: Any) -> float:
        """A probability, 0 <= rate < 1."""
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
        if not good:
            self.refuse(f"{what} is {value!r}", "give a probability, 0 <= rate < 1")
        return float(value)

    # What is put into the new one.

    def copy(self, change: Replace | None = None) -> None:
        """Copy every node; `change` is given the position of each and of its copy, and says what stands for it."""
        for i, node in enumerate(self.old.nodes):
            args = tuple(self.place[a] for a in node.args)
            new = self.b.raw(node.op, args, node.shape, node.attr, node.name)
            made = new if change is None else change(i, new)
            if node.op == self.b.nodes[made].op == "matmul" and node.name:  # of another matrix or operand
                self.b.rename(made, node.name)
            self.place.append(made)
        self.next_states = [self.place[i] for i in self.old.next_states]
        self.output = self.place[self.old.output] if self.old.output >= 0 else -1

    def unused(self, name: str) -> str:
        """`name`, or ``name_2``, ``name_3``, ... if that is taken."""
        number, free = 2, name
        while free in self._taken:
            number, free = number + 1, f"{name}_{number}"
        self._taken.add(free)
        return free

    def param(self, name: str, shape: Shape, rule: float | str | None = None) -> int:
        """A new parameter and how it starts; None: by the default of its kind."""
        name = self.unused(name)
        if rule is not None:
            self._init.append((name, rule))
        return self.b.raw("param", (), shape, name)

    def mask(self, name: str, shape: Shape, probability: float, scale: float = 1.0, locked: bool = False) -> int:
        """A leaf of random numbers."""
        name = self.unused(name)
        self._masks.append(Mask(name, probability, scale, locked))
        return self.b.raw("mask", (), shape, name)

    def dropped(self, position: int, name: str, rate: float, locked: bool = False) -> int:
        """A value with elements at 0 with probability `rate` and the others divided by ``1 - rate``."""
        keep = 1.0 - rate
        return self.b.mul(position, self.mask(name, self.b.nodes[position].shape, keep, 1.0 / keep, locked))

    def statistic(self, name: str, position: int, momentum: float, length: int, start: float) -> int:
        """The mean over the sequences of a step, of which the layer keeps a running mean for each step."""
        name = self.unused(name)
        self._statistics.append(Statistic(name, momentum, length, start))
        return self.b.raw("batch_mean", (position,), self.b.nodes[position].shape, name)

    def replace_state(self, k: int, new: int) -> None:
        """Another next value for a state; the output follows if it is that state."""
        if self.old.output >= 0 and self.old.output == self.old.next_states[k]:
            self.output = new
        self.next_states[k] = new

    def program(self) -> Program:
        """The new Program, simplified."""
        found = replace(
            self.old,
            name=self.name,
            nodes=tuple(self.b.nodes),
            states=tuple(self.states),
            next_states=tuple(self.next_states),
            output=self.output,
            init=tuple(self._init),
            masks=tuple(self._masks),
            statistics=tuple(self._statistics),
        )
        return simplify(found)

    def finish(self) -> Cell:
        """The new cell."""
        return self.cell.with_program(self.program())


def multiple_of_state(b: Builder, position: int, swap: Callable[[Node], int | None]) -> int | None:
    """A state, or a multiple of one (``r * h``, ``-h``, ``h / a``), with the state replaced by what `swap` gives.

    None if it is no such value, or `swap` gives None for each state in it.
    """
    node = b.nodes[position]
    if node.op == "state":
        return swap(node)
    followed = {"mul": (0, 1), "div": (0,), "neg": (0,)}.get(node.op, ())
    for place in followed:
        found = multiple_of_state(b, node.args[place], swap)
        if found is not None:
            args = list(node.args)
            args[place] = found
            return b.op(node.op, *args)
    return None


def sum_terms(program: Program, position: int, uses: list[int]) -> list[int]:
    """The terms of a chain of additions; an inner sum that is used elsewhere as well stays whole."""
    node = program.nodes[position]
    if node.op != "add":
        return [position]
    found: list[int] = []
    for a in node.args:
        inner = program.nodes[a].op == "add" and uses[a] == 1
        found += sum_terms(program, a, uses) if inner else [a]
    return found


def count_uses(program: Program) -> list[int]:
    """How often each node is an operand or a root."""
    uses = [0] * len(program.nodes)
    for node in program.nodes:
        for a in node.args:
            uses[a] += 1
    for root in program.roots:
        uses[root] += 1
    return uses


def check_count(what: str, value: Any, least: int, example: str) -> int:
    """A whole number of at least `least`.

    Raises:
        CellError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CellError(f"{what} = {value!r}; give a whole number of at least {least}, as in {example}")
    return value


def check_positive(what: str, value: Any, example: str) -> float:
    """A finite number above 0.

    Raises:
        CellError: it is none.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    if not good:
        raise CellError(f"{what} = {value!r}; give a number above 0, as in {example}")
    return float(value)


def call(transform: str, cell: object, *values: object, **named: object) -> str:
    """The name of what a transform makes: ``call("zoneout", lstm, 0.1) == "zoneout(lstm, 0.1)"``."""
    first = str(getattr(cell, "name", cell))
    shown = [*(_shown(v) for v in values), *(f"{k}={_shown(v)}" for k, v in named.items())]
    return f"{transform}({', '.join([first, *shown])})"


def _shown(value: object) -> str:
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)  # pyright: ignore[reportUnknownArgumentType]
