"""Splitting rows for training, validation and test: by class, in folds, or at the end of a stream."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["FewExamples", "folds", "split_by_class", "split_rows", "split_tails"]


class FewExamples(UserWarning):
    """Classes have too few examples to be in every part."""


def split_by_class(labels: Sequence[Hashable], shares: Sequence[float], seed: int = 0) -> tuple[Tensor, ...]:
    """Rows in parts of these shares, each class shared out alike.

    A class of n examples gives each part its share of n, rounded so that they sum to n and, if there are enough, one
    at least to each part. A class with fewer examples than parts gives them to the first parts and is warned of.

    Args:
        labels: one a row, N of them.
        shares: of the parts, such as (0.7, 0.15, 0.15); they sum to 1.
        seed: from which the rows are drawn.

    Returns:
        A tensor of row numbers for each part, rising, int64; each row is in one.

    Raises:
        DataError: no rows, or shares that do not sum to 1.

    Warns:
        FewExamples: names the classes with fewer examples than parts.

    >>> train, test = split_by_class(["a", "b"] * 4, (0.75, 0.25))
    >>> len(train), len(test)
    (6, 2)
    """
    _check(shares, len(labels))
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[int]] = [[] for _ in shares]
    members = _members(labels)
    _warn_of_few(members, len(shares), "parts")
    for rows in members.values():
        shuffled = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
        for part, count in zip(parts, _counts(len(rows), shares), strict=True):
            part += shuffled[:count]
            del shuffled[:count]
    return tuple(torch.tensor(sorted(part), dtype=torch.int64) for part in parts)


def split_rows(count: int, shares: Sequence[float], seed: int = 0) -> tuple[Tensor, ...]:
    """Row numbers 0 to `count` - 1 in parts of these shares, drawn by a seed, where there are no classes."""
    return split_by_class([0] * count, shares, seed)


def folds(labels: Sequence[Hashable], count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """K folds, each class dealt out alike: for each fold the rows to learn from and the rows to report on.

    Args:
        labels: one a row, N of them.
        count: K, 2 to N.
        seed: from which the rows are drawn.

    Returns:
        K pairs of row numbers, rising, int64; each row is in the second half of one pair.

    Raises:
        DataError: fewer than 2 folds, or more than rows.

    Warns:
        FewExamples: names the classes with fewer examples than folds.
    """
    if not 2 <= count <= len(labels):
        raise DataError(f"{count} folds of {len(labels)} rows were asked for; pass 2 or more, and no more than rows.")
    generator = torch.Generator().manual_seed(seed)
    members = _members(labels)
    _warn_of_few(members, count, "folds")
    dealt = torch.empty(len(labels), dtype=torch.int64)
    turn = 0  # goes on from class to class, so that folds differ by one row at most
    for rows in members.values():
        for i in torch.randperm(len(rows), generator=generator).tolist():
            dealt[rows[i]] = turn % count
            turn += 1
    return [((dealt != k).nonzero().flatten(), (dealt == k).nonzero().flatten()) for k in range(count)]


def split_tails(count: int, shares: Sequence[float]) -> tuple[slice, ...]:
    """A stream of `count` steps cut into parts of these shares, in their order: what is later is held out.

    Raises:
        DataError: shares that do not sum to 1, or a part without steps.

    >>> split_tails(10, (0.7, 0.3))
    (slice(0, 7, None), slice(7, 10, None))
    """
    _check(shares, count)
    ends = [0]
    for share in shares:
        ends.append(round(sum(shares[: len(ends) - 1]) * count + share * count))
    ends[-1] = count
    for n, (start, stop) in enumerate(pairwise(ends)):
        if stop <= start:
            raise DataError(
                f"part {n + 1} of {count} steps, a share of {shares[n]}, has no steps; pass a longer stream."
            )
    return tuple(slice(start, stop) for start, stop in pairwise(ends))


def _check(shares: Sequence[float], count: int) -> None:
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"the shares are {tuple(shares)}; pass numbers above 0 that sum to 1, such as (0.8, 0.2).")
    if count < 1:
        raise DataError("there are no rows to split; pass one or more.")


def _members(labels: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = {label: [] for label in sorted(set(labels), key=str)}
    for row, label in enumerate(labels):
        members[label].append(row)
    return members


def _warn_of_few(members: dict[Hashable, list[int]], parts: int, word: str) -> None:
    few = {label: len(rows) for label, rows in members.items() if len(rows) < parts}
    if few:
        listed = ", ".join(f"{label!r} ({n})" for label, n in Counter(few).most_common()[::-1][:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        warnings.warn(
            f"classes with fewer examples than there are {word} ({parts}) are not in each: {listed}{more}; collect "
            "more of them, or leave them out.",
            FewExamples,
            stacklevel=3,
        )


def _counts(n: int, shares: Sequence[float]) -> list[int]:
    """How many of n each part gets: rounded shares that sum to n, one at least where n is enough."""
    counts = [int(n * share) for share in shares]
    # The largest remainders get what is left.
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - n * shares[i])
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    if n < len(shares):
        return [1] * n + [0] * (len(shares) - n)
    for i, count in enumerate(counts):
        if count == 0:
            counts[counts.index(max(counts))] -= 1
            counts[i] = 1
    return counts
