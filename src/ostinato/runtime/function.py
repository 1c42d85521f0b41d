"""The one autograd function: a kernel's forward and backward; double backward through the eager backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor

from ..backends.base import AT_ONCE, Bound, Inputs, OutputGradients, Wanted
from . import apart
from .choose import FAILURES, fall_back
from .meant import run_eager
from .step import Step


class Call(NamedTuple):
    """What `Recurrence` is given beside the tensors that have gradients.

    Args:
        step: the step; bound: its kernel, bound to what the kernel takes as parameters (see `Step.derived`).
        inputs: what it runs over.
        backend: that which is asked for; factors: the dtype of what is multiplied.
    """

    step: Step
    bound: Bound
    inputs: Inputs
    backend: str
    factors: torch.dtype


class Recurrence(torch.autograd.Function):
    """``output, *finals, *statistics = Recurrence.apply(call, x, *states, *params)``.

    x and the states are those of the call's inputs, here so that torch sees them. The statistics are not
    differentiated. Backward overwrites the tape; a second one runs forward again. Under ``create_graph=True`` the
    gradients come from the eager backend, which torch can differentiate, and also where many are asked for at once
    (``is_grads_batched=True``, vmap over backward), or where the kernel fails and "auto" may take the next backend.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        step, bound, inputs, *asked = call
        outputs, tape = apart.forward(bound, inputs, True)
        output, finals, statistics = outputs
        ctx.save_for_backward(x, output, tape, *tensors)
        ctx.set_materialize_grads(False)
        if statistics:
            ctx.mark_non_differentiable(*statistics)
        ctx.step, ctx.bound, ctx.asked = step, bound, asked
        # the tensors that have gradients are saved as torch wants it, which sees whether they were changed
        ctx.rest = inputs[2:]
        ctx.count = None if inputs.states is None else len(inputs.states)
        ctx.spent = False
        ctx.at_once = AT_ONCE.get()  # those that ran with forward run with backward, which is another thread's
        return output, *finals, *statistics

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        x, output, tape, *tensors = ctx.saved_tensors
        count = ctx.count or 0
        states = None if ctx.count is None else tensors[:count]
        params = tensors[count:]
        inputs = Inputs(x, states, *ctx.rest)
        if torch.is_grad_enabled() or any(_many(g) for g in grads if g is not None):
            return None, *_eager_gradients(ctx, inputs, params, grads)
        _, need, *needs = ctx.needs_input_grad
        wanted = Wanted(need, any(needs[:count]), needs[count:])
        given = OutputGradients(grads[0], grads[1 : 1 + len(ctx.step.state_sizes)])
        sharing = AT_ONCE.set(ctx.at_once)
        try:
            bound = ctx.bound.again(params)
            if ctx.spent:  # the first backward overwrote the tape
                _, tape = apart.forward(bound, inputs, True)
            ctx.spent = True
            found = apart.backward(bound, cast("Tensor", tape), inputs, output, given, wanted)
            return None, found.x, *(() if states is None else found.states), *found.params
        except FAILURES as error:
            backend, factors = ctx.asked
            fall_back(ctx.step, backend, x.device, factors, error)
        finally:
            AT_ONCE.reset(sharing)
        return None, *_eager_gradients(ctx, inputs, params, grads)  # here the error holds no memory any more


def _eager_gradients(
    ctx: Any, inputs: Inputs, params: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """The same gradients in operations that can be differentiated again, and batched."""
    again = torch.is_grad_enabled()
    needs = ctx.needs_input_grad[1:]
    tensors = (inputs.x, *(inputs.states or ()), *params)
    with torch.enable_grad():
        # Aliases: connected to the inputs for the second derivative, but with no path from one input to another, whose
        # gradient the engine adds itself.
        own = [t.view_as(t) if need else t.detach() for t, need in zip(tensors, needs, strict=True)]
        first = len(own) - len(params)
        aliases = inputs._replace(x=own[0], states=None if inputs.states is None else own[1:first])
        output, finals, _ = run_eager(ctx.step, aliases, own[first:], core=True)
        pairs = [(o, g) for o, g in zip((output, *finals), grads, strict=False) if g is not None and o.requires_grad]
        sources = [t for t, need in zip(own, needs, strict=True) if need]
        if not pairs or not sources:
            return [None] * len(tensors)
        outs, gs = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outs, sources, gs, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _many(grad: Tensor) -> bool:
    """Whether a gradient stands for a batch of them, and has no memory that a kernel could read."""
    return is_functorch_wrapped_tensor(grad) or is_legacy_batchedtensor(grad)
