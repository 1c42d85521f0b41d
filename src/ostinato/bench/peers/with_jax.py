"""A jitted `lax.scan` as a peer; JAX is imported when it is built, and not before."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..task.contest import STREAM_CHECK_STEPS, Call, Contestant, Problem
from .loops import LOOPS

if TYPE_CHECKING:
    from .jax_scan import JaxScan

__all__ = ["build_jax_scan", "limit_jax_threads", "why_no_jax"]

Weights = dict[str, Tensor]


def limit_jax_threads(threads: int) -> None:
    """Let XLA use as many threads as torch does. Works only before JAX is imported: XLA counts once."""
    os.environ["NPROC"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


def why_no_jax() -> str | None:
    """Why JAX cannot be measured here, or None where it can; it is looked for, not imported."""
    if importlib.util.find_spec("jax") is None:
        return "JAX is not installed; run: pip install 'ostinato[bench]'"
    return None


def build_jax_scan(problem: Problem, weights: Mapping[str, Tensor]) -> Contestant:
    """The loop by hand, written for JAX, with copies of our weights."""
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
