"""The first use of a kernel on a GPU is compared with eager, on a few steps: a wrong one is refused, not believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...schedule import BatchMean
from ..base import Bound, Inputs, OutputGradients, Wanted
from .call import Call
from .device import lasting
from .form import Form
from .layout import Layout

__all__ = ["Held", "Reference", "fault"]

Reference = Callable[[Inputs, Sequence[Tensor], "Sequence[Tensor] | None"], list["Tensor | None"]]
"""Given inputs, parameters, and gradients of the output and the final states, or None: the output and the final states,
and behind them, where gradients are given, those of x, of the states and of the parameters."""

STEPS = 4
# Of a result's root mean square: a mistake is larger, rounding is not, even where it takes a few numbers to the other
# side of a threshold. Results may be sums that come to nothing: they are held to a part of the greatest one.
MOST = {"float32": 1e-2, "tf32": 5e-2, "bfloat16": 1e-1, "float16": 5e-2}
PART = 0.1


class Held(Bound, Protocol):
    """A kernel with its parameters, which says what they are."""

    params: list[Tensor]


def fault(layout: Layout, name: str, form: Form, call: Call, bound: Held, meant: Reference) -> str:
    """What a kernel, which has this form now, gets wrong over a few steps of a few sequences, in words; "" for nothing.

    Args:
        layout: the Plan at its sizes; name: infer, train or backward; call: one that it is to be used for.
        bound: the kernel with its parameters; meant: gives what is right.
    """
    with lasting():  # eager keeps for its backward what it is given here
        return _fault(layout, name, form, call, bound, meant)


def _fault(layout: Layout, name: str, form: Form, call: Call, bound: Held, meant: Reference) -> str:
    inputs = _inputs(layout, form, call)
    outputs, tape = bound.forward(inputs, name != "infer")
    found: list[Tensor | None] = [outputs.output, *outputs.finals]
    grads = None
    if name == "backward":
        assert tape is not None
        draw = _Numbers(call.device)
        grads = [draw(*t.shape) for t in (outputs.output, *outputs.finals)]
        wanted = Wanted(True, inputs.states is not None, [True] * len(bound.params))
        given = OutputGradients(grads[0], grads[1:])
        made = bound.backward(tape, inputs, outputs.output, given, wanted)
        found += [made.x, *(made.states if inputs.states is not None else ()), *made.params]
    expected = meant(inputs, bound.params, grads)
    return _difference(found, expected, name, MOST[form.factors])


def _difference(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], name: str, most: float) -> str:
    """Which result is off by more than the most that it may be; results of which the reference is not finite may."""
    pairs = [
        (number, has, wants)
        for number, (has, wants) in enumerate(zip(found, expected, strict=True))
        if has is not None and wants is not None and wants.numel() and wants.isfinite().all()
    ]
    sizes = [float(wants.square().mean().sqrt()) for _, _, wants in pairs]
    for (number, has, wants), size in zip(pairs, sizes, strict=True):
        off = float((has - wants).square().mean().sqrt()) / max(size, PART * max(sizes), 1e-30)
        if not off <= most:
            return f"result {number} of {name} is off by {off:.1e} of its root mean square"
    return ""


def _inputs(layout: Layout, form: Form, call: Call) -> Inputs:
    """Random numbers of the kind that a call is given; the user's own generator stays where it is."""
    draw = _Numbers(call.device)
    means = any(isinstance(slot, BatchMean) for slot in layout.plan.infer)
    batch = min(call.batch, form.batch + (not means))
    lengths = None if call.lengths is None else STEPS - torch.arange(batch, device="cpu") * STEPS // batch
    rows = [int(lengths.sum())] if call.packed and lengths is not None else [STEPS, batch]
    states = None if call.states is None else [draw(1, batch, size) for size in layout.state_sizes]
    masks = [draw(*rows, layout.of(size)).abs() for _, size in layout.plan.masks]
    x = draw(*rows, layout.of(layout.plan.input_size))
    return Inputs(x, states, lengths, call.reverse, masks)


class _Numbers:
    """Random numbers, the same ones every time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.generator = device, torch.Generator(device).manual_seed(5)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float32, device=self.device, generator=self.generator)
