"""Running a step over a sequence: the one door between layers and backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .choose import asked, choose, say_once
from .function import Recurrence, run_eager
from .operator import recurrence_op
from .step import Step, check_params


def recurrence(
    step: Step,
    x: Tensor,
    states: Sequence[Tensor] | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Outputs [T, B, O] and final states [B, S] of a step run over x [T, B, D]; ``states=None`` starts from zeros.

    A captured graph (torch.compile, export) gets the registered operator; torch.func's transforms get the eager
    backend, which they can see through; everything else the kernel, without the dispatcher's overhead.
    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return _captured(step, x, states, params, lengths, reverse, backend)
    if torch._C._are_functorch_transforms_active():
        say_once("torch.func transforms run on the eager backend, which they can differentiate and batch")
        return run_eager(step, x, _zeros(step, x, states), params, lengths, reverse)
    if forward_ad._current_level >= 0:
        say_once("forward-mode derivatives run on the eager backend, which carries tangents")
        return run_eager(step, x, _zeros(step, x, states), params, lengths, reverse)
    check_params(step, x, params)
    kernel = choose(step, backend, x.device, x.dtype)
    if kernel is None:
        return run_eager(step, x, _zeros(step, x, states), params, lengths, reverse)
    own = params if step.direct else step.derived(params)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *(states or ()), *own)):
        found = Recurrence.apply(step, kernel, lengths, reverse, states is not None, x, *(states or ()), *own)
        return found[0], found[1:]
    result = kernel.forward(x, states, own, step.plan_sizes, lengths, reverse, False)
    return result.output, result.finals


def _zeros(step: Step, x: Tensor, states: Sequence[Tensor] | None) -> Sequence[Tensor]:
    return [x.new_zeros(x.shape[1], s) for s in step.state_sizes] if states is None else states


def _captured(
    step: Step,
    x: Tensor,
    states: Sequence[Tensor] | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    own = params if step.direct else step.derived(params)
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *(states or ()), *own))
    states = _zeros(step, x, states)
    output, finals, _ = recurrence_op(
        x, list(states), list(own), lengths, step.core_text, step.core_sizes, reverse, asked(backend), training
    )
    return output, tuple(finals)
