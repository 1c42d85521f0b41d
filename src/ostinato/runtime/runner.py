"""Running a step over a sequence: the one door between layers and backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..backends.base import Bound, Inputs, Kernel, Outputs
from .choose import NARROW, asked, choose, products_of, say_once
from .function import Call, Recurrence, run_eager
from .operator import recurrence_op
from .packed import on_padded
from .step import Step, check_masks, check_params


class Runner:
    """A step at its place in a layer; it keeps the kernel bound to the parameters of its last call.

    Call:
        ``output, finals, statistics = runner(inputs, params, backend)``

        params: the layer's own, in the order of the Program.

    torch.func's transforms get the eager backend, which they can see through, within a captured graph as well; such a
    graph (torch.compile, export, torch.jit.trace) gets the registered operator otherwise; everything else the kernel,
    without the dispatcher's overhead.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._last: tuple[tuple[Any, ...], Bound] | None = None
        self._kinds: list[Any] | None = None  # of a call that is like others

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self.step,)

    def __call__(self, inputs: Inputs, params: Sequence[Tensor], backend: str) -> Outputs:
        step = self.step
        if inputs.masks or step.mask_shapes:
            check_masks(step, inputs)
        compiling = torch.compiler.is_compiling()
        if torch._C._are_functorch_transforms_active():
            if not compiling:
                say_once("torch.func transforms run on the eager backend, which they can differentiate and batch")
            return run_eager(step, inputs, params)
        if compiling or torch._C._get_tracing_state() is not None:
            return self._captured(inputs, params, backend)
        if forward_ad._current_level >= 0:
            say_once("forward-mode derivatives run on the eager backend, which carries tangents")
            return run_eager(step, inputs, params)
        if _get_current_dispatch_mode() is not None:
            return self._captured(inputs, params, backend)
        x, states, *_ = inputs
        kind = products_of(x)
        if x.dtype in NARROW and (kernel := choose(step, backend, x.device, kind)) is not None:
            if not kernel.narrow or x.dtype != torch.bfloat16 or _wants_gradients(x, states, params):
                return _narrowed(self._run(*_widened(inputs, params), backend, kind), x.dtype)
            return self._inferred(kernel, inputs, params)
        return self._run(inputs, params, backend, kind)

    def _run(self, inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype) -> Outputs:
        """By a kernel whose products are of this dtype; by eager, if that is the backend."""
        step = self.step
        x, states, _, _, masks = inputs
        own, bound = self._bind(inputs, params, backend, kind)
        if bound is None:
            return run_eager(step, inputs, params)
        if masks:
            inputs = inputs._replace(masks=step.inner_masks(masks))
        if _wants_gradients(x, states, own):
            output, *rest = Recurrence.apply(Call(step, bound, inputs), x, *(states or ()), *own)
            return step.outputs(output, rest)
        if states is not None and x.dim() == 3:
            self._kinds = _kinds(x, states)
        return bound.forward(inputs, False)[0]

    def again(self, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], backend: str) -> Outputs | None:
        """The same for a call like the last one, without gradients, lengths and masks; None if it is not like that one.

        Then it was checked that tensors of such kinds fit, which would be most of the work of a call that is one step.
        """
        last = self._last
        if (
            last is None
            or self._kinds is None
            or _seen_through()  # whose tensors may have no memory
            or _kinds(x, states) != self._kinds
            or last[0] != (backend, x.dtype, products_of(x), x.device)
            or (params and params[0].dtype != x.dtype)
            or not last[1].same(params)
        ):
            return None
        return last[1].forward(Inputs(x, states), False)[0]

    def _inferred(self, kernel: Kernel, inputs: Inputs, params: Sequence[Tensor]) -> Outputs:
        """The same without gradients, where the kernel itself reads bfloat16 and writes it."""
        step = self.step
        x, states, lengths, reverse, masks = inputs
        wide, given = [t.float() for t in params], [m.float() for m in masks]
        check_params(step, x.new_empty(0, dtype=torch.float32), wide)
        starts = None if states is None else [t.float() for t in states]
        bound = kernel.bind(wide if step.direct else step.derived(wide, given))
        found, _ = bound.forward(Inputs(x, starts, lengths, reverse, step.inner_masks(given)), False)
        finals, statistics = (tuple([t.to(x.dtype) for t in part]) for part in found[1:])
        return Outputs(found.output, finals, statistics)

    def _bind(
        self, inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype
    ) -> tuple[Sequence[Tensor], Bound | None]:
        """What the kernel takes as parameters, and the kernel bound to it; None for the eager backend."""
        step, x = self.step, inputs.x
        wanted = (backend, x.dtype, kind, x.device)
        last = self._last
        if last is not None and last[0] == wanted and last[1].same(params):
            return params, last[1]
        self._last = None  # it holds the memory of parameters that are gone
        check_params(step, x, params)
        kernel = choose(step, backend, x.device, kind)
        if kernel is None:
            return params, None
        if not step.direct:
            own = step.derived(params, inputs.masks)
            return own, kernel.bind(own)
        bound = kernel.bind(params)
        self._last = wanted, bound
        return params, bound

    def _captured(self, inputs: Inputs, params: Sequence[Tensor], backend: str) -> Outputs:
        step = self.step
        if inputs.x.dim() == 2:
            return on_padded(lambda whole: self._captured(whole, params, backend), inputs, step.mask_shapes)
        x, states, lengths, reverse, masks = inputs
        if x.dtype in NARROW and asked(backend) != "eager" and x.device.type == "cpu":
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
                return _narrowed(self(*_widened(inputs, params), backend), x.dtype)
        own = params if step.direct else step.derived(params, masks)
        # a trace is run again with gradients, whatever it was taken with
        training = torch._C._get_tracing_state() is not None or _wants_gradients(x, states, own)
        if states is None:
            states = [x.new_zeros(1, x.shape[1], s) for s in step.state_sizes]
        tape = step.tape_values(x.shape[0], x.shape[1]) if training else 0
        output, rest, _ = recurrence_op(
            *(x, list(states), list(own), step.inner_masks(masks), lengths, step.core_text, step.core_sizes),
            *(reverse, asked(backend), products_of(x) != x.dtype, tape),
        )
        found = step.outputs(output, rest)
        return found._replace(statistics=tuple([s.detach() for s in found.statistics]))


