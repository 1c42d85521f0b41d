"""The registered torch operator, so that torch.compile and torch.export pass through a layer without a break.

    ostinato::recurrence(x, states, params, masks, lengths, program, sizes, reverse, backend, factors, tape)
        -> (output, final states and behind them the statistics, tape)
    ostinato::recurrence_backward(...) -> (gradient of x, of the states, of the parameters)

`program` is the core of a step as JSON and `params` are what it takes (see `Step.derived`); states and their gradients
are [1, B, S]. A graph that holds the operator needs nothing else to run. `factors` names the dtype to which what is
multiplied is rounded. `tape` says how many values the tape has (0: there is no backward), so that a graph that was
stored says it too. The tape is opaque; on the eager backend backward runs forward again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..backends.base import Inputs, Kernel, OutputGradients, Wanted
from ..errors import ShapeError
from ..ir import Program
from . import apart
from .choose import FAILURES, choose, fall_back
from .dtypes import DTYPES
from .meant import run_eager
from .step import Step, check_masks, check_params

_GIVEN = (
    "Tensor x, Tensor[] states, Tensor[] params, Tensor[] masks, Tensor? lengths, str program, SymInt[] sizes, "
    "bool reverse, str backend, str factors"
)
_FORWARD = f"({_GIVEN}, SymInt tape) -> (Tensor, Tensor[], Tensor)"
_BACKWARD = (
    f"(Tensor tape, {_GIVEN}, Tensor output, Tensor grad_output, Tensor[] grad_finals) -> (Tensor, Tensor[], Tensor[])"
)
# A kernel may keep buffers from one call to the next, and record CUDA graphs of its own. In those that torch.compile
# records (mode="reduce-overhead") the buffers would lie in the graph's memory, which torch refuses: it is to go around.
_TAGS = [torch.Tag.cudagraph_unsafe]


class _Given(NamedTuple):
    """What both operators are given, in the order of `_GIVEN`."""

    x: Tensor
    states: list[Tensor]
    params: list[Tensor]
    masks: list[Tensor]
    lengths: Tensor | None
    program: str
    sizes: Sequence[int]
    reverse: bool
    backend: str
    factors: str

    @property
    def step(self) -> Step:
        """The step that it names."""
        return step_of(self.program, tuple(self.sizes))

    def checked(self) -> tuple[Step, Inputs, Kernel | None]:
        """The step, what it runs over, and its kernel: what an operator is called with directly, no layer checked."""
        step = self.step
        lengths = _checked(self.lengths, self.x.shape[0], self.x.shape[1])
        inputs = Inputs(self.x, self.states, lengths, self.reverse, self.masks)
        _check_inputs(step, inputs, self.params)
        if self.factors not in DTYPES:
            raise ShapeError(f"factors is {self.factors!r}; give one of {', '.join(DTYPES)}")
        return step, inputs, choose(step, self.backend, self.x.device, DTYPES[self.factors])

    def fall_back(self, error: Exception) -> None:
        """After a kernel failed, see `choose.fall_back`: for good, since no one else knows what a tape holds."""
        fall_back(self.step, self.backend, self.x.device, DTYPES[self.factors], error, for_good=True)


@lru_cache(maxsize=256)
def _program(text: str) -> Program:
    return Program.from_json(json.loads(text))


@lru_cache(maxsize=256)
def step_of(text: str, sizes: tuple[int, ...]) -> Step:
    """The step that an operator's arguments name."""
    program = _program(text)
    return Step(program, dict(zip(program.symbols, sizes, strict=True)))


def _check_inputs(step: Step, inputs: Inputs, params: Sequence[Tensor]) -> None:
    """Everything fits the step."""
    x = inputs.x
    if not step.direct:
        raise ShapeError(
            f"the program {step.program.name} computes with its parameters before the sequence; give the operator the "
            "core of a step and what it takes (`Step.core_text`, `Step.derived`), or call a layer"
        )
    check_params(step, x, params)
    width = step.sizes[step.program.input_size]
    if x.dim() != 3 or x.shape[2] != width:
        raise ShapeError(f"x has shape {list(x.shape)}; give [T, B, {width}]")
    check_masks(step, inputs)
    for state, size in zip(inputs.states or (), step.state_sizes, strict=True):
        if tuple(state.shape) != (1, x.shape[1], size) or state.dtype != x.dtype or state.device != x.device:
            raise ShapeError(f"a state is {state.dtype} {list(state.shape)}; give {x.dtype} [1, {x.shape[1]}, {size}]")


def _checked(lengths: Tensor | None, steps: int, batch: int) -> Tensor | None:
    """Lengths that no kernel can run past the end with; a captured graph meets their values only here."""
    if lengths is None:
        return None
    lengths = lengths.to("cpu", torch.int64).contiguous().detach()  # this call's own, to which copies are tied
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        raise ShapeError(
            f"lengths has shape {list(lengths.shape)}, but the batch has {batch} sequences; give [{batch}]"
        )
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ShapeError(
            f"lengths are between {int(lengths.min())} and {int(lengths.max())}; pass 0 <= lengths <= T = {steps}"
        )
    return lengths


