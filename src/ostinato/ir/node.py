"""The values of a Program: what a node is, and what a size is.

A node is one value of one step of one sequence. Its shape is a tuple of sizes: ``()`` a scalar, ``("H",)`` a vector,
``("H", "D")`` a matrix. A size is a symbol ("D", "H", "P") or a number in digits ("1"); a concatenation has a sum of
them, written "D+H".
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
        attr: a constant's value, a leaf's name, an exponent, a slice's offset, or the size that a number
            stands for.
        name: the name the value has in the cell's equations, "" if it has none.
    """

    op: str
    args: tuple[int, ...]
    shape: Shape
    attr: Attr = None
    name: str = ""


def size_sum(*sizes: str) -> str:
    """The size of a concatenation: numbers added, symbols sorted, so that equal sums are equal strings."""
    parts = sorted(part for size in sizes for part in size.split("+") if part)
    numbers = [int(part) for part in parts if part.isdigit()]
    return "+".join([*([str(sum(numbers))] if numbers else []), *(part for part in parts if not part.isdigit())])


def size_value(size: str, sizes: dict[str, int]) -> int:
    """A size in numbers: ``size_value("D+H", {"D": 3, "H": 4}) == 7``; the empty size is 0."""
    return sum(int(part) if part.isdigit() else sizes[part] for part in size.split("+") if part)


@dataclass(frozen=True)
class Mask:
    """Random numbers that a step is given: ``scale * Bernoulli(probability)``, drawn outside of the kernel.

    Args:
        name: of the ``mask`` leaf in the Program.
        probability: of a number that is not 0.
        scale: that number.
        locked: one draw for all steps of a sequence (variational dropout), else one for each step. A mask of the shape
            of a matrix is drawn once for a call.
    """

    name: str
    probability: float
    scale: float = 1.0
    locked: bool = False

    @property
    def expectation(self) -> float:
        """What stands in its place in evaluation; dropout's is 1, also where ``p * (1 / p)`` is rounded."""
        return 1.0 if self.probability > 0 and self.scale == 1.0 / self.probability else self.probability * self.scale


@dataclass(frozen=True)
class Statistic:
    """A mean over the batch of which a layer keeps a running mean for each step, to be used in evaluation.

    Args:
        name: the attribute of its ``batch_mean`` node; in evaluation the name of the leaf that stands in its place.
        momentum: the share of a new mean in the running one.
        length: steps for which means are kept.
        start: what they are before the first: 0 for a mean, 1 for a variance.
    """

    name: str
    momentum: float
    length: int
    start: float = 0.0
