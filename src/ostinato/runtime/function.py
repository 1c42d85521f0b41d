"""The one autograd function: a kernel's forward and backward; double backward through the eager backend."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor

from ..backends import eager
from ..backends.base import Bound, Wanted
from .step import Step


class Recurrence(torch.autograd.Function):
    """``outputs, *finals = Recurrence.apply(step, bound, lengths, reverse, masks, has_states, x, *states, *params)``.

    `params` are what the kernel takes (see `Step.derived`), which `bound` is bound to. Behind the final states come the
    statistics, which are not differentiated. Backward overwrites the tape; a second one runs forward again. Under
    ``create_graph=True`` the gradients come from the eager backend, which torch can differentiate, and also where many
    are asked for at once (``is_grads_batched=True``, vmap over backward).
    """

    @staticmethod
    def forward(
        ctx: Any,
        step: Step,
        bound: Bound,
        lengths: Tensor | None,
        reverse: bool,
        masks: Sequence[Tensor],
        has_states: bool,
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        count = len(step.state_sizes) if has_states else 0
        output, finals, tape = bound.forward(x, tensors[:count] if has_states else None, lengths, reverse, True, masks)
        ctx.save_for_backward(x, output, tape, *tensors)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*finals[len(step.state_sizes) :])
        ctx.step, ctx.bound, ctx.lengths, ctx.reverse, ctx.masks = step, bound, lengths, reverse, masks
        ctx.count, ctx.has_states, ctx.spent = count, has_states, False
        return output, *finals

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        x, output, tape, *tensors = ctx.saved_tensors
        grad_output, *grad_finals = grads[: 1 + len(ctx.step.state_sizes)]
        nothing = (None,) * 6
        if torch.is_grad_enabled() or any(_many(g) for g in grads if g is not None):
            return (*nothing, *_eager_gradients(ctx, x, tensors, grads))
        states = tensors[: ctx.count] if ctx.has_states else None
        params = tensors[ctx.count :]
        bound = ctx.bound.again(params)
        if ctx.spent:  # the first backward overwrote the tape
            _, _, tape = bound.forward(x, states, ctx.lengths, ctx.reverse, True, ctx.masks)
        ctx.spent = True
        needs = ctx.needs_input_grad[6:]
        wanted = Wanted(needs[0], any(needs[1 : 1 + ctx.count]), needs[1 + ctx.count :])
        found = bound.backward(
            tape, x, states, params, ctx.lengths, ctx.reverse, output, grad_output, grad_finals, wanted, ctx.masks
        )
        return (*nothing, found.x, *(found.states if ctx.has_states else ()), *found.params)


def _eager_gradients(
    ctx: Any, x: Tensor, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """The same gradients in operations that can be differentiated again, and batched."""
    step: Step = ctx.step
    needs = ctx.needs_input_grad[6:]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: connected to the inputs for the second derivative, but with no path from one input to another, whose
        # gradient the engine adds itself.
        own = [t.view_as(t) if need else t.detach() for t, need in zip((x, *tensors), needs, strict=True)]
        states = own[1 : 1 + ctx.count] if ctx.has_states else None
        output, finals = run_eager(
            step, own[0], states, own[1 + ctx.count :], ctx.lengths, ctx.reverse, ctx.masks, core=True
        )
        pairs = [(o, g) for o, g in zip((output, *finals), grads, strict=True) if g is not None and o.requires_grad]
        inputs = [t for t, need in zip(own, needs, strict=True) if need]
        if not pairs or not inputs:
            return [None] * (1 + len(tensors))
        outs, gs = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outs, inputs, gs, create_graph=again, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _many(grad: Tensor) -> bool:
    """Whether a gradient stands for a batch of them, and has no memory that a kernel could read."""
    return is_functorch_wrapped_tensor(grad) or is_legacy_batchedtensor(grad)


def run_eager(
    step: Step,
    x: Tensor,
    states: Sequence[Tensor] | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    masks: Sequence[Tensor] = (),
    core: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The eager backend on a step, or (`core`) on what is left of it behind the prologue; `masks` are those of
    what it runs. States are [1, B, S]; behind the final ones come the statistics, each [T, S].
    """
    program = step.prologue.core if core else step.program
    starts = [x.new_zeros(x.shape[1], s) for s in step.state_sizes] if states is None else [s[0] for s in states]
    kind = x.device.type
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if cast else contextlib.nullcontext():
        output, finals, statistics = eager.recurrence(
            program, x, starts, params, step.sizes, None if lengths is None else lengths.tolist(), reverse, masks
        )
    return output, (*[s.unsqueeze(0) for s in finals], *statistics)
