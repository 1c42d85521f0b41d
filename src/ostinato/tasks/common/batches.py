"""Batches of sequences for the loop: by length, in shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ...data import Buckets
from ...training.task import Batch, Share

__all__ = ["RowBatches", "in_order"]

B = TypeVar("B", bound=Batch)


class RowBatches(Generic[B]):
    """The training part in batches of sequences of similar length.

    Args:
        lengths: of the sequences, [N].
        batch_size: sequences in a batch.
        seed: from which the epochs are drawn.
        collate: makes a part of a batch of the numbers of its own sequences, [b], and of the whole batch's, [B]: what
            is seen and weighed is the whole. The part may be empty.
    """

    def __init__(self, lengths: Tensor, batch_size: int, seed: int, collate: Callable[[Tensor, Tensor], B]) -> None:
        self.buckets = Buckets(lengths, batch_size, seed)
        self.collate = collate

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.buckets)

    def get(self, epoch: int, index: int, share: Share) -> B:
        """A part of a batch."""
        rows = self.buckets.rows(epoch, index)
        return self.collate(rows[share.of(len(rows))], rows)


def in_order(lengths: Tensor, share: Share, batch_size: int = 128) -> Iterator[Tensor]:
    """The numbers of a share of the sequences, in batches of similar length; for evaluation, where order is nothing."""
    rows = torch.argsort(lengths, stable=True)[share.index :: share.count]
    yield from rows.split(batch_size) if len(rows) else ()
