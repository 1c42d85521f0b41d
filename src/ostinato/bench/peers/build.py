"""Peers by name: which can be had for a cell, and making one that holds copies of given weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...ir import Program, simplify
from ..task.cells import cell_named, extra_sizes
from ..task.contest import Contestant, Problem, TorchContestant
from ..task.forms import PLAIN, Form
from ..task.shapes import PER_WORK, Shape
from ..task.work import work_of
from .loops import LOOPS
from .recurrent import RECURRENT, build_torchrecurrent, why_no_torchrecurrent
from .torch_nn import TORCH_MODULES, build_torch_module
from .with_jax import build_jax_scan, why_no_jax

__all__ = ["build_peer", "why_no_peer", "why_not_installed"]


def why_not_installed(peer: str) -> str | None:
    """Why a peer is not on this machine at all, with the remedy; None where it is."""
    if peer == "jax":
        return why_no_jax()
    return why_no_torchrecurrent() if peer == "torchrecurrent" else None


def why_no_peer(peer: str, cell: str) -> str | None:
    """Why a peer cannot be had for a cell, or None where it can."""
    if peer.startswith("torch.nn") and cell not in TORCH_MODULES:
        return f"torch.nn has no {cell}"
    if peer in PER_WORK and cell == "lstm":
        return "it is what the others are held against"
    if peer == "lstm/flop" and not work_of(*_step(cell), Shape(1, 1, _ANY), "infer").flops:
        return f"{cell} has no product of matrices"
    if peer == "jax" and cell not in LOOPS:
        return f"nobody has written {cell} for JAX"
    if peer == "torchrecurrent" and cell not in RECURRENT:
        return f"torchrecurrent has no {cell}"
    return why_not_installed(peer)


_ANY = 8  # a width to ask at whether there is a product at all


def _step(cell: str) -> tuple[Program, dict[str, int]]:
    program = simplify(cell_named(cell).program())
    return program, {"D": _ANY, "H": _ANY, **extra_sizes(program, _ANY)}


def build_peer(peer: str, problem: Problem, weights: Mapping[str, Tensor], form: Form = PLAIN) -> Contestant:
    """A peer that holds copies of `weights`, for `torch.nn`, `jax`, `torchrecurrent`, and `eager-loop` by hand."""
    if peer.startswith("torch.nn"):
        return build_torch_module(problem, weights, form)
    build = {"eager-loop": _eager_loop, "jax": build_jax_scan, "torchrecurrent": build_torchrecurrent}[peer]
    return build(problem, weights)


def _eager_loop(problem: Problem, weights: Mapping[str, Tensor]) -> Contestant:
    loop = LOOPS[problem.cell]
    operands = loop.fuse(dict(weights))

    def forward(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return loop(x, state, operands)

    def gradients() -> dict[str, Tensor]:
        return loop.gradients(operands, dict(weights))

    return TorchContestant(problem, forward, list(operands.values()), gradients)
