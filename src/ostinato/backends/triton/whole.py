"""Kernels over whole sequences at work."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...errors import BackendError
from .call import Call
from .device import facts
from .form import Form
from .launch import launch
from .layout import Layout
from .load import load
from .outside import factor
from .render import given, render

__all__ = ["Whole"]

PATIENCE = 1 << 24  # looks at a counter, over all of a call, before a program gives up: seconds


class Whole:
    """A kernel over whole sequences.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
    """

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        self.layout, self.form, self.name = layout, form, name
        self.text, self.rooms = render(layout, form, name)

    @cached_property
    def module(self) -> ModuleType:
        """The kernel's module."""
        return load(self.text)

    def run(self, call: Call, matrices: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Launch it, as often as the card must be filled.

        Raises:
            LaunchError: it cannot be launched.
            BackendError: the programs of an earlier kernel, or of this one, did not meet.
        """
        form, device = self.form, call.device
        groups, at_once = -(-call.batch // form.batch), facts(device).programs
        like = getattr(torch, form.factors) if form.narrow else torch.float32
        exchange = torch.zeros(self.rooms["exchange"] * call.batch + 1, dtype=like, device=device)
        totals = torch.zeros(self.rooms["totals"] * call.batch + 1, device=device)
        counters = torch.zeros(call.batch + 2, dtype=torch.int32, device=device)
        arguments: dict[str, Any] = {"exchange": exchange, "totals": totals, "counters": counters, "patience": PATIENCE}
        for i, (matrix, *_) in enumerate(self.layout.plan.matrices):
            arguments[f"m{i}"] = weight = factor(matrices[matrix], form.factors)
            arguments[f"ld{i}"] = weight.stride(0)
        arguments |= values
        names = given(self.layout.plan, self.name == "backward")
        function: Any = getattr(self.module, self.name)
        together = max(1, at_once // form.slices) if form.meeting else groups
        for earlier in range(0, groups, together):
            grid = min(together, groups - earlier), form.slices
            arguments["earlier"] = earlier
            launch(function, grid, [arguments[name] for name in names], call.constants(), form)
        if form.meeting:
            _met(counters[-1:])


def _met(flag: Tensor) -> None:
    """Raise if programs gave up waiting for one another: of this call, or, where one would have to wait for it, of an
    earlier one. Results that come of that are NaN.
    """
    if not flag.is_cuda:
        waiting = [(flag, None)]
    elif torch.cuda.is_current_stream_capturing():
        return
    else:
        said = torch.empty(1, dtype=flag.dtype, pin_memory=True)
        said.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        _waiting.append((said, event))
        waiting = []
        while _waiting and (_waiting[0][1] is None or _waiting[0][1].query()):
            waiting.append(_waiting.pop(0))
    if any(int(said) for said, _ in waiting):
        raise BackendError(
            "the programs of a kernel did not meet in time, and what came of it is NaN; the GPU may be shared with "
            "others: try again, or use backend='eager'"
        )


_waiting: list[tuple[Tensor, torch.cuda.Event | None]] = []
