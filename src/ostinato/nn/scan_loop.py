"""A step of `scan` that cannot be read: called at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import OstinatoError, ShapeError
from .scan_call import Call, pair


class _Whole:
    """The step in torch, for all sequences at once; one by one from where it can do that no more."""

    def __init__(self, step: Callable[[Any, Any], tuple[Any, Any]], call: Call) -> None:
        self.step = step
        self.call = call
        self.spec: pytree.TreeSpec | None = None  # of y
        self.all: Callable[..., Any] | None = torch.vmap(self.one, randomness="different")

    def one(self, states: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The new states and the leaves of y of one sequence."""
        carry, y = pair(self.step(pytree.tree_unflatten(states, self.call.carry), x))
        leaves, spec = pytree.tree_flatten(carry)
        if spec != self.call.carry:
            raise ShapeError(f"the step turns a carry of the form {self.call.carry} into {spec}; return the same form")
        for old, new in zip(self.call.states, leaves, strict=True):
            if not isinstance(new, Tensor) or new.shape != old.shape[1:]:
                got = list(new.shape) if isinstance(new, Tensor) else f"{type(new).__name__} {new!r}"
                raise ShapeError(
                    f"the step turns a vector {list(old.shape[1:])} of the carry into {got}; return one of its size"
                )
        outputs, self.spec = ([], None) if y is None else pytree.tree_flatten(y)
        for value in outputs:
            if not isinstance(value, Tensor):
                raise ShapeError(
                    f"the step puts out {type(value).__name__} {value!r}; return tensors as y, or None for no output"
                )
        return leaves, outputs

    def __call__(self, states: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """New states, each [B, S], and the leaves of y, each [B, ...], from states and x [B, D]."""
        if not len(x):
            new, outputs = self.one([s.new_zeros(s.shape[1:]) for s in states], x.new_zeros(x.shape[1:]))
            return states, [y.new_zeros(0, *y.shape) for y in outputs]
        if self.all is not None:
            try:  # copies, as the step may change them in place
                return self.all([s.clone() for s in states], x.clone())
            except OstinatoError:
                raise
            except Exception:  # noqa: BLE001 - what looks at numbers cannot be done at once; an error of its own comes again
                self.all = None
        rows = [self.one([s[b].clone() for s in states], x[b].clone()) for b in range(len(x))]
        new, outputs = ([torch.stack(column) for column in zip(*part, strict=True)] for part in zip(*rows, strict=True))
        return new, outputs


def run_loop(step: Callable[[Any, Any], tuple[Any, Any]], call: Call, reverse: bool) -> tuple[Any, Any]:
    """The same, step by step, in torch."""
    steps, batch = call.xs.shape[:2]
    lengths = torch.full((batch,), steps, device="cpu") if call.lengths is None else call.lengths
    across = torch.arange(batch, device=call.xs.device)
    whole = _Whole(step, call)
    states, rows = call.states, list[list[Tensor]]()
    for t in range(steps):
        at = (lengths - 1 - t).clamp_min(0) if reverse else torch.full_like(lengths, t)
        new, outputs = whole(states, call.xs[at.to(across.device), across])
        running = (t < lengths).to(across.device)
        states = [_where(running, a, b) for a, b in zip(new, states, strict=True)]
        rows.append([_where(running, y, torch.zeros_like(y)) for y in outputs])
    finals = call.give(states, call.carry, 0)
    if not steps:  # what y would be, a step on zeros tells
        outputs = whole([s.new_zeros(1, s.shape[1]) for s in states], call.xs.new_zeros(1, call.xs.shape[2]))[1]
        stacks = [y.new_zeros(0, batch, *y.shape[1:]) for y in outputs]
    else:
        stacks = [torch.stack(column) for column in zip(*rows, strict=True)]
    if reverse and stacks:  # the y of step t stands at t
        times = torch.arange(steps, device="cpu").unsqueeze(1)
        place = torch.where(times < lengths, lengths - 1 - times, times).to(across.device)
        stacks = [stack[place, across] for stack in stacks]
    return finals, None if whole.spec is None else call.give(stacks, whole.spec, 1)


def _where(running: Tensor, value: Tensor, other: Tensor) -> Tensor:
    """The value of the sequences that run, the other of the rest; both [B, ...]."""
    return torch.where(running.reshape(-1, *[1] * (value.dim() - 1)), value, other)
