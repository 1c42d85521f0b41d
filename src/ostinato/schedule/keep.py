"""Keep or recompute: what backward finds on the tape.

Products and transcendental functions are dear, the rest is cheap. A dear value takes the column of an accumulator that
is not needed any more; if there is none it is recomputed from what lies ready, and only if that fails it gets a column
of its own. (A column costs more than a tanh: measured, see docs/design.md.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir import OPS, Program
from .graph import Graph
from .plan import Loop, Place, Slot, Store
from .ready import Ready, reads


@dataclass(frozen=True)
class Keep:
    """What forward stores for backward.

    Args:
        kept: node -> column; slot: node -> the slot of the step that stores it.
        history: where each state's value after a step is found, None if backward does not ask.
        loads: where backward finds forward values.
    """

    kept: dict[int, int]
    slot: dict[int, int]
    history: tuple[Place | None, ...]
    loads: dict[int, Place]


def decide(
    graph: Graph,
    ready: Ready,
    core: Program,
    order: dict[int, int],
    operand_column: dict[int, int],
    infer: tuple[Slot, ...],
    backward: dict[int, list[Store]],
    new_column: Callable[[str, str], int],
) -> Keep:
    """Choose for one graph; see the module."""
    nodes = graph.nodes
    roots = [s.node for group in backward.values() for s in group]
    operands = [p.operand for acc in graph.accs for p in acc.products if not p.transposed]
    forward = _reached(graph)
    loads: dict[int, Place] = {n: Place("col", str(c)) for n, c in operand_column.items()}

    def visit(stops: dict[int, Place]) -> set[int]:
        """Forward values that backward meets: leaves, and the dear ones, which are not looked into."""
        met: set[int] = set()
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            if i in forward and (i in stops or OPS[nodes[i].op].dear or not nodes[i].args):
                met.add(i)
            else:
                stack.extend(nodes[i].args)
        return met

    met = visit(loads)
    asked = {str(nodes[i].attr) for i in (*met, *operands) if nodes[i].op == "state"}
    history: list[Place | None] = []
    for state, node in zip(core.states, graph.next_states, strict=True):
        place: Place | None = None
        if state in asked:
            if node == graph.output:
                place = Place("out")
            else:
                place = Place(
                    "col",
                    str(new_column(nodes[node].shape[0] if nodes[node].shape else core.state_sizes[state], state)),
                )
            if nodes[node].args:
                loads.setdefault(node, Place("next", state))
        history.append(place)
    met = visit(loads)

    dear = sorted(i for i in met if nodes[i].args and i not in loads)
    raw = {int(float(nodes[i].attr or 0)) for i in met if nodes[i].op == "acc"}
    leaf_loads = {i: Place("leaf") for i, n in enumerate(nodes) if not n.args and n.op != "const"}
    slot, raw_last = _forward_slots(graph, infer, ready, dear, leaf_loads)
    kept: dict[int, int] = {}
    free = [a for a in order if a not in raw]
    for exact in (True, False):
        for i in dear:
            if i in kept:
                continue
            below = {
                int(float(nodes[j].attr or 0)) for j in reads(nodes, nodes[i].args, leaf_loads) if nodes[j].op == "acc"
            }
            for acc in free:
                fits = graph.accs[acc].size == nodes[i].shape[0] and raw_last.get(acc, -1) <= slot[i]
                if fits and (acc in below or not exact) and _stands(graph, ready, acc, slot[i]):
                    kept[i] = order[acc]
                    free.remove(acc)
                    break
    available = {**loads, **{i: Place("col", str(c)) for i, c in kept.items()}}
    for i in dear:
        if i in kept:
            continue
        met_below = reads(nodes, nodes[i].args, {**leaf_loads, **available})
        lost = [j for j in met_below if nodes[j].op == "acc" and int(float(nodes[j].attr or 0)) not in raw]
        states = [j for j in met_below if nodes[j].op == "state" and str(nodes[j].attr) not in asked]
        if lost or states:
            kept[i] = new_column(nodes[i].shape[0], nodes[i].name or nodes[i].op)
            available[i] = Place("col", str(kept[i]))
    return Keep(kept, {i: slot[i] for i in kept}, tuple(history), available)


def _stands(graph: Graph, ready: Ready, acc: int, slot: int) -> bool:
    """True if the accumulator has all its products when `slot` runs, so that nothing is added to what is kept."""
    node = next((i for i, n in enumerate(graph.nodes) if n.op == "acc" and int(float(n.attr or 0)) == acc), None)
    return node is not None and ready.of(node) <= slot


def _reached(graph: Graph) -> set[int]:
    """Nodes that the forward roots need, through accumulators too."""
    seen: set[int] = set()
    stack = [*graph.next_states, graph.output]
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        node = graph.nodes[i]
        stack.extend(node.args)
        if node.op == "acc":
            stack.extend(p.operand for p in graph.accs[int(float(node.attr or 0))].products)
    return seen


def _forward_slots(
    graph: Graph, infer: tuple[Slot, ...], ready: Ready, dear: list[int], leaves: dict[int, Place]
) -> tuple[dict[int, int], dict[int, int]]:
    """The slot that first computes each dear value, and the last slot that reads each accumulator."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for loop in infer:
        if not isinstance(loop, Loop):
            continue
        at = max(ready.of(s.node) for s in loop.stores)
        stack = [s.node for s in loop.stores]
        seen: set[int] = set()
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            first[i] = min(first.get(i, at), at)
            if graph.nodes[i].op == "acc":
                acc = int(float(graph.nodes[i].attr or 0))
                last[acc] = max(last.get(acc, -1), at)
            stack.extend(graph.nodes[i].args)
    return {i: first.get(i, ready.of(i)) for i in dear}, last
