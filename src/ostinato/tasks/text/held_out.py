"""How well a model predicts text it never saw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...data import Windows
from ...models import IGNORED
from ...training.task import WHOLE, Share

__all__ = ["HeldOut"]

_STREAMS = 64  # windows read side by side
_WARMUP = 256  # tokens each window reads before those that count
_SHORTEST = 1024  # a window counts no fewer, lest most of the work be warming up
_STEPS = 128  # time steps read at once


class HeldOut:
    """The held-out tail of a text; every token of it counts exactly once, with its past carried over.

    Args:
        context: tokens that come before the tail, `[M]`.
        tail: the held-out tokens, `[N]`.
    """

    def __init__(self, context: Tensor, tail: Tensor) -> None:
        self.tokens = len(tail)
        self.windows = Windows(context, tail, max(1, min(_STREAMS, len(tail) // _SHORTEST)), _WARMUP)

    def nats(
        self, model: nn.Module, share: Share = WHOLE, should_stop: Callable[[], bool] = lambda: False
    ) -> float | None:
        """The mean of `-log p(token | its past)`, in nats; None where `should_stop` said so midway.

        Args:
            model: a `LanguageModel` in evaluation mode, on any device, without gradients.
            share: which of the windows this process reads; the sums of all are put together.
            should_stop: asked now and then.
        """
        device = next(model.parameters()).device
        total = torch.zeros((), dtype=torch.float64)
        state = None
        own = share.of(len(self.windows))
        for start in range(0, self.windows.steps if own.start < own.stop else 0, _STEPS):
            if should_stop():
                return None
            inputs, targets, counts = self.windows.piece(start, start + _STEPS, own)
            targets[~counts] = IGNORED
            scored = model(inputs.to(device), state, targets.to(device))
            state = scored.state
            total += scored.nll.double().cpu()
        return float(share.summed(total.to(device))) / self.tokens
