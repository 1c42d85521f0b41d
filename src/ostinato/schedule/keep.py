"""Keep or recompute: what backward finds on the tape.

Products and transcendental functions are dear, the rest is cheap. A dear value takes the column of an accumulator that
is not needed any more; if there is none it is recomputed from what lies ready, and only if that fails it gets a column
of its own. (A column costs more than a tanh: measured, see docs/design.md.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..ir import OPS, Program
from .graph import Graph, acc_number
from .plan import Loop, Place, Slot, Store
from .ready import REDUCTIONS, Ready, reached, reads, reductions


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
    stored: dict[int, Place],
    infer: tuple[Slot, ...],
    backward: dict[int, list[Store]],
    new_column: Callable[[str, str], int],
) -> Keep:
    """Choose for one graph; see the module. `stored` lies ready in any case: operands of products, reductions."""
    nodes = graph.nodes
    roots = [s.node for group in backward.values() for s in group]
    forward = reached(graph)
    asked = _asked_states(graph, core, _met(graph, forward, roots, stored))
    history = _history(graph, core, asked, new_column)
    loads = {**_next_values(graph, core, asked), **stored}

    met = _met(graph, forward, roots, loads)
    dear = sorted(i for i in met if nodes[i].args and i not in loads)
    raw = {acc_number(nodes[i]) for i in met if nodes[i].op == "acc"}
    slot, last_read = _forward_slots(graph, infer, ready, dear)
    taken = _take_columns(graph, ready, slot, last_read, [a for a in order if a not in raw])
    kept = {i: order[acc] for i, acc in taken.items()}
    available = {**loads, **{i: Place("col", str(c)) for i, c in kept.items()}}
    for i in dear:
        if i not in kept and not _recomputable(graph, i, available, raw, asked):
            kept[i] = new_column(nodes[i].shape[0], nodes[i].name or nodes[i].op)
            available[i] = Place("col", str(kept[i]))
    return Keep(kept, {i: slot[i] for i in kept}, history, available)


def _met(graph: Graph, forward: set[int], roots: Iterable[int], stops: Mapping[int, Place]) -> set[int]:
    """Forward values that backward meets: leaves, `stops`, and dear vectors, which are not looked into."""
    nodes = graph.nodes
    met: set[int] = set()
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        if i in forward and (i in stops or not nodes[i].args or (OPS[nodes[i].op].dear and nodes[i].shape)):
            met.add(i)
        else:
            stack.extend(nodes[i].args)
    return met


def _asked_states(graph: Graph, core: Program, met: Iterable[int]) -> set[str]:
    """States before a step that backward reads: in its loops, as the operand of a weight gradient, or as another state
    that is this one a step later.
    """
    operands = [p.operand for acc in graph.accs for p in acc.products if not p.transposed]
    asked = {str(graph.nodes[i].attr) for i in (*met, *operands) if graph.nodes[i].op == "state"}
    line = _delayed(graph, core)
    for state in tuple(asked):
        while state in line:
            state = line[state]
            asked.add(state)
    return asked


def _history(
    graph: Graph, core: Program, asked: set[str], new_column: Callable[[str, str], int]
) -> tuple[Place | None, ...]:
    """Where each state's value after a step stays: x, or another state before the step, if it is that, or the output,
    else a column of its own.
    """
    places: list[Place | None] = []
    line = _delayed(graph, core)
    for state, node in zip(core.states, graph.next_states, strict=True):
        if state not in asked:
            places.append(None)
        elif graph.nodes[node].op == "input":
            places.append(Place("x"))
        elif state in line:
            places.append(Place("prev", line[state]))
        elif graph.output == (("", node),):
            places.append(Place("out"))
        else:
            shape = graph.nodes[node].shape
            places.append(Place("col", str(new_column(shape[0] if shape else core.state_sizes[state], state))))
    return tuple(places)


def _delayed(graph: Graph, core: Program) -> dict[str, str]:
    """The states that are another one a step later, and which: delay lines, but no rings, in which nothing begins."""
    after = {s: graph.nodes[node] for s, node in zip(core.states, graph.next_states, strict=True)}
    line = {s: str(node.attr) for s, node in after.items() if node.op == "state"}

    def begins(state: str) -> bool:
        for _ in line:
            state = line.get(state, state)
        return state not in line

    return {s: other for s, other in line.items() if begins(s)}


def _next_values(graph: Graph, core: Program, asked: set[str]) -> dict[int, Place]:
    """The computed next states that stay for the step behind, and so for the step's own backward."""
    found: dict[int, Place] = {}
    for state, node in zip(core.states, graph.next_states, strict=True):
        if state in asked and graph.nodes[node].args:
            found.setdefault(node, Place("next", state))
    return found


