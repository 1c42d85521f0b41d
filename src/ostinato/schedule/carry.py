"""Carry or compute again: what a loop of a step leaves for the loops behind it.

Reductions and products cut a step into loops. What one of them computed and a later one asks for again is carried in a
temporary vector if it is worth more than writing and reading that; else it is computed again from what lies ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..ir import OPS, Node
from .plan import Place, Store

_WORTH = 3  # operations; a temporary costs a store and a load
_PRICES = {"div": 4, "sqrt": 4, "pow": 8}
_DEAR = 12
_READABLE = ("temp", "col", "next")  # where what is stored stays as it is until the end of the step


@dataclass(frozen=True)
class Carried:
    """The stores of each slot, with those that carry, and what each slot finds ready because of them."""

    stores: dict[int, list[Store]]
    loads: dict[int, dict[int, Place]]


def carry(
    nodes: Sequence[Node],
    stores: Mapping[int, Sequence[Store]],
    ready: Callable[[int], Mapping[int, Place]],
    temporary: Callable[[int], Place],
) -> Carried:
    """Choose for one section of a step.

    Args:
        stores: what each slot writes.
        ready: the places of what a slot finds ready in any case.
        temporary: a place for a node.
    """
    found = {slot: list(group) for slot, group in stores.items()}
    loads: dict[int, dict[int, Place]] = {}
    first: dict[int, int] = {}  # node -> the slot that computes it
    placed: dict[int, Place] = {}  # where a node lies for the slots behind
    for slot in sorted(stores):
        lies = ready(slot)
        taken: dict[int, Place] = {}
        new: set[int] = set()
        stack = [store.node for store in stores[slot]]
        while stack:
            i = stack.pop()
            if i in lies or i in taken or i in new:
                continue
            if i in placed or (i in first and _price(nodes, i, {**lies, **placed}) > _WORTH):
                if i not in placed:
                    placed[i] = temporary(i)
                    found[first[i]].append(Store(placed[i], i))
                taken[i] = placed[i]
                continue
            new.add(i)
            stack.extend(nodes[i].args)
        loads[slot] = taken
        first.update((i, slot) for i in new if i not in first and _vector(nodes[i]))
        for store in stores[slot]:
            if store.node in new and store.place.kind in _READABLE and not store.add and not store.total:
                placed.setdefault(store.node, store.place)
    return Carried(found, loads)


def _vector(node: Node) -> bool:
    """True of what a temporary can hold: a truth value has no place."""
    return bool(node.args and node.shape) and OPS[node.op].kind != "compare"


def _price(nodes: Sequence[Node], position: int, lies: Mapping[int, Place]) -> int:
    """Operations that computing a value from what lies ready takes."""
    price = 0
    seen: set[int] = set()
    stack = [position]
    while stack and price <= _WORTH:
        i = stack.pop()
        if i in seen or i in lies or not nodes[i].shape:
            continue
        seen.add(i)
        op = nodes[i].op
        if nodes[i].args and op != "broadcast":
            price += _DEAR if OPS[op].dear else _PRICES.get(op, 1)
        stack.extend(nodes[i].args)
    return price
