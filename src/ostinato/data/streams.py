"""Cutting one long text into batches that keep its order."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..errors import DataError

__all__ = ["Streams", "split_tail", "warm_windows"]


def split_tail(text: str, fraction: float = 0.1) -> tuple[str, str]:
    """The text without its last part, and that part, held out.

    Raises:
        DataError: a fraction outside (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"the held-out fraction is {fraction}; pass a number between 0 and 1, such as 0.1.")
    cut = int(len(text) * (1.0 - fraction))
    return text[:cut], text[cut:]


class Streams:
    """A text as B parallel streams, read a chunk at a time, so that a state can be carried over.

    Stream b is the b-th of B equal stretches of the text. An epoch reads all streams once, in chunks of at
    most `bptt` steps whose lengths differ by at most one, so that no chunk is a short rest. Each epoch after
    the first begins at another place of the text, taken as a ring: the cuts fall elsewhere each time.

    Args:
        tokens: the text, `[N]`, integers.
        batch_size: B.
        bptt: T, the steps through which the gradient flows.
        seed: from which the beginnings of the epochs are drawn.

    Raises:
        DataError: a text too short for B streams of T steps, or sizes below 1.
    """

    def __init__(self, tokens: Tensor, batch_size: int, bptt: int, seed: int = 0) -> None:
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
                f"the training text has {len(tokens)} characters, too few for {batch_size} streams of {bptt} "
                f"steps, which need {batch_size * bptt + 1}; {remedy}."
            )
        self.chunks_per_epoch = -(-self.length // bptt)
        self._epoch = -1
        self._inputs = self._targets = tokens

    @property
    def characters_per_epoch(self) -> int:
        """How many characters are predicted in one epoch."""
        return self.length * self.batch_size

    def chunk(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each `[T, B]` (int64), of chunk `index` of `epoch`; both count from 0."""
        if not 0 <= index < self.chunks_per_epoch:
            raise DataError(f"chunk {index} asked for; an epoch has chunks 0 to {self.chunks_per_epoch - 1}.")
        if epoch != self._epoch:
            self._turn_to(epoch)
        start = index * self.length // self.chunks_per_epoch
        stop = (index + 1) * self.length // self.chunks_per_epoch
        return self._inputs[start:stop].long(), self._targets[start:stop].long()

    def offset(self, epoch: int) -> int:
        """Where in the text an epoch begins; it depends on nothing but the seed and the epoch."""
        if epoch == 0:
            return 0
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return int(torch.randint(len(self.tokens), (1,), generator=generator))

    def _turn_to(self, epoch: int) -> None:
        size = self.length * self.batch_size
        ring = torch.roll(self.tokens, -self.offset(epoch)) if epoch else self.tokens
        self._inputs = ring[:size].view(self.batch_size, self.length).t().contiguous()  # [L, B]
        self._targets = ring[1 : size + 1].view(self.batch_size, self.length).t().contiguous()
        self._epoch = epoch


def warm_windows(context: Tensor, tail: Tensor, streams: int, warmup: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole of a held-out tail as parallel windows, each character of it counted exactly once.

    A window's model must not start cold in the middle of a text, so each window is led by up to `warmup`
    characters that come before it, which are read and not counted; the first one's come from the end of
    the training text.

    Args:
        context: what comes before the tail, `[M]`.
        tail: the held-out text, `[N]`.
        streams: S, how many windows.
        warmup: how many characters are read before the first that counts; one at least, to predict it from.

    Returns:
        inputs and targets, each `[L, S]` (int64), and which targets count, `[L, S]` (bool): N of them.

    Raises:
        DataError: an empty tail, or nothing before it.
    """
    if not len(tail) or not len(context):
        raise DataError(
            f"the held-out text has {len(tail)} characters and what comes before it {len(context)}; "
            f"both need 1 or more: pass a longer text."
        )
    streams = max(1, min(streams, len(tail)))
    lead = max(1, min(warmup, len(context)))
    text = torch.cat([context[len(context) - lead :], tail]).long()
    cuts = [i * len(tail) // streams for i in range(streams + 1)]
    longest = max(b - a for a, b in pairwise(cuts))
    steps = lead + longest - 1
    inputs = torch.zeros(steps, streams, dtype=torch.long)
    targets = torch.zeros(steps, streams, dtype=torch.long)
    counts = torch.zeros(steps, streams, dtype=torch.bool)
    for s, (a, b) in enumerate(pairwise(cuts)):
        piece = text[a : lead + b]  # the tail's character i is text[lead + i]
        used = len(piece) - 1
        inputs[:used, s] = piece[:-1]
        targets[:used, s] = piece[1:]
        counts[lead - 1 : used, s] = True
    return inputs, targets, counts
