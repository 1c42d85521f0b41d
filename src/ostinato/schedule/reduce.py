"""Reductions of the derivative, with what all that is summed shares taken out of the sum.

Σ s v = s Σ v where s is the same for all that is summed, and Σ (v - mean(v)) = 0, which a derivative of a variance asks
for. So the two sums of a normalisation's derivative, Σ dy and Σ dy (v - mean(v)), wait for nothing but dy, and are
taken in one pass. Rounding is another, so what the equations themselves say is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir import OPS, Builder, Node


class Reductions:
    """Reductions of old nodes, built anew.

    Args:
        old: the nodes that are reduced.
        new: builds what they become; convert: gives an old node's position in it.
    """

    def __init__(self, old: Sequence[Node], new: Builder, convert: Callable[[int], int]) -> None:
        self.old, self.new, self.convert = old, new, convert
        self._alike: dict[int, bool] = {}

    def of(self, reduction: Node, operand: int) -> int:
        """The reduction of an old node, in the new graph."""
        node = self.old[operand]
        if node.op == "neg":
            return self.new.neg(self.of(reduction, node.args[0]))
        if node.op == "add":
            for gone, left in (node.args[::-1], node.args):
                if self._vanishes(reduction.op, gone):
                    return self.of(reduction, left)
        if node.op in ("mul", "div"):
            for factor, left in (node.args[::-1], node.args):
                if self._shared(reduction.op, factor) and (node.op == "mul" or factor == node.args[1]):
                    return self.new.op(node.op, self.of(reduction, left), self.convert(self._scalar(factor)))
        return self.new.raw(reduction.op, (self.convert(operand),), reduction.shape, reduction.attr)

    def _scalar(self, position: int) -> int:
        """A vector of equal elements as the scalar that it was made of."""
        node = self.old[position]
        return node.args[0] if node.op == "broadcast" else position

    def _shared(self, op: str, position: int) -> bool:
        """Whether a value is the same for all that a reduction sums."""
        return self._of_the_step(position) if op == "batch_mean" else not self.old[self._scalar(position)].shape

    def _of_the_step(self, position: int) -> bool:
        """Whether it is the same for all sequences: a function of parameters and means over the batch."""
        if position not in self._alike:
            node = self.old[position]
            leaf = node.op in ("param", "const", "size", "batch_mean")
            pointwise = OPS[node.op].kind == "pointwise"
            self._alike[position] = leaf or (pointwise and all(self._of_the_step(a) for a in node.args))
        return self._alike[position]

    def _vanishes(self, op: str, position: int) -> bool:
        """Whether it is a value less its mean, by a factor."""
        node = self.old[position]
        if node.op == "neg":
            return self._vanishes(op, node.args[0])
        if node.op in ("mul", "div"):
            factor, left = node.args[::-1]
            if self._shared(op, factor) and self._vanishes(op, left):
                return True
            return node.op == "mul" and self._shared(op, left) and self._vanishes(op, factor)
        return node.op == "sub" and self._is_mean(op, *node.args)

    def _is_mean(self, op: str, value: int, mean: int) -> bool:
        node = self.old[self._scalar(mean)]
        if op == "batch_mean":
            return node.op == op and node.args == (value,)
        if node.op != "div":
            return False
        total, count = (self.old[a] for a in node.args)
        return (
            total.op == op and total.args == (value,) and count.op == "size" and (count.attr,) == self.old[value].shape
        )
