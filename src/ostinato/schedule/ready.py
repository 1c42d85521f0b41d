"""Which values wait for which products, and what a pointwise loop loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..ir import Node
from .graph import Graph, acc_number
from .plan import Place


class Ready:
    """The slot in which a value can first be computed.

    Slot -1 needs no product of the section; slot k comes behind the k-th round of products (from 0). `backward`: the
    section is the step's derivative, where the sums of forward lie ready.
    """

    def __init__(self, graph: Graph, backward: bool = False) -> None:
        self.graph = graph
        self.done = len(graph.acc_grads) if backward else 0  # accumulators of forward lie ready in backward
        self._known: dict[int, int] = {}

    def of(self, position: int) -> int:
        """The slot of a node."""
        if position not in self._known:
            node = self.graph.nodes[position]
            if node.op == "acc":
                number = acc_number(node)
                waits = [
                    self.of(p.operand) + 1
                    for p in self.graph.accs[number].products
                    if p.transposed or self.graph.nodes[p.operand].op != "input"
                ]
                self._known[position] = -1 if number < self.done else max(waits, default=-1)
            else:
                self._known[position] = max((self.of(a) for a in node.args), default=-1)
        return self._known[position]


def reads(nodes: Sequence[Node], roots: Iterable[int], loads: Mapping[int, Place]) -> set[int]:
    """The values that computing `roots` loads, when what `loads` names lies ready."""
    used: set[int] = set()
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        position = stack.pop()
        if position in seen:
            continue
        seen.add(position)
        if position in loads:
            used.add(position)
        else:
            stack.extend(nodes[position].args)
    return used
