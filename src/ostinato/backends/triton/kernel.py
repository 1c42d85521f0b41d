"""A rendered Plan at work: large products by torch, the recurrence by Triton."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import LaunchError, ShapeError, TooLargeError
from ...schedule import BatchMean, Plan
from ..base import Gradients, Inputs, OutputGradients, Outputs, Wanted, captured
from .call import Call, aligned
from .choosing import Chooser
from .form import Form
from .layout import Layout
from .outside import History, bias_gradients, deferred, hoisted, weight_gradients
from .precision import tf32_allowed
from .proof import Held, Reference, fault
from .staged import Stages
from .whole import Whole, flags

__all__ = ["TritonBound", "TritonKernel"]


class _Taking(NamedTuple):
    """A form that a kernel has while it is measured, and the events around its runs."""

    name: str
    form: Form
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]]


_taking: ContextVar[_Taking | None] = ContextVar("_taking", default=None)  # other threads may call the same kernel


class TritonKernel:
    """See `ostinato.backends.base.Kernel`.

    Args:
        plan: the schedule.
        sizes: in the order of its symbols.
        factors: what factors of products are rounded to; "float32" may be "tf32" where torch's own may.
        chooser: says the forms that a call may have.
    """

    narrow = False

    def __init__(self, plan: Plan, sizes: Sequence[int], factors: str, chooser: Chooser | None = None) -> None:
        self.plan, self.sizes, self._factors = plan, list(sizes), factors
        self.chooser = chooser or Chooser()
        self.layout = Layout(plan, sizes)
        self._tape = plan.tape_size(sizes)
        self.reference: Reference | None = None  # what its results are compared with when a form is first used on a GPU
        self._proved: set[tuple[Any, ...]] = set()
        self._made: dict[tuple[str, Form], Whole | Stages] = {}

    @property
    def factors(self) -> str:
        """What factors of products are rounded to, at present."""
        return "tf32" if self._factors == "float32" and tf32_allowed() else self._factors

    @cached_property
    def digest(self) -> str:
        """Of the Plan and its sizes."""
        return hashlib.sha256(repr((self.plan, self.sizes)).encode()).hexdigest()

    def bind(self, params: Sequence[Tensor]) -> TritonBound:
        """The kernel with its parameters."""
        if params:
            flags(params[0].device)  # made in time: what is made while a CUDA graph is recorded belongs to that
        return TritonBound(self, params)

    def tape_values(self, steps: int, rows: int) -> int:
        """Values of a tape."""
        return self._tape.values(steps, rows)

    def form(self, name: str, batch: int, device: torch.device) -> Form:
        """The form that a call over so many sequences has, or is tried in first."""
        return self.chooser.forms(self, name, batch, device)[0]

    def made(self, name: str, form: Form) -> Whole | Stages:
        """The kernel of this name in a form."""
        if (name, form) not in self._made:
            self._made[name, form] = (Stages if form.stages else Whole)(self.layout, form, name)
        return self._made[name, form]

    @contextmanager
    def taking(self, name: str, form: Form) -> Iterator[list[tuple[torch.cuda.Event, torch.cuda.Event]]]:
        """Within it a kernel has this form and no other; gives the events around each of its runs on a GPU."""
        taking = _Taking(name, form, [])
        before = _taking.set(taking)
        try:
            yield taking.spans
        finally:
            _taking.reset(before)

    def run(self, name: str, call: Call, bound: TritonBound, values: dict[str, Any]) -> dict[str, Tensor]:
        """Run a kernel in the form that is chosen; gives the sums for gradients of vectors and scalars, by name.

        Raises:
            LaunchError: it cannot be launched in any form; a TooLargeError where it may be for a smaller call.
        """
        taking = _taking.get()
        if taking is not None and taking.name == name:
            return self._run(taking.form, name, call, bound, values)
        if taking is None:
            self.chooser.before(self, name, call, bound)
        failed: LaunchError | None = None
        large: TooLargeError | None = None
        for form in self.chooser.forms(self, name, call.batch, call.device):
            try:
                self.prove(form, name, call, bound)
                return self._run(form, name, call, bound, values)
            except TooLargeError as error:
                large = error
            except LaunchError as error:
                if captured(call.device):  # a kernel that was not loaded before cannot be there
                    raise LaunchError(
                        f"while a CUDA graph is recorded {error}; or call the layer in the same way before that"
                    ) from error
                failed = error
                self.chooser.refuse(name, form)
        raise large or failed or LaunchError(f"{name} can be launched in no form; use backend='eager'")

    def let_go(self, name: str, form: Form) -> None:
        """Of memory that a kernel keeps from one call in this form to the next."""
        if (name, form) in self._made:
            self._made[name, form].clear()

    def prove(self, form: Form, name: str, call: Call, bound: Held) -> None:
        """Compare what a form gives with the reference, the first time that a GPU runs it for calls of this kind.

        Raises:
            LaunchError: it is wrong.
        """
        if self.reference is None or not provable(call):
            return
        key = name, form, call.device, *call.constants().values()  # each is a kernel of its own to the compiler
        if key in self._proved:
            return
        try:
            with self.taking(name, form):
                said = fault(self.layout, name, form, call, bound, self.reference)
        except torch.OutOfMemoryError:  # beside what the user has there; the call itself may fit
            return
        finally:
            self.let_go(name, form)
        self._proved.add(key)
        if said:
            flags(call.device).forget()  # programs that do not meet are wrong, and nothing of the user's came of it
            raise LaunchError(
                f"a Triton kernel with {form} computes something else than eager on this GPU: {said}; it is not used: "
                "please report it, with what scripts/gpu-check says"
            )

    def _run(self, form: Form, name: str, call: Call, bound: TritonBound, values: dict[str, Any]) -> dict[str, Tensor]:
        """The same in a given form."""
        plan, layout, sums = self.plan, self.layout, dict[str, Tensor]()
        groups = -(-call.batch // form.batch)
        if groups > 1 and any(isinstance(slot, BatchMean) for slot in plan.infer):
            raise TooLargeError(
                f"a mean over a batch of {call.batch} sequences needs one program with all of them, and it has "
                f"{form.batch}; use smaller batches, or backend='eager'"
            )
        if name == "backward":
            none = call.x.new_empty(4)
            sums = {f"gv{i}": none for i in range(len(plan.vectors))} | {
                f"gc{i}": none for i in range(len(plan.scalars))
            }
            sums |= {f"gv{layout.vectors[v]}": call.zeros(groups, size) for v, size in layout.gathered.items()}
            sums |= {f"gc{layout.scalars[v]}": call.zeros(groups, form.slices) for v in layout.gathered_scalars}
        given = call.given(list(bound.vectors.values()), list(bound.scalars.values()))
        kernel, taking = self.made(name, form), _taking.get()
        if taking is not None and taking.name == name and call.x.is_cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            kernel.run(call, bound.matrices, given | values | sums)
            end.record()
            taking.spans.append((begin, end))
        else:
            kernel.run(call, bound.matrices, given | values | sums)
        if name != "backward":
            return {}
        found = {v: sums[f"gv{layout.vectors[v]}"].sum(0) for v in layout.gathered}
        return found | {v: sums[f"gc{layout.scalars[v]}"].sum() for v in layout.gathered_scalars}


def provable(call: Call) -> bool:
    """Whether it is a GPU that a call runs on, and nobody records it."""
    return call.x.is_cuda and not captured(call.device)


class TritonBound:
    """See `ostinato.backends.base.Bound`."""

    def __init__(self, kernel: TritonKernel, params: Sequence[Tensor]) -> None:
        self.kernel, self.params = kernel, list(params)
        held = [p.detach() for p in params]
        order = sorted(range(len(held)), key=lambda i: -held[i].dim())
        plan = kernel.plan
        self._order = order
        ordered = [held[i] if held[i].dim() < 2 or held[i].stride(1) == 1 else held[i].contiguous() for i in order]
        self._copied = any(own is not held[i] for own, i in zip(ordered, order, strict=True))
        self.matrices = dict(zip((name for name, *_ in plan.matrices), ordered, strict=False))
        rest = ordered[len(self.matrices) :]
        self.vectors = dict(zip((name for name, _ in plan.vectors), rest, strict=False))
        self.scalars = dict(zip(plan.scalars, rest[len(self.vectors) :], strict=True))
        self._places = [(p.data_ptr(), p.shape, p.stride()) for p in params]

    def same(self, params: Sequence[Tensor]) -> bool:
        """See the protocol."""
        return not self._copied and self._places == [(p.data_ptr(), p.shape, p.stride()) for p in params]

    def again(self, params: Sequence[Tensor]) -> TritonBound:
        """See the protocol."""
        for old, new in zip(self.params, params, strict=True):
            if old.shape != new.shape or old.dtype != new.dtype or old.device != new.device:
                raise ShapeError(
                    f"a parameter was {old.dtype} {list(old.shape)} on {old.device} in forward and is {new.dtype} "
                    f"{list(new.shape)} on {new.device} in backward; run forward again before backward"
                )
        return self if self.same(params) else TritonBound(self.kernel, params)

    def forward(self, inputs: Inputs, training: bool) -> tuple[Outputs, Tensor | None]:
        """See the protocol."""
        kernel, layout, plan = self.kernel, self.kernel.layout, self.kernel.plan
        call = Call(layout, inputs, zeroed=training)
        new = call.new if call.lengths is None else call.zeros
        out = new(call.rows, layout.output_size)
        width = layout.row if training else layout.hoisted_row
        tape = new(kernel.tape_values(call.steps, call.rows) if training else call.rows * width)
        rows = tape[: call.rows * width].view(call.rows, width)
        hoisted(call, rows, not training, self.matrices, self.vectors, kernel.factors)
        finals = [
            call.new(call.batch, size) if call.rows else call.start(i).clone()
            for i, size in enumerate(layout.state_sizes)
        ]
        sizes = [layout.of(plan.steps[number]) for number in plan.statistics]
        statistics = [call.zeros(call.steps, size) for size in sizes]
        if call.rows:
            values: dict[str, Any] = {"out": out, "tape": tape}
            values |= {f"end{i}": final for i, final in enumerate(finals)}
            values |= {f"stat{i}": statistic for i, statistic in enumerate(statistics)}
            kernel.run("train" if training else "infer", call, self, values)
        shape = (*inputs.x.shape[:-1], layout.output_size)
        outputs = Outputs(out.view(shape), tuple(final[None] for final in finals), tuple(statistics))
        return outputs, tape if training else None

    def backward(
        self, tape: Tensor, inputs: Inputs, output: Tensor, grads: OutputGradients, wanted: Wanted
    ) -> Gradients:
        """See the protocol."""
        kernel, layout, plan = self.kernel, self.kernel.layout, self.kernel.plan
        call = Call(layout, inputs, zeroed=True)
        out = aligned(output.reshape(call.rows, layout.output_size))
        grad_out = torch.zeros_like(out) if grads.output is None else aligned(grads.output.reshape(out.shape))
        ends = [
            call.zeros(call.batch, size) if grad is None else aligned(grad[0])
            for grad, size in zip(grads.finals, layout.state_sizes, strict=True)
        ]
        begun = [
            call.new(call.batch, size) if call.rows else end.clone()
            for end, size in zip(ends, layout.state_sizes, strict=True)
        ]
        fresh = call.zeros if layout.adds_to_x else call.new
        grad_x = fresh(call.rows, layout.of(plan.input_size))
        named: dict[str, Tensor] = {}
        if call.rows:
            values = {"out": out, "tape": tape, "grad_out": grad_out, "grad_x": grad_x}
            values |= {f"end{i}": end for i, end in enumerate(ends)} | {f"begun{i}": b for i, b in enumerate(begun)}
            named = kernel.run("backward", call, self, values)
        rows = tape[: call.rows * layout.row].view(call.rows, layout.row)

        def column(number: int) -> Tensor:
            begin = layout.columns[number]
            return rows[:, begin : begin + layout.of(plan.columns[number].size)]

        if wanted.x:
            deferred(grad_x, rows, layout, self.matrices, kernel.factors)
        if any(wanted.params):
            for name, total in bias_gradients(rows, layout).items():
                named[name] = named[name] + total if name in named else total
            named |= weight_gradients(History(call, out, column), rows, kernel.factors)
        params = self._gradients(named, wanted)
        states = tuple(b[None] for b in begun) if wanted.states else (None,) * len(begun)
        return Gradients(grad_x.view(inputs.x.shape) if wanted.x else None, states, params)

    def _gradients(self, named: Mapping[str, Tensor], wanted: Wanted) -> tuple[Tensor | None, ...]:
        """Of each parameter, in the order in which they were given."""
        plan = self.kernel.plan
        made: list[Tensor | None] = [None] * len(self._order)
        names = [*(name for name, *_ in plan.matrices), *(name for name, _ in plan.vectors), *plan.scalars]
        for i, name in zip(self._order, names, strict=True):
            if wanted.params[i]:
                p = self.params[i]
                made[i] = named[name].reshape(p.shape) if name in named else torch.zeros_like(p)
        return tuple(made)
