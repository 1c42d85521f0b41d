"""The registered torch operator, so that torch.compile and torch.export pass through a layer without a break.

    ostinato::recurrence(x, states, params, masks, lengths, program, sizes, reverse, backend, half, tape)
        -> (output, final states and behind them the statistics, tape)
    ostinato::recurrence_backward(...) -> (gradient of x, of the states, of the parameters)

`program` is the core of a step as JSON and `params` are what it takes (see `Step.derived`); states and their gradients
are [1, B, S]. A graph that holds the operator needs nothing else to run. `half`: what is multiplied is rounded to
bfloat16. `tape` says how many values the tape has (0: there is no backward), so that a graph that was stored says it
too. The tape is opaque; on the eager backend backward runs forward again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from ..backends.base import Wanted
from ..errors import ShapeError
from ..ir import Program
from .choose import choose
from .function import run_eager
from .step import Step, check_masks, check_params


@lru_cache(maxsize=256)
def _program(text: str) -> Program:
    return Program.from_json(json.loads(text))


@lru_cache(maxsize=256)
def step_of(text: str, sizes: tuple[int, ...]) -> Step:
    """The step that an operator's arguments name."""
    program = _program(text)
    return Step(program, dict(zip(program.symbols, sizes, strict=True)))


def _check_inputs(
    step: Step, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], masks: Sequence[Tensor]
) -> None:
    """What an operator is called with directly was checked by no layer."""
    if not step.direct:
        raise ShapeError(
            f"the program {step.program.name} computes with its parameters before the sequence; give the operator the "
            "core of a step and what it takes (`Step.core_text`, `Step.derived`), or call a layer"
        )
    check_params(step, x, params)
    check_masks(step, x, masks)
    width = step.sizes[step.program.input_size]
    if x.dim() != 3 or x.shape[2] != width:
        raise ShapeError(f"x has shape {list(x.shape)}; give [T, B, {width}]")
    for state, size in zip(states, step.state_sizes, strict=True):
        if tuple(state.shape) != (1, x.shape[1], size) or state.dtype != x.dtype or state.device != x.device:
            raise ShapeError(f"a state is {state.dtype} {list(state.shape)}; give {x.dtype} [1, {x.shape[1]}, {size}]")


def _checked(lengths: Tensor | None, steps: int, batch: int) -> Tensor | None:
    """Lengths that no kernel can run past the end with; a captured graph meets their values only here."""
    if lengths is None:
        return None
    lengths = lengths.to("cpu", torch.int64).contiguous()
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        raise ShapeError(
            f"lengths has shape {list(lengths.shape)}, but the batch has {batch} sequences; give [{batch}]"
        )
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ShapeError(
            f"lengths are between {int(lengths.min())} and {int(lengths.max())}; pass 0 <= lengths <= T = {steps}"
        )
    return lengths