@torch.library.custom_op("ostinato::recurrence", mutates_args=(), schema=_FORWARD, tags=_TAGS)
def recurrence_op(*arguments: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    """See the module."""
    *given, tape = arguments
    given = _Given(*given)
    step, inputs, kernel = given.checked()
    if kernel is not None:
        try:
            outputs, made = apart.forward(kernel.bind(given.params), inputs, tape > 0)
            output, finals, statistics = outputs
            return output.contiguous(), [*finals, *statistics], given.x.new_empty(0) if made is None else made
        except FAILURES as error:
            given.fall_back(error)
    output, finals, statistics = run_eager(step, inputs, given.params)
    rest = [t.clone() for t in (*finals, *statistics)]
    return output.clone(memory_format=torch.contiguous_format), rest, given.x.new_empty(tape)


@recurrence_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, list[Tensor], Tensor]:
    *given, tape = arguments
    given = _Given(*given)
    step, x = given.step, given.x
    finals = [x.new_empty((1, x.shape[1], n)) for n in step.state_sizes]
    statistics = [x.new_empty((x.shape[0], n)) for n in step.statistic_sizes]
    return x.new_empty((x.shape[0], x.shape[1], step.output_size)), [*finals, *statistics], x.new_empty(tape)


@torch.library.custom_op("ostinato::recurrence_backward", mutates_args=(), schema=_BACKWARD, tags=_TAGS)
def recurrence_backward_op(*arguments: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """See the module."""
    tape, *given, output, grad_output, grad_finals = arguments
    given = _Given(*given)
    step, inputs, kernel = given.checked()
    x, states, params = given.x, given.states, given.params
    made: Sequence[Tensor | None] | None = None
    if kernel is not None:
        try:
            bound = kernel.bind(params)
            if tape.numel() < step.tape_values(x.shape[0], x.shape[1]):
                whole_tape = apart.forward(bound, inputs, True)[1]  # the graph was captured for inference
            else:
                whole_tape = tape.clone()  # the kernel overwrites it, and an operator may not
            grads = OutputGradients(grad_output, grad_finals)
            wanted = Wanted(True, True, [True] * len(params))
            found = apart.backward(bound, cast("Tensor", whole_tape), inputs, output, grads, wanted)
            made = (found.x, *found.states, *found.params)
        except FAILURES as error:
            given.fall_back(error)
    if made is None:
        made = _eager_gradients(step, inputs, params, (grad_output, *grad_finals))
    whole = [_owned(g, t) for g, t in zip(made, (x, *states, *params), strict=True)]
    return whole[0], whole[1 : 1 + len(states)], whole[1 + len(states) :]


def _eager_gradients(
    step: Step, inputs: Inputs, params: Sequence[Tensor], grads: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Forward again, and torch's autograd, which is switched off inside an operator."""
    states = inputs.states or ()
    x, *rest = [t.detach().requires_grad_() for t in (inputs.x, *states, *params)]
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False), torch.enable_grad():
        again = inputs._replace(x=x, states=rest[: len(states)])
        output, finals, _ = run_eager(step, again, rest[len(states) :])
        pairs = [(o, g) for o, g in zip((output, *finals), grads, strict=True) if o.requires_grad]
        outs, gs = zip(*pairs, strict=True)
        return torch.autograd.grad(outs, (x, *rest), gs, allow_unused=True)


def _owned(grad: Tensor | None, like: Tensor) -> Tensor:
    """An operator returns tensors of its own: no input, no view, none missing."""
    if grad is None:
        return torch.zeros_like(like, memory_format=torch.contiguous_format)
    return grad.contiguous() if grad.is_contiguous() else grad.clone(memory_format=torch.contiguous_format)


@recurrence_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    _, *given, _, _, _ = arguments
    given = _Given(*given)

    def like(t: Tensor) -> Tensor:
        return torch.empty_like(t, memory_format=torch.contiguous_format)

    return like(given.x), [like(s) for s in given.states], [like(p) for p in given.params]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor], Tensor]) -> None:
    given = _Given(*inputs[:-1])
    lengths = [] if given.lengths is None else [given.lengths]
    ctx.save_for_backward(given.x, output[0], output[2], *lengths, *given.masks, *given.states, *given.params)
    ctx.rest = given[5:]
    ctx.counts = (len(lengths), len(given.masks), len(given.states))


def _backward(
    ctx: Any, grad_output: Tensor | None, grad_finals: list[Tensor | None], _: Tensor | None
) -> tuple[Any, ...]:
    x, output, tape, *rest = ctx.saved_tensors
    parts: list[list[Tensor]] = []
    for count in ctx.counts:
        parts.append(rest[:count])
        rest = rest[count:]
    lengths, masks, states = parts
    given = _Given(x, states, rest, masks, lengths[0] if lengths else None, *ctx.rest)
    sizes = given.step.state_sizes
    finals = [  # what comes behind the states are statistics, which are not differentiated
        g if g is not None else x.new_zeros((1, x.shape[1], n))
        for g, n in zip(grad_finals[: len(sizes)], sizes, strict=True)
    ]
    gradient = torch.zeros_like(output) if grad_output is None else grad_output
    gx, gs, gp = torch.ops.ostinato.recurrence_backward(tape, *given, output, gradient, finals)
    return gx, gs, gp, [None] * len(masks), None, None, None, None, None, None, None


recurrence_op.register_autograd(_backward, setup_context=_setup)
