"""What a call means: the eager backend, which every kernel is held to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import eager
from ..backends.base import Inputs, Outputs
from .dtypes import casting
from .packed import on_padded
from .step import Step


def run_eager(step: Step, inputs: Inputs, params: Sequence[Tensor], core: bool = False) -> Outputs:
    """The eager backend on a step, or (`core`) on what is left of it behind the prologue; `params` and the masks are
    those of what it runs.
    """
    program = step.prologue.core if core else step.program
    if inputs.x.dim() == 2:
        shapes = [program.mask_shapes[mask.name] for mask in program.masks]
        return on_padded(lambda whole: run_eager(step, whole, params, core), inputs, shapes)
    x, states, lengths, reverse, masks = inputs
    starts = [x.new_zeros(x.shape[1], s) for s in step.state_sizes] if states is None else [s[0] for s in states]
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if casting(kind) else contextlib.nullcontext():
        output, finals, statistics = eager.recurrence(
            program, x, starts, params, step.sizes, None if lengths is None else lengths.tolist(), reverse, masks
        )
    return Outputs(output, tuple([s.unsqueeze(0) for s in finals]), tuple(statistics))


def reference(
    step: Step, inputs: Inputs, params: Sequence[Tensor], grads: Sequence[Tensor] | None
) -> list[Tensor | None]:
    """What a kernel has to give: the output and the final states, and, given their gradients, those of x, of the states
    where there are any, and of the parameters that a kernel takes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # copies: parameters made in inference mode could not be kept for backward
        x, *rest = [t.detach().clone().requires_grad_() for t in (inputs.x, *(inputs.states or ()), *params)]
        first = len(rest) - len(params)
        again = inputs._replace(x=x, states=None if inputs.states is None else rest[:first])
        output, finals, _ = run_eager(step, again, rest[first:], core=True)
        values = [output, *finals]
        if grads is None:
            return [value.detach() for value in values]
        pairs = [(value, grad) for value, grad in zip(values, grads, strict=True) if value.requires_grad]
        outputs, given = [value for value, _ in pairs], [grad for _, grad in pairs]
        made = torch.autograd.grad(outputs, [x, *rest], given, allow_unused=True) if pairs else ()
    return [*(value.detach() for value in values), *made]
