"""Running a step over a sequence: the one door between layers and backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..backends.base import Bound, Inputs, Kernel, Outputs, seen_through
from . import apart
from .asked import asked
from .choose import FAILURES, choose, fall_back, say_once
from .dtypes import NARROW, name_of, products_of
from .function import Call, Recurrence
from .meant import run_eager
from .operator import recurrence_op
from .packed import on_padded
from .step import Step, check_masks, check_params
from .streams import rooted


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
        kind = products_of(inputs.x, backend)
        if compiling or torch._C._get_tracing_state() is not None:
            return self._captured(inputs, params, backend, kind)
        if forward_ad._current_level >= 0:
            say_once("forward-mode derivatives run on the eager backend, which carries tangents")
            return run_eager(step, inputs, params)
        if _get_current_dispatch_mode() is not None:
            return self._captured(inputs, params, backend, kind)
        return self._run(inputs, params, backend, kind)

    def _run(self, inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype) -> Outputs:
        """By the kernel that multiplies numbers of this kind, with gradients if they are wanted; or eagerly."""
        step = self.step
        x, states, _, _, masks = inputs
        try:
            if x.dtype in NARROW and (kernel := choose(step, backend, x.device, kind)) is not None:
                if not kernel.narrow or x.dtype != kind or _wants_gradients(x, states, params):
                    return _widened(self._run, inputs, params, backend, kind)
                return self._inferred(kernel, inputs, params)
            own, bound = self._bind(inputs, params, backend, kind)
            if bound is not None:
                inner = inputs._replace(masks=step.inner_masks(masks)) if masks else inputs
                if _wants_gradients(x, states, own):
                    call = Call(step, bound, inner, backend, kind)
                    output, *rest = Recurrence.apply(call, *rooted([x, *(states or ()), *own]))
                    return step.outputs(output, rest)
                found = apart.forward(bound, inner, False)[0]
                if states is not None and x.dim() == 3:
                    self._kinds = _kinds(x, states)
                return found
        except FAILURES as error:
            self._last = self._kinds = None
            fall_back(step, backend, x.device, kind, error)
        return run_eager(step, inputs, rooted(params))  # behind an error, which holds no memory any more

    def again(self, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], backend: str) -> Outputs | None:
        """The same for a call like the last one, without gradients, lengths and masks; None if it is not like that one.

        Then it was checked that tensors of such kinds fit, which would be most of the work of a call that is one step.
        """
        last = self._last
        if (
            last is None
            or self._kinds is None
            or self.step.gave_up
            or seen_through()  # whose tensors may have no memory
            or _kinds(x, states) != self._kinds
            or last[0] != (backend, x.dtype, products_of(x, backend), x.device)
            or (params and params[0].dtype != x.dtype)
            or not last[1].same(params)
        ):
            return None
        try:
            return apart.forward(last[1], Inputs(x, states), False)[0]
        except FAILURES:
            self._last = self._kinds = None
        return None  # the call itself, as it is elsewhere, says what failed

    def _inferred(self, kernel: Kernel, inputs: Inputs, params: Sequence[Tensor]) -> Outputs:
        """The same without gradients, where the kernel itself reads bfloat16 and writes it."""
        step = self.step
        x, states, lengths, reverse, masks = inputs
        wide, given = [t.float() for t in params], [m.float() for m in masks]
        check_params(step, x.new_empty(0, dtype=torch.float32), wide)
        starts = None if states is None else [t.float() for t in states]
        bound = kernel.bind(wide if step.direct else step.derived(wide, given))
        found, _ = apart.forward(bound, Inputs(x, starts, lengths, reverse, step.inner_masks(given)), False)
        finals, statistics = (tuple([t.to(x.dtype) for t in part]) for part in found[1:])
        return Outputs(found.output, finals, statistics)

    def _bind(
        self, inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype
    ) -> tuple[Sequence[Tensor], Bound | None]:
        """What the kernel takes as parameters, and the kernel bound to it; None for the eager backend."""
        step, x = self.step, inputs.x
        wanted = (backend, x.dtype, kind, x.device)
        last = self._last
        if last is not None and last[0] == wanted and not step.gave_up and last[1].same(params):
            return params, last[1]
        self._last = None  # it holds the memory of parameters that are gone
        check_params(step, x, params)
        kernel = choose(step, backend, x.device, kind)
        if kernel is None:
            return params, None
        if not step.direct:
            own = step.derived(rooted(params), inputs.masks)
            return own, kernel.bind(own)
        bound = kernel.bind(params)
        self._last = wanted, bound
        return params, bound

    def _captured(self, inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype) -> Outputs:
        step = self.step
        if inputs.x.dim() == 2:
            return on_padded(lambda whole: self._captured(whole, params, backend, kind), inputs, step.mask_shapes)
        x, states, lengths, reverse, masks = inputs
        if x.dtype in NARROW and asked(backend) != "eager" and x.device.type in ("cpu", "cuda"):
            return _widened(self._captured, inputs, params, backend, kind)
        own = params if step.direct else step.derived(params, masks)
        # a trace is run again with gradients, whatever it was taken with
        training = torch._C._get_tracing_state() is not None or _wants_gradients(x, states, own)
        if states is None:
            states = [x.new_zeros(1, x.shape[1], s) for s in step.state_sizes]
        tape = step.tape_values(x.shape[0], x.shape[1]) if training else 0
        output, rest, _ = recurrence_op(
            *(x, list(states), list(own), step.inner_masks(masks), lengths, step.core_text, step.core_sizes),
            *(reverse, asked(backend), name_of(kind), tape),
        )
        found = step.outputs(output, rest)
        return Outputs(found.output, found.finals, tuple([s.detach() for s in found.statistics]))


def _widened(
    run: Callable[..., Outputs], inputs: Inputs, params: Sequence[Tensor], backend: str, kind: torch.dtype
) -> Outputs:
    """A kernel's sums and states are float32; bfloat16 and float16 are what comes in and goes out."""
    x, states, lengths, reverse, masks = inputs
    wide_states = None if states is None else [t.float() for t in states]
    wide = Inputs(x.float(), wide_states, lengths, reverse, [m.float() for m in masks])
    found = run(wide, [t.float() for t in params], backend, kind)
    narrow = [tuple([t.to(x.dtype) for t in part]) for part in (found.finals, found.statistics)]
    return Outputs(found.output.to(x.dtype), *narrow)


def _kinds(x: Any, states: Any) -> list[Any] | None:
    """What a layer checks of its tensors beside their numbers; None if they are none."""
    try:
        return [(type(t), t.shape, t.dtype, t.device, t.layout) for t in (x, *states)]
    except (TypeError, AttributeError, RuntimeError):  # RuntimeError: nested tensors have no shape
        return None


def _wants_gradients(x: Tensor, states: Sequence[Tensor] | None, params: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (x, *(states or ()), *params))
