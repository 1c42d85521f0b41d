"""Mini-batches of sequences of similar length."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["Buckets"]


class Buckets:
    """Every sequence once an epoch, in mini-batches of similar length, so that padding is rare.

    An epoch's sequences are shuffled and dealt into pools of `pool` batches; each pool is sorted by length (equal
    lengths stay shuffled) and cut into batches, whose order is shuffled. If N is no multiple of B, one batch is
    smaller; which of its pool's it is, is drawn anew each epoch, so that the cuts fall elsewhere each time.

    What an epoch holds depends on the seed and the epoch alone: a run that is resumed sees what it would have seen,
    and each of several processes may take its part of a batch, such as `rows(epoch, index)[rank::size]`.

    Args:
        lengths: `[N]` integers.
        batch_size: B.
        seed: from which the epochs are drawn.
        pool: how many batches are sorted together; more of them pad less and mix less.

    Raises:
        DataError: no sequences, or sizes below 1.

    >>> buckets = Buckets(torch.tensor([3, 9, 2, 8]), batch_size=2)
    >>> sorted(sorted(buckets.rows(0, i).tolist()) for i in range(len(buckets)))
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Tensor, batch_size: int, seed: int = 0, pool: int = 64) -> None:
        if lengths.dim() != 1 or not len(lengths):
            raise DataError(f"lengths are of shape {list(lengths.shape)}; pass [N] with N of 1 or more.")
        if batch_size < 1 or pool < 1:
            raise DataError(f"batch_size is {batch_size} and pool is {pool}; both must be 1 or more.")
        self.lengths = lengths.long()
        self.batch_size = batch_size
        self.seed = seed
        self.pool = pool
        self._drawn: tuple[int, list[Tensor]] = (-1, [])

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return (len(self.lengths) + self.batch_size - 1) // self.batch_size

    def rows(self, epoch: int, index: int) -> Tensor:
        """The numbers of the sequences in batch `index` of `epoch`, `[B]` int64; both count from 0.

        Raises:
            DataError: a batch or an epoch that there is not.
        """
        if epoch < 0 or not 0 <= index < len(self):
            raise DataError(
                f"batch {index} of epoch {epoch} asked for; epochs count from 0 and have batches 0 to {len(self) - 1}."
            )
        if epoch != self._drawn[0]:
            self._drawn = (epoch, self._draw(epoch))
        return self._drawn[1][index]

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's steps that are padding: 1 - Σ lengths / Σ over batches of B times the longest."""
        steps = sum(len(rows) * int(self.lengths[rows].max()) for rows in self._draw(epoch))
        return 1.0 - int(self.lengths.sum()) / steps if steps else 0.0

    def _draw(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[Tensor] = []
        for dealt in order.split(self.pool * self.batch_size):
            rows = dealt[self.lengths[dealt].argsort(stable=True)]
            whole, rest = divmod(len(rows), self.batch_size)
            sizes = [self.batch_size] * whole
            if rest:
                at = int(torch.randint(whole + 1, (1,), generator=generator))
                sizes.insert(at, rest)
            batches += rows.split(sizes)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
