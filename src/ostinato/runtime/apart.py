"""A kernel's call, apart from what torch is set to around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from ..backends.base import Bound, Gradients, Inputs, OutputGradients, Outputs, Wanted
from .dtypes import casting


def forward(bound: Bound, inputs: Inputs, training: bool) -> tuple[Outputs, Tensor | None]:
    """`Bound.forward`."""
    if inputs.x.is_cpu and not casting("cpu"):
        return bound.forward(inputs, training)
    with apart(inputs.x.device):
        return bound.forward(inputs, training)


def backward(
    bound: Bound, tape: Tensor, inputs: Inputs, output: Tensor, grads: OutputGradients, wanted: Wanted
) -> Gradients:
    """`Bound.backward`."""
    if inputs.x.is_cpu and not casting("cpu"):
        return bound.backward(tape, inputs, output, grads, wanted)
    with apart(inputs.x.device):
        return bound.backward(tape, inputs, output, grads, wanted)


@contextmanager
def apart(device: torch.device) -> Iterator[None]:
    """Autocast, which would round the products around a kernel, is off; the tensors' own GPU is the current one."""
    kind = device.type
    with (
        torch.autocast(kind, enabled=False) if casting(kind) else nullcontext(),
        torch.cuda.device(device) if kind == "cuda" else nullcontext(),
    ):
        yield
