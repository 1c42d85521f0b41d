"""What the picture of a step shows: its states, its products, its named values, and what each waits for.

Products of one operand in one round are one box, as the schedule packs them; products of x stand apart, since they are
computed for all steps at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..ir import OPS, PARAMETERS, Program, expression, levels, simplify, value_names

_FUNCTIONS = ("relu", "exp", "log", "sqrt", "softplus", "abs", "sin", "cos", "floor", "maximum", "minimum", "where")
_DOT = "·"  # what products bring, where a value is written out
_LONGEST, _LINE = 31, 24  # characters of a formula on one line; of each line if it has several


@dataclass(eq=False)
class Item:
    """One thing that is drawn.

    Args:
        kind: state, output, input, product, reading (a product of x), gate, squash, function, reduction or plain.
        name: what stands in it.
        lines: what stands below the name: the value's formula, or more matrices.
        column: where it stands from left to right.
        y: of its centre; the layout sets it.
    """

    kind: str
    name: str
    lines: tuple[str, ...] = ()
    column: int = 0
    y: float = 0.0


@dataclass
class Figure:
    """The picture of a step before it has a layout.

    Args:
        items: in the order in which they are computed; states before the step first, what leaves it last.
        edges: from, to; of all but x.
        readings: (a product of x, what it goes to).
        taps: what reads x itself.
        stages: the first and the last column of each stage.
        columns: how many there are.
    """

    name: str
    items: list[Item] = field(default_factory=list[Item])
    edges: list[tuple[Item, Item]] = field(default_factory=list[tuple[Item, Item]])
    readings: list[tuple[Item, Item]] = field(default_factory=list[tuple[Item, Item]])
    taps: list[Item] = field(default_factory=list[Item])
    stages: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    columns: int = 0


def figure(program: Program) -> Figure:
    """The picture of a cell's step.

    >>> from ostinato import cells
    >>> drawn = figure(cells.gru.program())
    >>> [item.name for item in drawn.items if item.kind == "gate"], len(drawn.stages)
    (['r', 'z'], 2)
    """
    return _Drawer(simplify(program)).figure()


class _Drawer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = program.nodes
        self.level = levels(program)
        self.roots = {i: s for s, i in zip(program.states, program.next_states, strict=True)}
        self.slot = self._slots()
        self.names = self._names()
        self.drawn = [i for i in self.names if self.level[i] > PARAMETERS]
        self.result = Figure(program.name)
        self.item: dict[int, Item] = {}

    def _slots(self) -> list[int]:
        """The round of products or reductions that each value waits for; -1: none."""
        slot: list[int] = []
        for node in self.nodes:
            waits = max((slot[a] for a in node.args), default=-1)
            recurrent = node.op == "matmul" and self.nodes[node.args[1]].op != "input"
            slot.append(waits + (recurrent or node.op in ("total", "batch_mean")))
        return slot

    def _names(self) -> dict[int, str]:
        """What is drawn, or stands under its name in what is: named values, operands of products, reductions."""
        names = {i: f"{name}′" if i in self.roots else name for i, name in value_names(self.program).items()}
        for i, node in enumerate(self.nodes):
            if node.op in ("total", "batch_mean") and self.level[i] > PARAMETERS:
                names.setdefault(i, "")
            if node.op == "matmul" and OPS[self.nodes[node.args[1]].op].kind != "leaf":
                names.setdefault(node.args[1], "")
        return dict(sorted(names.items()))

    # Text

    def _texts(self) -> dict[int, str]:
        """How values stand in formulas: names; what products and biases add up to is a dot."""
        texts = {i: name or "a" for i, name in self.names.items()}
        for i, node in enumerate(self.nodes):
            if node.op == "matmul":
                texts.setdefault(i, _DOT)
            elif len(node.args) == 1 and OPS[node.op].binding == 100:  # a function: what stands in it is a whole
                (inside,) = node.args
                whole = "" if inside in self.names else self._sum(inside, texts)
                if whole:
                    texts[inside] = whole
            elif node.op == "add" and i not in texts and self._sum(i, texts) == _DOT:
                texts[i] = _DOT
        return texts

    def _terms(self, position: int, texts: dict[int, str]) -> list[int]:
        node = self.nodes[position]
        if node.op == "add" and texts.get(position, _DOT) == _DOT:
            return [t for a in node.args for t in ([a] if a in self.names else self._terms(a, texts))]
        return [position]

    def _sum(self, position: int, texts: dict[int, str]) -> str:
        """A sum with products in it: a dot for them and the biases, and the other terms; "" if it is none."""
        terms = self._terms(position, texts)
        dots = [t for t in terms if texts.get(t) == _DOT or self.nodes[t].op == "matmul"]
        rest = [t for t in terms if t not in dots and self.nodes[t].op != "param"]
        return " + ".join([_DOT, *(texts.get(t) or expression(self.program, t, texts) for t in rest)]) if dots else ""

    def _formula(self, position: int, texts: dict[int, str]) -> tuple[str, ...]:
        inner = {k: v for k, v in texts.items() if k != position}
        node = self.nodes[position]
        if node.op in ("add", "matmul"):
            whole = _DOT if node.op == "matmul" else self._sum(position, inner)
            if whole and not whole.strip("·+− "):
                return ()
            if whole:
                return (whole,)
        whole = expression(self.program, position, inner)
        if whole.endswith(f"({_DOT})") and "(" not in whole[:-3]:
            return (whole[:-3],)
        return (
            (whole,) if len(whole) <= _LONGEST else tuple(expression(self.program, position, inner, _LINE).split("\n"))
        )

    def _kind(self, position: int) -> str:
        op = self.nodes[position].op
        special = {"sigmoid": "gate", "tanh": "squash", "total": "reduction", "batch_mean": "reduction"}
        return special.get(op, "function" if op in _FUNCTIONS else "plain")

    # Structure

    def _sources(self, position: int) -> Iterator[int]:
        """What a value is drawn as waiting for: leaves, products, drawn values."""
        seen: set[int] = set()
        stack = list(self.nodes[position].args) if self.nodes[position].op != "matmul" else [position]
        while stack:
            i = stack.pop(0)
            if i in seen or self.level[i] == PARAMETERS:
                continue
            seen.add(i)
            known = i in self.item and i != position
            if known or self.nodes[i].op in ("matmul", "state", "input"):
                yield i
            else:
                stack = [*self.nodes[i].args, *stack]

    def figure(self) -> Figure:
        result = self.result
        states = {s: Item("state", s) for s in self.program.states}
        result.items += states.values()
        texts = self._texts()
        for i in self.drawn:
            self.item[i] = Item(self._kind(i), self.names[i], self._formula(i, texts))
        products = self._columns()
        last = result.columns - 1
        boxes: dict[tuple[int, int], Item] = {}
        for i in self.drawn:
            here = self.item[i]
            for source in self._sources(i):
                node = self.nodes[source]
                if source in self.item and source != i:
                    result.edges.append((self.item[source], here))
                elif node.op == "state":
                    result.edges.append((states[str(node.attr)], here))
                elif node.op == "input":
                    result.taps.append(here)
                else:
                    self._product(source, here, products, boxes, states)
        for box in result.items:
            if box.kind in ("product", "reading"):
                box.name, box.lines = _stacked([box.name, *box.lines])
        result.items += self.item.values()
        self._leave(states, last)
        return result

    def _columns(self) -> dict[int, int]:
        """Set the column of each value; returns the column of the products of each round."""
        products: dict[int, int] = {}
        rounds = {self.slot[i] for i, n in enumerate(self.nodes) if self._recurrent(i)}
        depth: dict[int, int] = {}
        for i in self.drawn:
            before = [k for k in self._sources(i) if k in self.item and k != i and self.slot[k] == self.slot[i]]
            depth[i] = max((depth[k] + 1 for k in before), default=0)
        column = 1
        for slot in sorted({*rounds, *(self.slot[i] for i in self.drawn)}):
            first = column
            if slot in rounds:
                products[slot] = column
                column += 1
            here = [i for i in self.drawn if self.slot[i] == slot]
            for i in here:
                self.item[i].column = column + depth[i]
            column += max((depth[i] + 1 for i in here), default=0)
            if slot in rounds:
                self.result.stages.append((first, column - 1))
        self.result.columns = column + 1
        return products

    def _recurrent(self, position: int) -> bool:
        node = self.nodes[position]
        return node.op == "matmul" and self.nodes[node.args[1]].op != "input" and self.level[position] > PARAMETERS

    def _product(
        self,
        source: int,
        here: Item,
        products: dict[int, int],
        boxes: dict[tuple[int, int], Item],
        states: dict[str, Item],
    ) -> None:
        matrix, operand = self.nodes[source].args
        texts = {i: name for i, name in self.names.items() if name}
        text = texts.get(matrix) or expression(self.program, matrix, texts)
        reading = not self._recurrent(source)
        column = here.column - 1 if reading else products[self.slot[source]]
        box = boxes.get((operand, column))
        if box is None:
            box = boxes[operand, column] = Item("reading" if reading else "product", text, (), column)
            self.result.items.append(box)
            if not reading:
                node = self.nodes[operand]
                self.result.edges.append((states[str(node.attr)] if node.op == "state" else self.item[operand], box))
        else:
            box.lines = (*box.lines, text)
        link = (box, here)
        links = self.result.readings if reading else self.result.edges
        if link not in links:
            links.append(link)

    def _leave(self, states: dict[str, Item], last: int) -> None:
        """What leaves the step: the output at the top, the states in their order."""
        program, result = self.program, self.result
        leaving = [("output", "output", program.output)] if program.output >= 0 else []
        leaving += [("state", f"{s}′", i) for s, i in zip(program.states, program.next_states, strict=True)]
        for kind, name, position in leaving:
            port = Item(kind, name, (), last)
            result.items.append(port)
            node = self.nodes[position]
            if position in self.item:
                result.edges.append((self.item[position], port))
            elif node.op == "state":
                result.edges.append((states[str(node.attr)], port))
            elif node.op == "input":
                result.taps.append(port)


def _stacked(matrices: list[str]) -> tuple[str, tuple[str, ...]]:
    """The matrices of a box: one a line up to four, else several a line."""
    a_line = 1 if len(matrices) <= 4 else 2 if len(matrices) <= 8 else 3
    rows = ["  ".join(matrices[k : k + a_line]) for k in range(0, len(matrices), a_line)]
    return rows[0], tuple(rows[1:])