def _take_columns(
    graph: Graph, ready: Ready, slot: Mapping[int, int], last_read: Mapping[int, int], accs: Iterable[int]
) -> dict[int, int]:
    """Dear value -> the accumulator whose column it takes; first one that it is computed from, then any.

    Args:
        slot: the slot that stores each dear value.
        last_read: the last slot that reads an accumulator.
        accs: the accumulators that backward does not read.
    """
    free = list(accs)
    leaves = _leaves(graph)
    below = {i: reads(graph.nodes, graph.nodes[i].args, leaves) for i in slot}
    sums = {i: {acc_number(graph.nodes[j]) for j in below[i] if graph.nodes[j].op == "acc"} for i in slot}

    def fits(i: int, acc: int) -> bool:
        same_size = graph.accs[acc].size == graph.nodes[i].shape[0]
        return same_size and last_read.get(acc, -1) <= slot[i] and _stands(graph, ready, acc, slot[i])

    taken: dict[int, int] = {}
    for own in (True, False):
        for i in slot:
            if i in taken:
                continue
            acc = next((a for a in free if (a in sums[i] or not own) and fits(i, a)), None)
            if acc is not None:
                taken[i] = acc
                free.remove(acc)
    return taken


def _recomputable(graph: Graph, node: int, loads: Mapping[int, Place], raw: set[int], asked: set[str]) -> bool:
    """True if backward can compute the value again: what that reads is in `loads`, `raw` or `asked`, or a parameter."""
    for i in reads(graph.nodes, graph.nodes[node].args, {**_leaves(graph), **loads}):
        leaf = graph.nodes[i]
        if leaf.op == "acc" and acc_number(leaf) not in raw:
            return False
        if leaf.op == "state" and str(leaf.attr) not in asked:
            return False
    return True


def _leaves(graph: Graph) -> dict[int, Place]:
    """Every leaf but the constants, as a place to stop at."""
    return {i: Place("leaf") for i, n in enumerate(graph.nodes) if not n.args and n.op != "const"}


def _stands(graph: Graph, ready: Ready, acc: int, slot: int) -> bool:
    """True if the accumulator has all its products when `slot` runs, so that nothing is added to what is kept."""
    node = next((i for i, n in enumerate(graph.nodes) if n.op == "acc" and acc_number(n) == acc), None)
    return node is not None and ready.of(node) <= slot


def _forward_slots(
    graph: Graph, infer: tuple[Slot, ...], ready: Ready, dear: list[int]
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
                acc = acc_number(graph.nodes[i])
                last[acc] = max(last.get(acc, -1), at)
            if graph.nodes[i].op not in REDUCTIONS:  # their operands are stores of their own, or sums where they are
                stack.extend(graph.nodes[i].args)
    for i in reductions(graph):
        (operand,) = graph.nodes[i].args
        if graph.nodes[operand].op == "acc":
            acc = acc_number(graph.nodes[operand])
            last[acc] = max(last.get(acc, -1), ready.of(i))
    return {i: first.get(i, ready.of(i)) for i in dear}, last
