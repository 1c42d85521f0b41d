"""Building nodes: equal values are one node, constants fold, and identities vanish as they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ProgramError
from .node import Attr, Node, Shape, size_sum
from .ops import OPS


class Builder:
    """Grows a list of nodes. Every method returns a position in `nodes`.

    What is simplified here is exact for every number, NaN and infinity included: ``0 * x`` is not 0.
    """

    def __init__(self, nodes: Sequence[Node] = ()) -> None:
        self.nodes: list[Node] = []
        self._known: dict[tuple[str, tuple[int, ...], Shape, Attr], int] = {}
        for node in nodes:
            self.raw(node.op, node.args, node.shape, node.attr, node.name)

    def raw(self, op: str, args: tuple[int, ...], shape: Shape, attr: Attr = None, name: str = "") -> int:
        """The node with these contents: an old one if it is there already."""
        key = (op, args, shape, attr)
        position = self._known.get(key)
        if position is None:
            position = len(self.nodes)
            self._known[key] = position
            self.nodes.append(Node(op, args, shape, attr, name))
        elif name and not self.nodes[position].name:
            self.rename(position, name)
        return position

    def rename(self, position: int, name: str) -> None:
        """Give a node the name it has in the equations."""
        node = self.nodes[position]
        self.nodes[position] = Node(node.op, node.args, node.shape, node.attr, name)

    def op(self, op: str, *args: int, attr: Attr = None, shape: Shape | None = None) -> int:
        """Any operation of the table, simplified; `shape` only for leaves and slices, whose shape no rule gives."""
        if shape is None:
            shape = self.shape_of(op, args)
        folded = self._fold(op, args, attr)
        if folded is not None:
            return self.const(folded)
        same = self._identity(op, args, attr)
        return self.raw(op, args, shape, attr) if same is None else same

    def shape_of(self, op: str, args: tuple[int, ...]) -> Shape:
        """The shape rule of the table."""
        shapes = [self.nodes[a].shape for a in args]
        kind = OPS[op].kind
        if kind in ("pointwise", "compare"):
            wide = {shape for shape in shapes if shape}
            if len(wide) > 1:
                raise ProgramError(f"{op} of shapes {shapes}; give it operands of one size")
            return wide.pop() if wide else ()
        if op in ("matmul", "matmul_t"):
            (rows, columns), (vector,) = shapes
            inner, outer = (columns, rows) if op == "matmul" else (rows, columns)
            if inner != vector:
                raise ProgramError(f"{op} of a [{rows}, {columns}] matrix and a vector of size {vector}")
            return (outer,)
        if op == "concat":
            return (size_sum(*(shape[0] for shape in shapes)),)
        if op == "total":
            return ()
        if op == "transpose":
            (rows, columns) = shapes[0]
            return (columns, rows)
        if op == "batch_mean":
            return shapes[0]
        raise ProgramError(f"the shape of {op} must be given")

    def constant(self, position: int) -> float | None:
        """The number a node stands for, or None."""
        node = self.nodes[position]
        return float(node.attr) if node.op == "const" and node.attr is not None else None

    def number(self, position: int) -> float:
        """The number in a node's attribute (an exponent)."""
        attr = self.nodes[position].attr
        if not isinstance(attr, float):
            raise ProgramError(f"node {position} ({self.nodes[position].op}) has no number")
        return attr

    def _fold(self, op: str, args: tuple[int, ...], attr: Attr) -> float | None:
        values = [value for a in args if (value := self.constant(a)) is not None]
        if not args or len(values) < len(args):
            return None
        fold = OPS[op].fold
        try:
            if op == "pow" and isinstance(attr, float):
                return float(values[0] ** attr)
            return float(fold(*values)) if fold else None
        except (ArithmeticError, ValueError, TypeError):
            return None  # log(-1), 1/0: left to the arithmetic of the machine

    def _identity(self, op: str, args: tuple[int, ...], attr: Attr) -> int | None:
        shape = self.shape_of(op, args) if OPS[op].kind == "pointwise" else None

        def keeps(position: int) -> bool:
            return self.nodes[position].shape == shape

        if op in ("add", "mul"):
            neutral = 0.0 if op == "add" else 1.0
            for this, other in (args, args[::-1]):
                if self.constant(this) == neutral and keeps(other):
                    return other
            if op == "mul" and -1.0 in (self.constant(args[0]), self.constant(args[1])):
                other = args[1] if self.constant(args[0]) == -1.0 else args[0]
                return self.neg(other) if keeps(other) else None
        elif op == "sub":
            if self.constant(args[1]) == 0.0 and keeps(args[0]):
                return args[0]
            if self.constant(args[0]) == 0.0 and keeps(args[1]):
                return self.neg(args[1])
        elif op == "div" and self.constant(args[1]) == 1.0:
            return args[0] if keeps(args[0]) else None
        elif op == "pow":
            if attr == 1.0:
                return args[0]
            if attr == 2.0:
                return self.mul(args[0], args[0])
        elif op in ("neg", "transpose") and self.nodes[args[0]].op == op:
            return self.nodes[args[0]].args[0]
        elif op == "where" and args[1] == args[2]:
            return args[1] if keeps(args[1]) else None
        elif op == "concat" and len(args) == 1:
            return args[0]
        return None

    # The arithmetic that derivatives are written in.

    def const(self, value: float) -> int:
        if math.isnan(value):
            raise ProgramError("a constant of a cell is NaN; write a number")
        return self.raw("const", (), (), float(value))

    def neg(self, a: int) -> int:
        return self.op("neg", a)

    def add(self, a: int, b: int) -> int:
        return self.op("add", a, b)

    def sub(self, a: int, b: int) -> int:
        return self.op("sub", a, b)

    def mul(self, a: int, b: int) -> int:
        return self.op("mul", a, b)

    def div(self, a: int, b: int) -> int:
        return self.op("div", a, b)

    def pow(self, a: int, exponent: float) -> int:
        return self.op("pow", a, attr=float(exponent))

    def sigmoid(self, a: int) -> int:
        return self.op("sigmoid", a)

    def compare(self, op: str, a: int, b: int) -> int:
        return self.op(op, a, b)

    def where(self, condition: int, a: int, b: int) -> int:
        return self.op("where", condition, a, b)

    def total(self, a: int) -> int:
        return self.op("total", a)

    def broadcast(self, a: int, shape: Shape) -> int:
        """A scalar as a vector; what is one already stays."""
        return a if self.nodes[a].shape or not shape else self.op("broadcast", a, shape=shape)
