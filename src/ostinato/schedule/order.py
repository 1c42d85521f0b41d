"""The order of the accumulators on the tape: what is multiplied by one operand stands together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, permutations

from .graph import Graph


def arrange(graph: Graph) -> dict[int, int]:
    """Column of each forward accumulator, such that the products split into as few runs as possible.

    Accumulators with the same operands stay together; the order of these groups is searched.
    """
    count = len(graph.acc_grads)
    groups: dict[frozenset[int], list[int]] = {}
    for acc in range(count):
        groups.setdefault(frozenset(p.operand for p in graph.accs[acc].products), []).append(acc)
    operands = set[int]().union(*groups)

    def breaks(order: Sequence[frozenset[int]]) -> int:
        total = 0
        for operand in operands:
            inside = False
            for group in order:
                total += operand in group and not inside
                inside = operand in group
        return total

    keys = sorted(groups, key=lambda g: groups[g])
    best = min(islice(permutations(keys), 5040), key=breaks, default=())
    return {acc: column for column, acc in enumerate(acc for group in best for acc in groups[group])}


def runs(members: Sequence[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """(column, matrix) pairs as stretches of neighbouring columns; a second matrix on a column starts another."""
    result: list[list[tuple[int, str]]] = []
    rest = sorted(members)
    while rest:
        run: list[tuple[int, str]] = []
        left: list[tuple[int, str]] = []
        for member in rest:
            if not run or member[0] == run[-1][0] + 1:
                run.append(member)
            else:
                left.append(member)
        result.append(run)
        rest = left
    return result
