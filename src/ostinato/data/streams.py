"""Cutting one long text into batches that keep its order."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["Streams", "Windows"]


class Streams:
    """A text as B parallel streams, read a chunk at a time, so that a state can be carried over.

    Stream b is the b-th of B equal stretches of the text. An epoch reads all streams once, in chunks of at
    most `bptt` steps whose lengths differ by at most one, so that no chunk is a short rest. Each epoch after
    the first begins at another place of the text, taken as a ring: the cuts fall elsewhere each time. Nothing
    of the text is copied but the chunk that is asked for, so it may lie on a disk.

    Args:
        tokens: the text, `[N]`, integers.
        batch_size: B.
        bptt: T, the steps through which the gradient flows.
        seed: from which the beginnings of the epochs are drawn.
        unit: what the tokens are called in errors.

    Raises:
        DataError: a text too short for B streams of T steps, or sizes below 1.
    """

    def __init__(self, tokens: Tensor, batch_size: int, bptt: int, seed: int = 0, unit: str = "characters") -> None:
        if batch_size < 1 or bptt < 1:
            raise DataError(f"batch_size is {batch_size} and bptt is {bptt}; both must be 1 or more.")
        self.tokens = tokens
        self.batch_size = batch_size
        self.bptt = bptt
        self.seed = seed
        self.length = (len(tokens) - 1) // batch_size  # steps of each stream
        if self.length < bptt:
            steps = max(0, len(tokens) - 1)
            remedy = "pass a longer text"
            if steps >= bptt:
                remedy = f"pass --batch-size {steps // bptt} or less, or a longer text"
            elif steps >= batch_size:
                remedy = f"pass --bptt {steps // batch_size} or less, or a longer text"
            raise DataError(
                f"the training text has {len(tokens)} {unit}, too few for {batch_size} streams of {bptt} "
                f"steps, which need {batch_size * bptt + 1}; {remedy}."
            )
        self.chunks_per_epoch = -(-self.length // bptt)

    @property
    def tokens_per_epoch(self) -> int:
        """How many tokens are predicted in one epoch."""
        return self.length * self.batch_size

    def chunk(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each `[T, B]` (int64), of chunk `index` of `epoch`; both count from 0."""
        if not 0 <= index < self.chunks_per_epoch:
            raise DataError(f"chunk {index} asked for; an epoch has chunks 0 to {self.chunks_per_epoch - 1}.")
        start = index * self.length // self.chunks_per_epoch
        stop = (index + 1) * self.length // self.chunks_per_epoch
        offset = self.offset(epoch)
        columns = [self._ring(offset + b * self.length + start, stop - start + 1) for b in range(self.batch_size)]
        text = torch.stack(columns, dim=1).long()  # [T + 1, B]
        return text[:-1], text[1:]

    def offset(self, epoch: int) -> int:
        """Where in the text an epoch begins; it depends on nothing but the seed and the epoch."""
        if epoch == 0:
            return 0
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return int(torch.randint(len(self.tokens), (1,), generator=generator))

    def _ring(self, begin: int, count: int) -> Tensor:
        begin %= len(self.tokens)
        piece = self.tokens[begin : begin + count]
        missing = count - len(piece)
        return torch.cat([piece, self.tokens[:missing]]) if missing else piece


class Windows:
    """The whole of a held-out tail as parallel windows, each token of it counted exactly once.

    A window's model must not start cold in the middle of a text, so each window is led by up to `warmup`
    tokens that come before it, which are read and not counted; the first one's come from the end of
    the training text.

    Args:
        context: what comes before the tail, `[M]`.
        tail: the held-out text, `[N]`.
        streams: S, how many windows.
        warmup: how many tokens are read before the first that counts; one at least, to predict it from.

    Raises:
        DataError: an empty tail, or nothing before it.
    """

    def __init__(self, context: Tensor, tail: Tensor, streams: int, warmup: int) -> None:
        if not len(tail) or not len(context):
            raise DataError(
                f"the held-out text has {len(tail)} tokens and what comes before it {len(context)}; "
                f"both need 1 or more: pass a longer text."
            )
        streams = max(1, min(streams, len(tail)))
        self.lead = max(1, min(warmup, len(context)))
        self._context = context[len(context) - self.lead :]
        self._tail = tail
        cuts = [i * len(tail) // streams for i in range(streams + 1)]
        self._windows = list(pairwise(cuts))
        self.steps = self.lead + max(b - a for a, b in self._windows) - 1

    def __len__(self) -> int:
        """S."""
        return len(self._windows)

    def piece(self, start: int, stop: int, own: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Some steps of some windows.

        Args:
            start, stop: the steps, of `self.steps`.
            own: which windows.

        Returns:
            inputs and targets, each `[T, S]` (int64), and which targets count, `[T, S]` (bool).
        """
        windows = self._windows[own]
        steps = max(0, min(stop, self.steps) - start)
        inputs = torch.zeros(steps, len(windows), dtype=torch.long)
        targets = torch.zeros_like(inputs)
        counts = torch.zeros(steps, len(windows), dtype=torch.bool)
        for s, (a, b) in enumerate(windows):
            # In a text that begins with the lead, the tail's token i is token lead + i.
            text = self._text(a + start, min(a + start + steps + 1, self.lead + b))
            used = max(0, len(text) - 1)
            inputs[:used, s] = text[:-1] if used else inputs[:0, s]
            targets[:used, s] = text[1:] if used else targets[:0, s]
            counts[max(0, self.lead - 1 - start) : used, s] = True
        return inputs, targets, counts

    def _text(self, start: int, stop: int) -> Tensor:
        before = self._context[start : max(start, min(stop, self.lead))]
        after = self._tail[max(0, start - self.lead) : max(0, stop - self.lead)]
        return torch.cat([before.long(), after.long()])
