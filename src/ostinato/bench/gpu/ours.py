"""What is asked of the Triton backend beside its results: the form it chose, the work it does."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ...ir import Program, simplify
from ...runtime import choose
from ..peers.ours import Ours
from .bounds import Need, bytes_of
from .grid import Case

__all__ = ["form_of", "need_of"]


def kernel_of(ours: Ours) -> Any:
    """The kernel that runs a layer's calls."""
    (place,) = ours.layer._stack.places
    step = place.ready(ours.layer.training, True, False).variant.step
    return choose(step, ours.layer.backend, ours.contestant.x.device, ours.form.products)


def form_of(ours: Ours, case: Case) -> str:
    """How the work is dealt, for each kernel that the pass runs."""
    kernel, x = kernel_of(ours), ours.contestant.x
    names = ("train", "backward") if case.pass_ == "train" else ("infer",)
    batch = case.shape.B
    return "; ".join(f"{name}: {shown(kernel.form(name, batch, x.device))}" for name in names)


def shown(form: Any) -> str:
    """A form in few words: numbers with their names, and of what is either so or not what is so."""
    words: list[str] = []
    for field in fields(form):
        value = getattr(form, field.name)
        if value is True:
            words.append(field.name)
        elif value is not False:
            words.append(f"{field.name} {value}" if isinstance(value, int) else str(value))
    return ", ".join(words)


def need_of(ours: Ours, case: Case) -> Need:
    """The least that a call has to do, whatever kernel does it."""
    program: Program = simplify(ours.program)
    bytes_ = bytes_of(program, ours.sizes, case.shape, case.pass_, case.dtype)
    return Need(ours.work(case.pass_).flops, bytes_)
