"""Running a step over a sequence: the one door between layers and backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..backends.base import Bound, Kernel
from .choose import NARROW, asked, choose, products_of, say_once
from .function import Recurrence, run_eager
from .operator import recurrence_op
from .step import Step, check_masks, check_params


class Runner:
    """A step at its place in a layer, in one direction; it keeps the kernel bound to the parameters of its last call.

    Call:
        ``output, finals = runner(x, states, params, lengths, backend, masks=())``

        x: [T, B, D]; states, each [1, B, S], None for zeros; params: the layer's own, in the order of the Program;
        masks: in the order of its masks, [T, B, S], [1, B, S], or for a matrix [rows, columns].
        Returns the outputs [T, B, O] and the final states, each [1, B, S]; behind them the statistics that the Program
        measures, each [T, S] in the order in which steps run, zeros where no sequence does, without a gradient.

    torch.func's transforms get the eager backend, which they can see through, within a captured graph as well; such a
    graph (torch.compile, export, torch.jit.trace) gets the registered operator otherwise; everything else the kernel,
    without the dispatcher's overhead.
    """

    def __init__(self, step: Step, reverse: bool) -> None:
        self.step = step
        self.reverse = reverse
        self._last: tuple[tuple[Any, ...], Bound] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self.step, self.reverse)

    def __call__(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        lengths: Tensor | None,
        backend: str,
        masks: Sequence[Tensor] = (),
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        step = self.step
        if masks or step.mask_shapes:
            check_masks(step, x, masks)
        compiling = torch.compiler.is_compiling()
        if torch._C._are_functorch_transforms_active():
            if not compiling:
                say_once("torch.func transforms run on the eager backend, which they can differentiate and batch")
            return run_eager(step, x, states, params, lengths, self.reverse, masks)
        if compiling or torch._C._get_tracing_state() is not None:
            return self._captured(x, states, params, lengths, backend, masks)
        if forward_ad._current_level >= 0:
            say_once("forward-mode derivatives run on the eager backend, which carries tangents")
            return run_eager(step, x, states, params, lengths, self.reverse, masks)
        if _get_current_dispatch_mode() is not None:
            return self._captured(x, states, params, lengths, backend, masks)
        kind = products_of(x)
        if x.dtype in NARROW and (kernel := choose(step, backend, x.device, kind)) is not None:
            if not kernel.narrow or x.dtype != torch.bfloat16 or _wants_gradients(x, states, params):
                return self._widened(x, states, params, lengths, backend, masks)
            return self._inferred(kernel, x, states, params, lengths, masks)
        own, bound = self._bind(x, params, backend, masks, kind)
        if bound is None:
            return run_eager(step, x, states, params, lengths, self.reverse, masks)
        inner = step.inner_masks(masks) if masks else ()
        if _wants_gradients(x, states, own):
            found = Recurrence.apply(
                step, bound, lengths, self.reverse, inner, states is not None, x, *(states or ()), *own
            )
            return found[0], found[1:]
        output, finals, _ = bound.forward(x, states, lengths, self.reverse, False, inner)
        return output, finals

    def _widened(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        lengths: Tensor | None,
        backend: str,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A kernel's sums and states are float32; bfloat16 and float16 are what comes in and goes out."""
        wide = [t.float() for t in params]
        starts = None if states is None else [t.float() for t in states]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            output, finals = self(x.float(), starts, wide, lengths, backend, [m.float() for m in masks])
        return output.to(x.dtype), tuple([s.to(x.dtype) for s in finals])

    def _inferred(
        self,
        kernel: Kernel,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        lengths: Tensor | None,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same without gradients, where the kernel itself reads bfloat16 and writes it."""
        step = self.step
        wide, given = [t.float() for t in params], [m.float() for m in masks]
        check_params(step, x.new_empty(0, dtype=torch.float32), wide)
        starts = None if states is None else [t.float() for t in states]
        bound = kernel.bind(wide if step.direct else step.derived(wide, given), step.plan_sizes)
        output, finals, _ = bound.forward(x, starts, lengths, self.reverse, False, step.inner_masks(given))
        return output, tuple([s.to(x.dtype) for s in finals])

    def _bind(
        self,
        x: Tensor,
        params: Sequence[Tensor],
        backend: str,
        masks: Sequence[Tensor],
        kind: torch.dtype,
    ) -> tuple[Sequence[Tensor], Bound | None]:
        """What the kernel takes as parameters, and the kernel bound to it; None for the eager backend."""
        wanted = (backend, x.dtype, kind, x.device)
        last = self._last
        if last is not None and last[0] == wanted and last[1].same(params):
            return params, last[1]
        self._last = None  # it holds the memory of parameters that are gone
        check_params(self.step, x, params)
        kernel = choose(self.step, backend, x.device, kind)
        if kernel is None:
            return params, None
        if not self.step.direct:
            own = self.step.derived(params, masks)
            return own, kernel.bind(own, self.step.plan_sizes)
        bound = kernel.bind(params, self.step.plan_sizes)
        self._last = wanted, bound
        return params, bound

    def _captured(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        params: Sequence[Tensor],
        lengths: Tensor | None,
        backend: str,
        masks: Sequence[Tensor],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        step = self.step
        if x.dtype in NARROW and asked(backend) != "eager" and x.device.type == "cpu":
            return self._widened(x, states, params, lengths, backend, masks)
        own = params if step.direct else step.derived(params, masks)
        # a trace is run again with gradients, whatever it was taken with
        training = torch._C._get_tracing_state() is not None or _wants_gradients(x, states, own)
        if states is None:
            states = [x.new_zeros(1, x.shape[1], s) for s in step.state_sizes]
        tape = step.tape_values(x.shape[0], x.shape[1]) if training else 0
        output, finals, _ = recurrence_op(
            *(x, list(states), list(own), step.inner_masks(masks), lengths, step.core_text, step.core_sizes),
            *(self.reverse, asked(backend), products_of(x) != x.dtype, tape),
        )
        count = len(step.state_sizes)
        return output, (*finals[:count], *(s.detach() for s in finals[count:]))


def _wants_gradients(x: Tensor, states: Sequence[Tensor] | None, params: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (x, *(states or ()), *params))
