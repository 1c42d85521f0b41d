"""States: how a stack of layers is given them and gives them back, and where their history is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError
from .checks import check_states

State = Tensor | tuple[Any, ...]
"""A tensor, a tuple of them for a cell with several states, or a tuple with one of these for each layer."""

Place = Sequence[Tensor]
"""The states of one layer in one direction, each [1, B, S]."""


def detach_state(state: Any) -> Any:
    """The same numbers without their history: here truncated backpropagation cuts (Williams & Peng 1990).

    Args:
        state: as a layer returned it, nested as it is, or None for no state.

    >>> h = torch.ones(1, 2, 3, requires_grad=True) * 2
    >>> detach_state((h, h))[0].requires_grad
    False
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple | list):
        return type(state)([detach_state(part) for part in state])
    return state


class StateLayout:
    """The states of a stack, from what a caller holds to one tuple for each layer and direction, and back.

    If all layers have states of the same names and sizes, a caller holds one tensor [num_layers * num_directions, B, S]
    for each state, as torch.nn has it; else a tuple with an entry for each layer: its states, [num_directions, B, S].

    Args:
        names, sizes: of each layer's states.
        directions: 1, or 2 for bidirectional layers.
    """

    def __init__(self, names: Sequence[Sequence[str]], sizes: Sequence[Sequence[int]], directions: int) -> None:
        self.names = [tuple(n) for n in names]
        self.sizes = [tuple(s) for s in sizes]
        self.directions = directions
        self.places = len(names) * directions  # how many layers and directions
        self.uniform = len(set(self.names)) == 1 and len(set(self.sizes)) == 1

    def take(self, state: Any, x: Tensor, batched: bool) -> list[Place]:
        """The states of each place, from what the caller gave for the input x [T, B, D].

        Raises:
            ShapeError: a number of states, shapes, dtypes or devices that do not fit.
        """
        if self.uniform:
            return self._cut(check_states(state, self.names[0], self.sizes[0], self.places, x, batched), self.places)
        if not isinstance(state, tuple | list) or len(state) != len(self.names):
            got = len(state) if isinstance(state, tuple | list) else type(state).__name__
            raise ShapeError(
                f"the layers have states of different names or sizes, got {got}; pass a tuple with the states of each "
                f"of the {len(self.names)} layers"
            )
        found: list[Place] = []
        count = self.directions
        for layer, own in enumerate(state):
            try:
                states = check_states(own, self.names[layer], self.sizes[layer], count, x, batched, "num_directions")
            except ShapeError as error:
                raise ShapeError(f"layer {layer}: {error}") from None
            found.extend(self._cut(states, self.directions))
        return found

    def give(self, finals: Sequence[Place], batched: bool) -> Any:
        """What the caller gets, from the states of each place."""
        if not batched:
            finals = [[s.squeeze(1) for s in own] for own in finals]
        if self.uniform:
            return self._join(finals)
        step = self.directions
        return tuple([self._join(finals[k : k + step]) for k in range(0, len(finals), step)])

    @staticmethod
    def _cut(states: Sequence[Tensor], count: int) -> list[Place]:
        return [states] if count == 1 else [[s[k : k + 1] for s in states] for k in range(count)]

    @staticmethod
    def _join(places: Sequence[Place]) -> Any:
        whole = places[0] if len(places) == 1 else [torch.cat(column) for column in zip(*places, strict=True)]
        return whole[0] if len(whole) == 1 else tuple(whole)
