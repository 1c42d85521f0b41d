"""A layered layout: columns are given; order and heights are found so that edges are short and cross little."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_SWEEPS = 24


@dataclass(eq=False)
class _Place(Generic[T]):
    """An item in its column, or the passage of an edge through one."""

    item: T | None
    column: int
    height: float
    y: float = 0.0
    before: list[_Place[T]] = field(default_factory=list["_Place[T]"])
    after: list[_Place[T]] = field(default_factory=list["_Place[T]"])


@dataclass
class Layout(Generic[T]):
    """Where things stand: the centre's height of each item, and for each edge the heights at which it passes the
    columns between its ends.
    """

    y: dict[T, float]
    passages: dict[tuple[T, T], list[float]]
    height: float


def lay_out(
    columns: Sequence[Sequence[T]],
    edges: Sequence[tuple[T, T]],
    height: Callable[[T], float],
    fixed: frozenset[int] = frozenset(),
    gap: float = 14.0,
) -> Layout[T]:
    """Order each column and set heights, 0 at the top.

    Args:
        columns: the items of each column, in a first order.
        edges: from an earlier column to a later one.
        height: of an item.
        fixed: columns whose order stays.
        gap: between items of a column.

    >>> found = lay_out([["a", "b"], ["c", "d"]], [("a", "d"), ("b", "c")], lambda item: 10.0, frozenset({0}))
    >>> found.y["a"] < found.y["b"], found.y["d"] < found.y["c"]
    (True, True)
    """
    rows: list[list[_Place[T]]] = [[_Place(item, k, height(item)) for item in c] for k, c in enumerate(columns)]
    place = {p.item: p for row in rows for p in row}
    paths: dict[tuple[T, T], list[_Place[T]]] = {}
    for edge in edges:
        first, last = place[edge[0]], place[edge[1]]
        path = [_Place[T](None, k, 4.0) for k in range(first.column + 1, last.column)]
        for p in path:
            rows[p.column].append(p)
        for a, b in zip([first, *path], [*path, last], strict=True):
            a.after.append(b)
            b.before.append(a)
        paths[edge] = path
    _order(rows, fixed)
    _heights(rows, gap)
    top = min(p.y - p.height / 2 for row in rows for p in row)
    for row in rows:
        for p in row:
            p.y -= top
    bottom = max(p.y + p.height / 2 for row in rows for p in row)
    return Layout(
        {p.item: p.y for row in rows for p in row if p.item is not None},
        {edge: [p.y for p in path] for edge, path in paths.items()},
        bottom,
    )


def _order(rows: list[list[_Place[T]]], fixed: frozenset[int]) -> None:
    """Barycentres, forward and backward in turn; the order with the fewest crossings stays."""
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for k in range(len(rows)) if forward else range(len(rows) - 1, -1, -1):
            if k in fixed:
                continue
            rows[k].sort(key=_centres(rows, k, forward).__getitem__)
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    for k, row in enumerate(best):
        rows[k][:] = row


def _centres(rows: list[list[_Place[T]]], k: int, forward: bool) -> dict[_Place[T], tuple[float, int]]:
    """Where each place of a column would stand by its neighbours, and where it stands."""
    rank = {p: i / len(row) for row in rows for i, p in enumerate(row)}
    found: dict[_Place[T], tuple[float, int]] = {}
    for i, p in enumerate(rows[k]):
        near = (p.before if forward else p.after) or p.after or p.before or [p]
        found[p] = sum(rank[o] for o in near) / len(near), i
    return found


def _crossings(rows: list[list[_Place[T]]]) -> int:
    count = 0
    for left, right in pairwise(rows):
        rank = {p: i for i, p in enumerate(right)}
        ends = [rank[b] for a in left for b in sorted(a.after, key=lambda p: rank.get(p, 0)) if b in rank]
        count += sum(1 for i, a in enumerate(ends) for b in ends[i + 1 :] if a > b)
    return count


def _heights(rows: list[list[_Place[T]]], gap: float) -> None:
    """Pull each place to the mean of its neighbours, keeping order and distance."""
    for row in rows:
        y = 0.0
        for p in row:
            p.y = y + p.height / 2
            y += p.height + gap
        for p in row:
            p.y -= y / 2
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wished: list[float] = []
            weights: list[float] = []
            for k, p in enumerate(row):
                near = [*p.before, *p.after]
                below = wished[-1] + (row[k - 1].height + p.height) / 2 + gap if wished else p.y
                wished.append(sum(o.y for o in near) / len(near) if near else below)
                weights.append(0.01 if not near else 3.0 if p.item is None else 1.0)
            for p, y in zip(row, _apart(wished, weights, [p.height for p in row], gap), strict=True):
                p.y = y


def _apart(wished: list[float], weights: list[float], heights: list[float], gap: float) -> list[float]:
    """The heights nearest to those wished, in this order and not touching: blocks that meet move as one."""
    offsets = [0.0][: len(heights)]
    for a, b in pairwise(heights):
        offsets.append(offsets[-1] + (a + b) / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # weighted mean, weight, members
    for wish, weight, offset in zip(wished, weights, offsets, strict=True):
        mean, total, members = wish - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, heavy, more = blocks.pop()
            mean = (before * heavy + mean * total) / (heavy + total)
            total, members = heavy + total, more + members
        blocks.append((mean, total, members))
    base = [mean for mean, _, members in blocks for _ in range(members)]
    return [b + offset for b, offset in zip(base, offsets, strict=True)]
