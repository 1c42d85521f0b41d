"""The values of a Program: what a node is, and what a size is.

A node is one value of one step of one sequence. Its shape is a tuple of sizes: ``()`` a scalar, ``("H",)`` a vector,
``("H", "D")`` a matrix. A size is a symbol ("D", "H", "P"); a concatenation has a sum of symbols, written "D+H".
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[str, ...]
Attr = float | str | None


@dataclass(frozen=True)
class Node:
    """One value: an operation of the table `ostinato.ir.ops.OPS` on earlier nodes, given by their positions.

    Args:
        op: the operation's name.
        args: positions of the operands in the Program, all smaller than the node's own.
        shape: the sizes of the value.
        attr: a constant's value, a leaf's name, an exponent, or a slice's offset (a size).
        name: the name the value has in the cell's equations, "" if it has none.
    """

    op: str
    args: tuple[int, ...]
    shape: Shape
    attr: Attr = None
    name: str = ""


def size_sum(*sizes: str) -> str:
    """The size of a concatenation: symbols sorted, so that equal sums are equal strings."""
    parts = sorted(part for size in sizes for part in size.split("+") if part)
    return "+".join(parts)


def size_value(size: str, sizes: dict[str, int]) -> int:
    """A size in numbers: ``size_value("D+H", {"D": 3, "H": 4}) == 7``; the empty size is 0."""
    return sum(sizes[part] for part in size.split("+") if part)
