"""Initial states given as tensors: numbers that every call begins with, kept by the layer and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError
from .options import InitialState
from .state import Place, StateLayout


def initial_option(given: InitialState) -> tuple[str, Any]:
    """What the option is called, and the tensors if it was given as such: those are called "fixed"."""
    return (given, None) if isinstance(given, str) else ("fixed", given)


def initial_states(given: Any, layout: StateLayout) -> list[Place]:
    """The states of each place, [1, 1, S], from tensors [S] or [num_layers * num_directions, 1, S].

    Raises:
        ShapeError: they are not as many, or not as wide, as the layer's states.
    """
    count = layout.places if layout.uniform else layout.directions

    def whole(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple([whole(part) for part in value])
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            raise ShapeError(f"initial_state holds a tensor of {value.dtype}; give floating numbers")
        exact = value.detach().to("cpu", torch.float64)
        return exact.expand(count, 1, -1) if value.dim() == 1 else exact

    like = torch.empty(0, 1, 1, dtype=torch.float64)  # stands for an input of one sequence
    try:
        return layout.take(whole(given), like, True)
    except ShapeError as error:
        raise ShapeError(f"initial_state: {error} (with B = 1, or [size] for one that all places share)") from None


def fill_initial(buffers: Sequence[Sequence[Tensor]], states: Sequence[Place]) -> None:
    """Write the states of each place, [1, 1, S], into its buffers [S]."""
    for own, place in zip(buffers, states, strict=True):
        for buffer, state in zip(own, place, strict=True):
            buffer.copy_(state[0, 0])
