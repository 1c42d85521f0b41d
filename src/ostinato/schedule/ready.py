"""Which values wait for which products, and what a pointwise loop loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..ir import OPS, Node
from .graph import Graph, acc_number
from .plan import Place

REDUCTIONS = ("total", "batch_mean")


def reached(graph: Graph) -> set[int]:
    """Nodes that the forward roots need, through accumulators too."""
    seen: set[int] = set()
    stack = [*graph.next_states, *(i for _, i in graph.output)]
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        node = graph.nodes[i]
        stack.extend(node.args)
        if node.op == "acc":
            stack.extend(p.operand for p in graph.accs[acc_number(node)].products)
    return seen


def reductions(graph: Graph) -> list[int]:
    """The reductions of the forward section."""
    return [i for i in sorted(reached(graph)) if graph.nodes[i].op in REDUCTIONS]


def once_for_the_step(graph: Graph) -> list[int]:
    """Values that are the same for all rows of a step, and that a row's own are computed from.

    They are pointwise functions of means over the batch and of parameters; a mean itself is none of them.
    """
    alike: set[int] = set()
    step: set[int] = set()  # those with a mean below: the others are parameters' own
    for i, n in enumerate(graph.nodes):
        if n.op == "batch_mean":
            step.add(i)
        elif n.op in ("param", "const", "size"):
            alike.add(i)
        elif OPS[n.op].kind == "pointwise" and all(a in alike or a in step for a in n.args):
            (step if any(a in step for a in n.args) else alike).add(i)
    asked = {a for i, n in enumerate(graph.nodes) if i not in step for a in n.args}
    asked |= {t for total in (*graph.state_grads, graph.input_grad) for t in total.terms}
    asked |= {*graph.next_states, *(i for _, i in graph.output)}
    return [i for i in sorted(step & asked) if graph.nodes[i].op != "batch_mean" and graph.nodes[i].shape]


class Ready:
    """The slot in which a value can first be computed.

    Slot -1 needs no product or reduction of the section; slot k comes behind the k-th round of them (from 0).
    `backward`: the section is the step's derivative, where the sums and reductions of forward lie ready.
    """

    def __init__(self, graph: Graph, backward: bool = False) -> None:
        self.graph = graph
        self.done = len(graph.acc_grads) if backward else 0  # accumulators of forward lie ready in backward
        self.reduced: frozenset[int] = frozenset(reductions(graph)) if backward else frozenset()
        self._known: dict[int, int] = {}

    def of(self, position: int) -> int:
        """The slot of a node."""
        known = self._known
        stack = [position]  # not by recursion: a step may be deeper than Python's stack
        while position not in known:
            top = stack[-1]
            below = self._waits_for(top)
            unknown = [i for i in below if i not in known]
            if unknown:
                stack += unknown
                continue
            later = bool(below) and self.graph.nodes[top].op in ("acc", *REDUCTIONS)
            known[top] = max((known[i] for i in below), default=-1) + later
            stack.pop()
        return known[position]

    def _waits_for(self, position: int) -> Sequence[int]:
        """The nodes without which it cannot be computed in this section."""
        node = self.graph.nodes[position]
        if node.op != "acc":
            return () if position in self.reduced else node.args
        number = acc_number(node)
        if number < self.done:
            return ()
        products = self.graph.accs[number].products
        return [p.operand for p in products if p.transposed or self.graph.nodes[p.operand].op != "input"]


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
