"""Peers made beside our own layer: what needs its step, its masks, or the layer itself in another form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..task.contest import Call, Contestant, Problem, TorchContestant
from ..task.forms import PLAIN, Form, pack
from .build import build_peer
from .loops import LOOPS
from .ours import Ours, build_ours
from .written import WrittenLoop

__all__ = ["Copying", "build_beside"]


def build_beside(peer: str, problem: Problem, ours: Ours, form: Form, pass_: str) -> Contestant:
    """A peer that holds copies of our weights, or is told by our step what it has to do."""
    if peer == "copy":
        return Copying(ours.work(pass_).bytes)
    if peer == "eager-loop" and problem.cell not in LOOPS:
        return _written_loop(problem, ours)
    if peer.startswith("ours"):
        alike = build_ours(problem, ours.layer.backend, pass_=pass_)
        return _with_lengths(problem, alike) if peer == "ours lengths=" else alike.contestant
    return build_peer(peer, problem, ours.weights, form if peer == "torch.nn" else PLAIN)


class Copying:
    """Moving as many bytes as a cell must, the least time of one that has next to nothing to compute.

    It is `torch.Tensor.copy_` of one buffer to another, by all of torch's threads.

    Args:
        count: bytes, read and written together: half of them are read, half written.
    """

    def __init__(self, count: float) -> None:
        values = max(1, round(count / 8))
        self.source, self.target = torch.ones(values), torch.empty(values)

    def call(self, pass_: str) -> Call:
        return lambda: self.target.copy_(self.source)

    def outcome(self, pass_: str) -> dict[str, Tensor]:
        return {"output": self.target.copy_(self.source)}


def _with_lengths(problem: Problem, ours: Ours) -> Contestant:
    """Our layer given padded sequences and their lengths."""
    layer = ours.layer
    return replace(
        ours.contestant,
        forward=lambda x, state: layer(x, state, lengths=problem.lengths),
        shown=lambda whole: pack(problem, whole).data,
    )


def _written_loop(problem: Problem, ours: Ours) -> Contestant:
    loop = WrittenLoop(ours.program, ours.sizes)
    weights = {name: weight.detach().clone() for name, weight in ours.weights.items()}
    fixed = ours.layer._stack.places[0].program.fixed
    leaves = {name: weight.requires_grad_() for name, weight in weights.items() if name not in fixed}

    def forward(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return loop(x, state, weights, ours.masks(x))

    def gradients() -> dict[str, Tensor]:
        # what an expectation made vanish has none
        return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    return TorchContestant(problem, forward, list(leaves.values()), gradients)
