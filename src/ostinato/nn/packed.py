"""PackedSequence in, PackedSequence out, in the same order."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ShapeError
from .state import Place


class Packed:
    """The rows of a PackedSequence, as a stack runs over them: what goes in and comes out is in the callers' order.

    Small layers wait for this: behind a kernel that has emptied the caches each operation of torch costs tens of
    microseconds, so there are few.

    Attributes:
        rows: [N, D], those of step 0, those of step 1, and so on, in each the sequences that are running.
        lengths: of the sequences, falling, int64 [B].

    Raises:
        ShapeError: data that is no [N, D], batch_sizes that do not fit it, or lengths `beside` it.
    """

    def __init__(self, given: PackedSequence, beside: Any = None) -> None:
        if beside is not None:
            raise ShapeError("lengths were given with a PackedSequence, which has its own; leave them out")
        self._given = given
        self.rows = given.data
        sizes: list[int] = given.batch_sizes.tolist()
        lengths: list[int] = []
        count, step = 0, len(sizes)
        for size in reversed(sizes):  # those that end at a step stand behind those that end later
            if size > count:
                lengths += [step] * (size - count)
                count = size
            step -= 1
        if self.rows.dim() != 2 or not lengths or sum(lengths) != self.rows.shape[0]:
            raise ShapeError(
                f"the PackedSequence has data {list(self.rows.shape)} and batch_sizes of {sum(sizes)} rows in all; "
                "give data [N, D] and falling batch_sizes of N in all, as pack_padded_sequence makes them"
            )
        self.lengths = torch.frombuffer(array("q", lengths), dtype=torch.int64)

    def like(self, x: Tensor) -> Tensor:
        """An x [0, B, D] without steps, of as many sequences as this has: what states are made for."""
        return x.new_empty(0, len(self.lengths), x.shape[-1])

    def begin(self, starts: Sequence[Place] | None) -> Sequence[Place] | None:
        """The callers' states in the order of the rows."""
        order = self._given.sorted_indices
        return starts if starts is None or order is None else _taken(starts, order)

    def end(self, finals: Sequence[Place]) -> Sequence[Place]:
        """Final states in the callers' order."""
        order = self._given.unsorted_indices
        return finals if order is None else _taken(finals, order)

    def leave(self, value: Tensor, sequence: bool) -> Any:
        """Rows over time as a PackedSequence, or (not `sequence`) the last ones [B, O] in the callers' order."""
        given = self._given
        if sequence:
            return PackedSequence(value, given.batch_sizes, given.sorted_indices, given.unsorted_indices)
        return value if given.unsorted_indices is None else value.index_select(0, given.unsorted_indices)


def _taken(places: Sequence[Place], order: Tensor) -> list[list[Tensor]]:
    return [[state.index_select(1, order) for state in place] for place in places]


def of_each(function: Callable[[Tensor], Any], output: Any) -> Any:
    """A function of an output, or of both of a pair."""
    return tuple([function(value) for value in output]) if isinstance(output, tuple) else function(output)


def leaving(batch_first: bool, batched: bool) -> Callable[[Tensor, bool], Tensor]:
    """What brings a result of a padded call, over time or (not `sequence`) the last one, into the caller's layout."""

    def leave(value: Tensor, sequence: bool) -> Tensor:
        if not sequence:
            return value if batched else value.squeeze(0)
        if batch_first:
            value = value.transpose(0, 1)
        return value if batched else value.squeeze(0 if batch_first else 1)

    return leave