def _widened(inputs: Inputs, params: Sequence[Tensor]) -> tuple[Inputs, list[Tensor]]:
    """A kernel's sums and states are float32; bfloat16 and float16 are what comes in and goes out."""
    x, states, _, _, masks = inputs
    wide = inputs._replace(
        x=x.float(),
        states=None if states is None else [t.float() for t in states],
        masks=[m.float() for m in masks],
    )
    return wide, [t.float() for t in params]


def _narrowed(found: Outputs, dtype: torch.dtype) -> Outputs:
    """What comes out, in the dtype that came in."""
    narrow = [tuple([t.to(dtype) for t in part]) for part in (found.finals, found.statistics)]
    return Outputs(found.output.to(dtype), *narrow)


def _kinds(x: Any, states: Any) -> list[Any] | None:
    """What a layer checks of its tensors beside their numbers; None if they are none."""
    try:
        return [(type(t), t.shape, t.dtype, t.device, t.layout) for t in (x, *states)]
    except (TypeError, AttributeError, RuntimeError):  # RuntimeError: nested tensors have no shape
        return None


def _seen_through() -> bool:
    """Whether somebody wants to see the operations of a call: a transform of torch.func, a trace, another mode."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or _get_current_dispatch_mode() is not None
    )


def _wants_gradients(x: Tensor, states: Sequence[Tensor] | None, params: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (x, *(states or ()), *params))
