"""How well a model predicts text it never saw."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data import warm_windows
from ...models import State
from ...training.task import WHOLE, Share

__all__ = ["HeldOut"]

_STREAMS = 64  # windows read side by side
_WARMUP = 256  # characters each window reads before those that count
_SHORTEST = 1024  # a window counts no fewer, lest most of the work be warming up
_STEPS = 128  # time steps whose logits are held at once


class HeldOut:
    """The held-out tail of a text; every character of it counts exactly once, with its past carried over.

    Args:
        context: tokens that come before the tail, `[M]`.
        tail: the held-out tokens, `[N]`.
    """

    def __init__(self, context: Tensor, tail: Tensor) -> None:
        self.characters = len(tail)
        streams = max(1, min(_STREAMS, len(tail) // _SHORTEST))
        self.inputs, self.targets, self.counts = warm_windows(context, tail, streams, _WARMUP)

    def nats(
        self, model: nn.Module, share: Share = WHOLE, should_stop: Callable[[], bool] = lambda: False
    ) -> float | None:
        """The mean of `-log p(character | its past)`, in nats; None where `should_stop` said so midway.

        Args:
            model: in evaluation mode, called as `model(tokens [T, B], state) -> (logits [T, B, V], state)`, on any
                device, without gradients.
            share: which of the windows this process reads; the sums of all are put together.
            should_stop: asked now and then.
        """
        device = next(model.parameters()).device
        total = torch.zeros((), dtype=torch.float64, device=device)
        state: State | None = None
        own = share.of(self.inputs.shape[1])
        inputs, targets, counts = (x[:, own] for x in (self.inputs, self.targets, self.counts))
        for start in range(0, len(inputs), _STEPS):
            if should_stop():
                return None
            piece = slice(start, start + _STEPS)
            logits, state = model(inputs[piece].to(device), state)
            losses = F.cross_entropy(logits.flatten(0, 1), targets[piece].to(device).flatten(), reduction="none")
            total += losses[counts[piece].to(device).flatten()].double().sum()
        return float(share.summed(total)) / self.characters
