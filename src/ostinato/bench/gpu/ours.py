"""What is asked of the Triton backend beside its results: the forms it chose, and the work of a call."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ...backends.triton import Form, TritonKernel, work
from ...backends.triton.choosing import TRIED
from ...errors import LaunchError
from ...runtime import choose
from ..peers.ours import Ours
from .bounds import Need
from .grid import Case

__all__ = ["TRIED", "compile_form", "form_of", "need_of"]

NAMES = {"infer": ("infer",), "train": ("train", "backward")}


def kernel_of(ours: Ours) -> TritonKernel:
    """The kernel that runs a layer's calls."""
    (place,) = ours.layer._stack.places
    step = place.ready(ours.layer.training, True, False).variant.step
    kernel = choose(step, ours.layer.backend, ours.contestant.x.device, ours.form.products)
    assert isinstance(kernel, TritonKernel)
    return kernel


def form_of(ours: Ours, case: Case) -> str:
    """How the work is dealt, for each kernel that the pass runs; once where they are alike."""
    kernel, device = kernel_of(ours), ours.contestant.x.device
    said = {name: shown(kernel.form(name, case.shape.B, device)) for name in NAMES[case.pass_]}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{name}: {form}" for name, form in said.items())


def shown(form: Form) -> str:
    """A form in few words: numbers with their names, and of what is either so or not what is so."""
    words: list[str] = []
    for field in fields(form):
        value: Any = getattr(form, field.name)
        if value is True:
            words.append(field.name)
        elif value is not False:
            words.append(f"{field.name} {value}" if isinstance(value, int) else str(value))
    return ", ".join(words)


def compile_form(ours: Ours, case: Case, number: int) -> None:
    """Run one of the forms that would be measured, so that it is compiled; nothing, where there are not so many."""
    kernel, device, call = kernel_of(ours), ours.contestant.x.device, ours.contestant.call(case.pass_)
    for name in NAMES[case.pass_]:
        for form in kernel.chooser.tried(kernel, name, case.shape.B, device)[number : number + 1]:
            try:
                with kernel.taking(name, form):
                    call()
            except LaunchError:  # the backend refuses it as well, when it measures
                continue


def need_of(ours: Ours, case: Case) -> Need:
    """What a call has to do: that of its kernels together, and the operations in products that any kernel has."""
    kernel, shape = kernel_of(ours), case.shape
    parts = [work(kernel.plan, kernel.sizes, name, shape.T, shape.B) for name in NAMES[case.pass_]]
    operations, bytes_ = sum(part.operations for part in parts), sum(part.bytes for part in parts)
    return Need(ours.work(case.pass_).flops, operations, bytes_)
