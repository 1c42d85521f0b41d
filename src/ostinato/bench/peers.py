"""The contestants: our layer, and the peers it is measured against, all holding the same weights.

Weights and gradients go by the names in the cell's equations, whatever a contestant calls them inside.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..ir import Program, simplify
from .contest import STREAM_CHECK_STEPS, Call, Contestant, Problem, TorchContestant
from .contestants import cell_named, extra_sizes
from .forms import PLAIN, Form
from .loops import LOOPS
from .recurrent import RECURRENT, build_torchrecurrent, why_no_torchrecurrent
from .shapes import PER_WORK, Shape
from .work import work_of

if TYPE_CHECKING:
    from .jax_scan import JaxScan

__all__ = ["TORCH_MODULES", "build_peer", "has_jax", "limit_jax_threads", "why_no_jax", "why_no_peer"]

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TorchModule:
    """The torch.nn module that computes a cell, and where the equations' names stand in its four tensors.

    bias_hh: the names in the second bias; None stands for a block that the equations have no name for, since
    torch adds two biases where one would do. It is zero, and its gradient is not compared.
    """

    module: Callable[[int, int], nn.Module]
    gates: Sequence[str]
    bias_hh: Sequence[str | None]

    def layout(self) -> dict[str, list[str | None]]:
        return {
            "weight_ih_l0": [f"W{gate}" for gate in self.gates],
            "weight_hh_l0": [f"U{gate}" for gate in self.gates],
            "bias_ih_l0": [f"b{gate}" for gate in self.gates],
            "bias_hh_l0": list(self.bias_hh),
        }


TORCH_MODULES: dict[str, TorchModule] = {
    "elman": TorchModule(nn.RNN, [""], [None]),
    "lstm": TorchModule(nn.LSTM, ["_i", "_f", "_g", "_o"], [None] * 4),
    "gru_reset_after": TorchModule(nn.GRU, ["_r", "_z", "_n"], [None, None, "b_hn"]),
}


def has_jax() -> bool:
    """Whether JAX can be imported; it is looked for, not imported."""
    return importlib.util.find_spec("jax") is not None


def limit_jax_threads(threads: int) -> None:
    """Let XLA use as many threads as torch does. Works only before JAX is imported: XLA counts once."""
    os.environ["NPROC"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def why_no_peer(peer: str, cell: str) -> str | None:
    """Why a peer cannot be had for a cell, or None where it can."""
    if peer.startswith("torch.nn") and cell not in TORCH_MODULES:
        return f"torch.nn has no {cell}"
    if peer in PER_WORK and cell == "lstm":
        return "it is what the others are held against"
    if peer == "lstm/flop" and not work_of(*_step(cell), Shape(1, 1, _ANY), "infer").flops:
        return f"{cell} has no product of matrices"
    if peer == "jax":
        return f"nobody has written {cell} for JAX" if cell not in LOOPS else why_no_jax()
    if peer == "torchrecurrent":
        return f"torchrecurrent has no {cell}" if cell not in RECURRENT else why_no_torchrecurrent()
    return None


_ANY = 8  # a width to ask at whether there is a product at all


def _step(cell: str) -> tuple[Program, dict[str, int]]:
    program = simplify(cell_named(cell).program())
    return program, {"D": _ANY, "H": _ANY, **extra_sizes(program, _ANY)}


def why_no_jax() -> str | None:
    """Why JAX cannot be measured here, or None where it can."""
    return None if has_jax() else "JAX is not installed"


def build_peer(peer: str, problem: Problem, weights: Mapping[str, Tensor], form: Form = PLAIN) -> Contestant:
    """A peer that holds copies of `weights`, for `torch.nn`, `jax`, `torchrecurrent`, and `eager-loop` by hand."""
    if peer.startswith("torch.nn"):
        return _torch_module(problem, weights, form)
    build = {"eager-loop": _eager_loop, "jax": _jax_scan, "torchrecurrent": build_torchrecurrent}[peer]
    return build(problem, weights)


def _torch_module(problem: Problem, weights: Mapping[str, Tensor], form: Form) -> Contestant:
    spec = TORCH_MODULES[problem.cell]
    layout = spec.layout()
    module = spec.module(problem.shape.D, problem.shape.H).to(form.dtype)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, parts in layout.items():
            blocks = parameters[name].chunk(len(parts))
            for part, block in zip(parts, blocks, strict=True):
                block.copy_(weights[part]) if part else block.zero_()

    def gradients() -> Weights:
        found: Weights = {}
        for name, parts in layout.items():
            grad = parameters[name].grad
            assert grad is not None, f"{name} took no gradient"
            blocks = grad.chunk(len(parts))
            found.update((part, block) for part, block in zip(parts, blocks, strict=True) if part)
        return found

    return form.contestant(problem, module, list(parameters.values()), gradients)


def _eager_loop(problem: Problem, weights: Mapping[str, Tensor]) -> Contestant:
    loop = LOOPS[problem.cell]
    operands = loop.fuse(dict(weights))

    def forward(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return loop(x, state, operands)

    def gradients() -> Weights:
        return loop.gradients(operands, dict(weights))

    return TorchContestant(problem, forward, list(operands.values()), gradients)


def _jax_scan(problem: Problem, weights: Mapping[str, Tensor]) -> Contestant:
    from .jax_scan import STEPS, JaxScan

    loop = LOOPS[problem.cell]
    scan = JaxScan(STEPS[problem.cell], loop.states, problem.shape.H)
    return JaxContestant(problem, scan, loop.fuse(dict(weights)), dict(weights))


class JaxContestant:
    """A jitted `lax.scan` that waits for its result: JAX returns before it has computed."""

    def __init__(self, problem: Problem, scan: JaxScan, operands: Weights, weights: Weights) -> None:
        self.problem = problem
        self.scan = scan
        self.operands = operands
        self.weights = weights
        self._operands = {name: scan.take(operand) for name, operand in operands.items()}
        self._x = scan.take(problem.x)
        self._grad = scan.take(problem.grad)

    def call(self, pass_: str) -> Call:
        return {"train": self._train, "infer": self._infer, "stream": self._stream}[pass_]()

    def outcome(self, pass_: str) -> dict[str, Tensor]:
        give = self.scan.give
        if pass_ == "stream":
            step = self._stream()
            return {"output": torch.cat([give(step()) for _ in range(STREAM_CHECK_STEPS)])}
        if pass_ == "infer":
            return {"output": give(self._infer()())}
        output, (operand_grads, dx) = self._train()()
        found = {"output": give(output), "dx": give(dx)}
        for name, operand in self.operands.items():
            operand.grad = give(operand_grads[name])
        grads = LOOPS[self.problem.cell].gradients(self.operands, self.weights)
        found.update((f"d {name}", grad) for name, grad in grads.items())
        return found

    def _train(self) -> Callable[[], Any]:
        scan, operands, x, grad = self.scan, self._operands, self._x, self._grad
        state = scan.zeros(self.problem.shape.B)
        return lambda: scan.wait(scan.train(operands, x, state, grad))

    def _infer(self) -> Callable[[], Any]:
        scan, operands, x = self.scan, self._operands, self._x
        state = scan.zeros(self.problem.shape.B)
        return lambda: scan.wait(scan.forward(operands, x, state))[0]

    def _stream(self) -> Callable[[], Any]:
        scan, operands, x = self.scan, self._operands, self._x
        state = scan.zeros(self.problem.shape.B)

        def step() -> Any:
            nonlocal state
            output, state = scan.wait(scan.forward(operands, x, state))
            return output

        return step
