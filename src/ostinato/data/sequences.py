"""Sequences of unequal lengths, kept without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["Sequences"]

_ROWS = (torch.float32, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Sequences:
    """N sequences of unequal lengths, stored one behind another.

    Args:
        values: the steps of all, `[S]` integer tokens, or `[S, D]` numbers (float32) or integers (words with their
            spelling); S is the sum of the lengths.
        lengths: how many steps each has, `[N]` int64, each 0 or more.

    Raises:
        DataError: shapes or dtypes other than these, or lengths that do not sum to S.

    >>> texts = Sequences.of([torch.tensor([5, 6, 7]), torch.tensor([8])])
    >>> len(texts), texts[1]
    (2, tensor([8]))
    >>> batch, lengths = texts.padded([1, 0])
    >>> batch.tolist(), lengths.tolist()  # time first: [T, B]
    ([[8, 5], [0, 6], [0, 7]], [1, 3])
    """

    values: Tensor
    lengths: Tensor
    _starts: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values, lengths = self.values, self.lengths
        if lengths.dim() != 1 or lengths.dtype != torch.int64:
            raise DataError(f"lengths are {_shown(lengths)}; pass [N] int64.")
        if values.dim() == 1 and (values.is_floating_point() or values.dtype == torch.bool):
            raise DataError(f"values are {_shown(values)}; tokens are integers. Pass numbers as [S, 1] float32.")
        if values.dim() not in (1, 2) or (values.dim() == 2 and values.dtype not in _ROWS):
            raise DataError(f"values are {_shown(values)}; pass [S] integers, or [S, D] float32, int32 or int64.")
        if len(lengths) and int(lengths.min()) < 0:
            n = int(lengths.argmin())
            raise DataError(f"lengths[{n}] = {int(lengths[n])}; a length is 0 or more.")
        total = int(lengths.sum())
        if total != len(values):
            raise DataError(f"the lengths sum to {total}, but there are {len(values)} steps; they must be equal.")
        object.__setattr__(self, "_starts", lengths.cumsum(0) - lengths)

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> Sequences:
        """From one tensor a sequence, each `[T_n]` or `[T_n, D]`; at least one, all of one kind and one D.

        Raises:
            DataError: none at all, or kinds that differ.
        """
        if not sequences:
            raise DataError("there are no sequences; pass one or more.")
        first = sequences[0]
        for n, one in enumerate(sequences):
            if one.shape[1:] != first.shape[1:] or one.dim() != first.dim() or one.dtype != first.dtype:
                raise DataError(
                    f"sequence {n} is {_shown(one)}, but sequence 0 is {_shown(first)}; all must be [T_n] of one "
                    "dtype, or all [T_n, D] of one D."
                )
        return cls(torch.cat(list(sequences)), torch.tensor([len(one) for one in sequences]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, n: int) -> Tensor:
        """Sequence n, `[T_n]` or `[T_n, D]`, a view; counts from the end where n is negative."""
        if not -len(self) <= n < len(self):
            raise IndexError(f"sequence {n} asked for; there are {len(self)}")
        start = int(self._starts[n])
        return self.values[start : start + int(self.lengths[n])]

    def take(self, rows: Tensor | Sequence[int]) -> Sequences:
        """The sequences of these numbers, in this order; a number may come twice."""
        rows = self._checked(rows)
        return Sequences(self.values[self._where(rows)], self.lengths[rows])

    def padded(self, rows: Tensor | Sequence[int] | None = None, fill: float = 0) -> tuple[Tensor, Tensor]:
        """These sequences side by side, time first.

        Args:
            rows: their numbers, `[B]`; None means all.
            fill: what stands behind the end of the shorter ones.

        Returns:
            The batch, `[T, B]` (of the values' dtype) or `[T, B, D]`, T the longest of them, and their lengths
            `[B]` int64.
        """
        rows = self._checked(range(len(self)) if rows is None else rows)
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 0
        step = torch.arange(longest)[:, None]  # [T, 1]
        behind = step >= lengths  # [T, B]
        where = (self._starts[rows] + step).masked_fill_(behind, 0)
        batch = self.values.index_select(0, where.flatten()).view(longest, len(rows), *self.values.shape[1:])
        if len(rows) and int(lengths.min()) < longest:
            batch.masked_fill_(behind if batch.dim() == 2 else behind.unsqueeze(2), fill)
        return batch, lengths

    def _where(self, rows: Tensor) -> Tensor:
        """Where the steps of these sequences lie in `values`, one sequence behind another."""
        lengths = self.lengths[rows]
        firsts = self._starts[rows] - (lengths.cumsum(0) - lengths)
        return torch.arange(int(lengths.sum())) + firsts.repeat_interleave(lengths)

    def _checked(self, rows: Tensor | Sequence[int]) -> Tensor:
        rows = torch.as_tensor(rows, dtype=torch.int64)
        if rows.dim() != 1:
            raise DataError(f"rows are of shape {list(rows.shape)}; pass [B] numbers.")
        outside = rows[(rows < 0) | (rows >= len(self))]
        if len(outside):
            raise DataError(f"sequence {int(outside[0])} asked for; there are {len(self)}, numbered from 0.")
        return rows


def _shown(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
