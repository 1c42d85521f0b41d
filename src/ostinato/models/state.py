"""What a recurrent layer carries from one piece of a sequence to the next."""

from __future__ import annotations

from torch import Tensor

__all__ = ["State", "detach_state"]

State = Tensor | tuple[Tensor, ...]
"""A tensor `[num_layers, B, H]`, or a tuple of them for a cell with several states."""


def detach_state(state: State | None) -> State | None:
    """The same numbers without their history: here truncated backpropagation cuts (Williams and Peng 1990).

    Args:
        state: as a layer returned it, or None for the zero state.

    >>> import torch
    >>> h = torch.ones(1, 2, 3, requires_grad=True) * 2
    >>> detach_state((h, h))[0].requires_grad
    False
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(part.detach() for part in state)
