"""Sequences in windows, each with some steps before it that are read and do not count; and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data import Buckets, Sequences
from ...training.task import WHOLE, Share
from ..common.batches import in_order
from .scheme import Part

__all__ = ["Piece", "WindowBatches", "Windows"]

_EVALUATED = 64  # windows read side by side


@dataclass(frozen=True)
class Piece:
    """Some windows side by side.

    Args:
        inputs: [T, B] or [T, B, D].
        answers: [T, B] or [T, B, K]; None: not known.
        where: which step of the part each is, [T, B]; -1 where it does not count.
        lengths: [B].
        seen: how many steps count in the whole batch.
    """

    inputs: Tensor
    answers: Tensor | None
    where: Tensor
    lengths: Tensor
    seen: int

    @property
    def weight(self) -> float:
        """Each step is a term of the loss."""
        return float(self.seen)

    def to(self, device: torch.device) -> Piece:
        """The same on a device; lengths stay."""
        answers = None if self.answers is None else self.answers.to(device)
        return Piece(self.inputs.to(device), answers, self.where.to(device), self.lengths, self.seen)

    def counted(self, values: Tensor) -> Tensor:
        """Of [T, B, ...] the steps that count, [n, ...]."""
        return values[self.where >= 0]


class Windows:
    """A part cut so that every step counts exactly once.

    Args:
        part: the sequences; empty ones have no windows.
        size: steps that count in each window, the last of a sequence may be shorter; None: whole sequences.
        before: steps that are read before them, where there are any.
        behind: steps that are read behind them.
    """

    def __init__(self, part: Part, size: int | None = None, before: int = 0, behind: int = 0) -> None:
        self.part = part
        cuts: list[tuple[int, int, int, int, int]] = []  # sequence, first read, first counted, and their ends
        for n, length in enumerate(part.inputs.lengths.tolist()):
            step = size or max(length, 1)
            for start in range(0, length, step):
                stop = min(start + step, length)
                cuts.append((n, max(0, start - before), start, stop, min(length, stop + behind)))
        table = torch.tensor(cuts, dtype=torch.int64).reshape(-1, 5)
        starts = part.inputs.lengths.cumsum(0) - part.inputs.lengths
        base = starts[table[:, 0]] if len(table) else table[:, 0]
        self.read_from, self.read_to = base + table[:, 1], base + table[:, 4]
        self.count_from, self.count_to = base + table[:, 2], base + table[:, 3]

    def __len__(self) -> int:
        return len(self.read_from)

    @property
    def lengths(self) -> Tensor:
        """Steps that are read, [W]."""
        return self.read_to - self.read_from

    def piece(self, own: Tensor, whole: Tensor | None = None) -> Piece:
        """Windows by their numbers.

        Args:
            own: which, [b]; may be empty.
            whole: those of the whole batch, [B]; None: these.
        """
        lengths = self.lengths[own]
        longest = int(lengths.max()) if len(own) else 0
        step = torch.arange(longest)[:, None] + self.read_from[own]  # [T, b], of the part
        inside = step < self.read_to[own]
        read = torch.where(inside, step, 0)
        counts = (step >= self.count_from[own]) & (step < self.count_to[own])
        whole = own if whole is None else whole
        answers = self.part.answers
        return Piece(
            _gathered(self.part.inputs, read, inside),
            None if answers is None else _gathered(answers, read, inside),
            torch.where(counts, step, -1),
            lengths,
            int((self.count_to - self.count_from)[whole].sum()),
        )

    def pieces(self, share: Share = WHOLE) -> Iterator[Piece]:
        """All windows of a share, in batches of similar length; for evaluation, where order is nothing."""
        for rows in in_order(self.lengths, share, _EVALUATED):
            yield self.piece(rows)


class WindowBatches:
    """The training part in batches of windows.

    Args:
        windows: of the training part.
        batch_size: windows in a batch.
        seed: from which the epochs are drawn.
        transpose: shift the columns of inputs and answers by up to so many, drawn anew for each window.
        gain: multiply the inputs of a window by 1 - gain to 1 + gain, drawn anew for each.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, transpose: int = 0, gain: float = 0.0) -> None:
        self.windows, self.seed = windows, seed
        self.transpose, self.gain = transpose, gain
        self.buckets = Buckets(windows.lengths, batch_size, seed)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.buckets)

    def get(self, epoch: int, index: int, share: Share) -> Piece:
        """A part of a batch; what is drawn for it depends on the seed and its place alone."""
        rows = self.buckets.rows(epoch, index)
        part = share.of(len(rows))
        piece = self.windows.piece(rows[part], rows)
        if not self.transpose and not self.gain:
            return piece
        place = epoch * len(self) + index
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + 7919 * place + 1) % 2**63)
        drawn = torch.rand(len(rows), 2, generator=generator)[part]
        if self.gain:
            piece = replace(piece, inputs=piece.inputs * (1.0 + self.gain * (2.0 * drawn[:, :1] - 1.0)))  # [T, b, D]
        return _transposed(piece, drawn[:, 1], self.transpose) if self.transpose else piece


def _gathered(sequences: Sequences, step: Tensor, inside: Tensor) -> Tensor:
    values = sequences.values[step]  # [T, b] or [T, b, D]
    return values * (inside if values.dim() == 2 else inside[..., None]).to(values.dtype)


def _transposed(piece: Piece, drawn: Tensor, most: int) -> Piece:
    """Each window shifted by a number of keys from -most to most, or as far as no note falls off the keyboard."""
    assert piece.answers is not None
    inputs, answers = piece.inputs.clone(), piece.answers.clone()
    for b, share in enumerate(drawn.tolist()):
        used = ((inputs[:, b] != 0).any(0) | (answers[:, b] != 0).any(0)).nonzero().flatten()  # keys
        if not len(used):
            continue
        low = max(-most, -int(used[0]))
        high = min(most, inputs.shape[2] - 1 - int(used[-1]))
        shift = low + int(share * (high - low + 1))
        inputs[:, b], answers[:, b] = inputs[:, b].roll(shift, 1), answers[:, b].roll(shift, 1)
    return replace(piece, inputs=inputs, answers=answers)