@torch.library.custom_op("ostinato::recurrence", mutates_args=())
def recurrence_op(
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    program: str,
    sizes: Sequence[int],
    reverse: bool,
    backend: str,
    half: bool,
    tape: int,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """See the module."""
    step = step_of(program, tuple(sizes))
    lengths = _checked(lengths, x.shape[0], x.shape[1])
    _check_inputs(step, x, states, params, masks)
    kernel = choose(step, backend, x.device, torch.bfloat16 if half else x.dtype)
    if kernel is None:
        output, finals = run_eager(step, x, states, params, lengths, reverse, masks)
        return output.clone(memory_format=torch.contiguous_format), [s.clone() for s in finals], x.new_empty(tape)
    output, finals, made = kernel.bind(params, step.plan_sizes).forward(
        x, states, lengths, reverse, tape > 0, masks
    )
    return output.contiguous(), list(finals), x.new_empty(0) if made is None else made


@recurrence_op.register_fake
def _(
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    program: str,
    sizes: Sequence[int],
    reverse: bool,
    backend: str,
    half: bool,
    tape: int,
) -> tuple[Tensor, list[Tensor], Tensor]:
    step = step_of(program, tuple(sizes))
    output = x.new_empty((x.shape[0], x.shape[1], step.output_size))
    finals = [x.new_empty((1, x.shape[1], n)) for n in step.state_sizes]
    return output, [*finals, *(x.new_empty((x.shape[0], n)) for n in step.statistic_sizes)], x.new_empty(tape)


@torch.library.custom_op("ostinato::recurrence_backward", mutates_args=())
def recurrence_backward_op(
    tape: Tensor,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    program: str,
    sizes: Sequence[int],
    reverse: bool,
    backend: str,
    half: bool,
    output: Tensor,
    grad_output: Tensor,
    grad_finals: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """See the module."""
    step = step_of(program, tuple(sizes))
    lengths = _checked(lengths, x.shape[0], x.shape[1])
    _check_inputs(step, x, states, params, masks)
    kernel = choose(step, backend, x.device, torch.bfloat16 if half else x.dtype)
    if kernel is not None:
        bound = kernel.bind(params, step.plan_sizes)
        if tape.numel() < step.tape_values(x.shape[0], x.shape[1]):
            # the graph was captured for inference
            _, _, whole_tape = bound.forward(x, states, lengths, reverse, True, masks)
        else:
            whole_tape = tape.clone()  # the kernel overwrites it, and an operator may not
        found = bound.backward(
            cast("Tensor", whole_tape),
            x,
            states,
            params,
            lengths,
            reverse,
            output,
            grad_output,
            grad_finals,
            Wanted(True, True, [True] * len(params)),
            masks,
        )
        made: Sequence[Tensor | None] = (found.x, *found.states, *found.params)
    else:
        tensors, grads = (x, *states, *params), (grad_output, *grad_finals)
        made = _eager_gradients(step, tensors, len(states), lengths, reverse, masks, grads)
    whole = [_owned(g, t) for g, t in zip(made, (x, *states, *params), strict=True)]
    return whole[0], whole[1 : 1 + len(states)], whole[1 + len(states) :]


def _eager_gradients(
    step: Step,
    tensors: Sequence[Tensor],
    count: int,
    lengths: Tensor | None,
    reverse: bool,
    masks: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> Sequence[Tensor | None]:
    """Forward again, and torch's autograd, which is switched off inside an operator."""
    x, *rest = [t.detach().requires_grad_() for t in tensors]
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False), torch.enable_grad():
        output, finals = run_eager(step, x, rest[:count], rest[count:], lengths, reverse, masks)
        own = (output, *finals[: len(step.state_sizes)])
        pairs = [(o, g) for o, g in zip(own, grads, strict=True) if o.requires_grad]
        outs, gs = zip(*pairs, strict=True)
        return torch.autograd.grad(outs, (x, *rest), gs, allow_unused=True)


def _owned(grad: Tensor | None, like: Tensor) -> Tensor:
    """An operator returns tensors of its own: no input, no view, none missing."""
    if grad is None:
        return torch.zeros_like(like, memory_format=torch.contiguous_format)
    return grad.contiguous() if grad.is_contiguous() else grad.clone(memory_format=torch.contiguous_format)


@recurrence_backward_op.register_fake
def _(
    tape: Tensor,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    program: str,
    sizes: Sequence[int],
    reverse: bool,
    backend: str,
    half: bool,
    output: Tensor,
    grad_output: Tensor,
    grad_finals: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    def like(t: Tensor) -> Tensor:
        return torch.empty_like(t, memory_format=torch.contiguous_format)

    return like(x), [like(s) for s in states], [like(p) for p in params]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor], Tensor]) -> None:
    x, states, params, masks, lengths, program, sizes, reverse, backend, half, _ = inputs
    ctx.save_for_backward(x, output[0], output[2], *([] if lengths is None else [lengths]), *masks, *states, *params)
    ctx.rest = (program, sizes, reverse, backend, half)
    ctx.counts = (lengths is not None, len(masks), len(states))


def _backward(
    ctx: Any, grad_output: Tensor | None, grad_finals: list[Tensor | None], _: Tensor | None
) -> tuple[Any, ...]:
    x, output, tape, *rest = ctx.saved_tensors
    has_lengths, given, count = ctx.counts
    lengths = rest.pop(0) if has_lengths else None
    masks, rest = rest[:given], rest[given:]
    states, params = rest[:count], rest[count:]
    program, sizes, reverse, backend, half = ctx.rest
    step = step_of(program, tuple(sizes))
    finals = [  # what comes behind the states are statistics, which are not differentiated
        g if g is not None else x.new_zeros((1, x.shape[1], n))
        for g, n in zip(grad_finals[: len(step.state_sizes)], step.state_sizes, strict=True)
    ]
    gradient = torch.zeros_like(output) if grad_output is None else grad_output
    gx, gs, gp = torch.ops.ostinato.recurrence_backward(
        tape, x, states, params, masks, lengths, program, sizes, reverse, backend, half, output, gradient, finals
    )
    return gx, gs, gp, [None] * given, None, None, None, None, None, None, None


recurrence_op.register_autograd(_backward, setup_context=_setup)
