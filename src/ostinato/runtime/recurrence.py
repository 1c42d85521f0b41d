"""Running a step over a sequence: the backend is chosen here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import eager
from ..errors import BackendError
from .step import Step

CHOICES = ("auto", "c", "eager")


def check_choice(backend: str) -> None:
    """A BackendError unless `backend` is one of `CHOICES`."""
    if backend not in CHOICES:
        raise BackendError(f"there is no backend {backend!r}; choose one of {', '.join(CHOICES)}")


def recurrence(
    step: Step,
    x: Tensor,
    states: tuple[Tensor, ...] | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs [T, B, O] and final states [B, S] of a step run over x [T, B, D]."""
    sizes = dict(step.sizes)
    if states is None:
        states = tuple(x.new_zeros(x.shape[1], s) for s in step.state_sizes)
    return eager.recurrence(
        step.program, x, states, params, sizes, None if lengths is None else lengths.tolist(), reverse
    )
