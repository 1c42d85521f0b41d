"""Kernels over whole sequences at work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import StalledError, TooLargeError
from ..base import captured
from .call import MOST, Call
from .device import facts, lasting
from .form import Form
from .launch import launch
from .layout import Layout
from .load import Rendered
from .outside import factor
from .render import given, render

__all__ = ["Whole"]

PATIENCE = 1 << 24  # looks at a counter, over all of a call, before a program gives up: seconds


class Whole(Rendered):
    """A kernel over whole sequences.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
    """

    def __init__(self, layout: Layout, form: Form, name: str) -> None:
        text, self.rooms = render(layout, form, name)
        super().__init__(layout, form, name, text)
        self.used = set(re.findall(r"\bm\d+\b", self.text.split("):", 1)[1]))

    def run(self, call: Call, matrices: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Launch it, as often as the card must be filled.

        Raises:
            LaunchError: it cannot be launched.
            StalledError: the programs of an earlier kernel, or of this one, did not meet.
        """
        form, card = self.form, facts(call.device)
        call.check(max(*self.rooms.values(), *self.layout.state_sizes, 1))
        groups = -(-call.batch // form.batch)
        together = max(1, card.programs // form.slices) if form.meeting else groups
        arguments: dict[str, Any] = {"patience": min(PATIENCE + 64 * call.steps, MOST)}
        for i, (matrix, *_) in enumerate(self.layout.plan.matrices):
            used = f"m{i}" in self.used
            arguments[f"m{i}"] = weight = factor(matrices[matrix], form.factors) if used else matrices[matrix]
            arguments[f"ld{i}"] = weight.stride(0)
        arguments |= {**self._meeting(call), **values}
        names = given(self.layout.plan, self.name == "backward")
        function: Any = getattr(self.module, self.name)
        for earlier in range(0, groups, together):
            grid = min(together, groups - earlier), form.slices
            arguments["earlier"] = earlier
            launch(function, grid, [arguments[name] for name in names], call.constants(), form)
        if form.meeting:
            flags(call.device).look()

    def _meeting(self, call: Call) -> dict[str, Tensor]:
        """What programs that meet have in common."""
        form, device = self.form, call.device
        if not form.meeting:
            none = call.x.new_empty(4)
            return dict.fromkeys(("exchange", "totals", "counters", "failed"), none)
        slots = max(len(self.layout.plan.infer), len(self.layout.plan.backward))
        if call.steps * form.slices * (slots + 1) > MOST:
            raise TooLargeError(f"{call.steps} steps are more than programs that meet can count; use shorter pieces")
        like = getattr(torch, form.factors) if form.narrow else torch.float32
        return {
            "exchange": torch.empty(self.rooms["exchange"] * call.batch + 1, dtype=like, device=device),
            "totals": torch.empty(self.rooms["totals"] * call.batch + 1, device=device),
            "counters": torch.zeros(call.batch + 1, dtype=torch.int32, device=device),
            "failed": flags(device).here,
        }


class Flags:
    """Whether programs of a device gave up waiting for one another: found out later, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.here = torch.zeros(1, dtype=torch.int32, device=device)
        self._said = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=device.type == "cuda")

    def look(self) -> None:
        """Raise if programs are known to have given up: on a GPU those of an earlier call, most often.

        What came of that call is NaN.
        """
        if not self.here.is_cuda:
            self._said.copy_(self.here)
        elif captured(self.here.device):
            return
        if int(self._said):
            self.forget()
            raise StalledError(
                "the programs of a kernel did not meet in time, and what came of it is NaN; the GPU may be shared with "
                "others: try again, or use backend='eager'"
            )
        if self.here.is_cuda:
            self._said.copy_(self.here, non_blocking=True)

    def forget(self) -> None:
        """Nothing is known of any."""
        self.here.zero_()
        self._said.zero_()


@lru_cache(maxsize=64)
def flags(device: torch.device) -> Flags:
    """Of a device."""
    with lasting():
        return Flags(device)
