"""What takes part in a benchmark: one problem, and contestants that each solve it their own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .shapes import Shape

__all__ = ["STREAM_CHECK_STEPS", "Call", "Contestant", "Problem", "TorchContestant", "difference"]

Call = Callable[[], object]
STREAM_CHECK_STEPS = 4


@dataclass(frozen=True)
class Problem:
    """One cell at one shape: the input, and the gradient that arrives at the output."""

    cell: str
    shape: Shape
    x: Tensor  # [T, B, D]
    grad: Tensor  # [T, B, H]

    @classmethod
    def draw(cls, cell: str, shape: Shape, seed: int = 0) -> Problem:
        """The same numbers for the same cell and shape, so that a rerun measures the same work."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape.T, shape.B, shape.D, generator=generator)
        grad = torch.randn(shape.T, shape.B, shape.H, generator=generator)
        return cls(cell, shape, x, grad)


class Contestant(Protocol):
    """Somebody who can do the passes.

    call: a function of no arguments that does the pass once, to its very end, each time it is called.
    outcome: what the pass gives, under names all contestants share: `output`, and in training `dx` and one
    `d NAME` for each weight.
    """

    def call(self, pass_: str) -> Call: ...

    def outcome(self, pass_: str) -> dict[str, Tensor]: ...


@dataclass
class TorchContestant:
    """A contestant made of torch operations: our layer, a torch.nn module, a loop by hand.

    forward: (x [T, B, D], state or None) -> (output [T, B, H], state).
    parameters: the leaves whose gradients training asks for.
    gradients: their gradients after a backward pass, under the shared names.
    """

    problem: Problem
    forward: Callable[[Tensor, Any], tuple[Tensor, Any]]
    parameters: Sequence[Tensor]
    gradients: Callable[[], Mapping[str, Tensor]]
    x: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.problem.x.clone().requires_grad_()

    def call(self, pass_: str) -> Call:
        return {"train": self._train, "infer": self._infer, "stream": self._stream}[pass_]()

    def outcome(self, pass_: str) -> dict[str, Tensor]:
        if pass_ == "train":
            output = self._train()()
            assert self.x.grad is not None, "the input took no gradient"
            found = {"output": output.detach(), "dx": self.x.grad.clone()}
            found.update((f"d {name}", grad.clone()) for name, grad in self.gradients().items())
            return found
        with torch.no_grad():
            if pass_ == "infer":
                return {"output": self._infer()()}
            step = self._stream()
            return {"output": torch.cat([step() for _ in range(STREAM_CHECK_STEPS)])}

    def _train(self) -> Callable[[], Tensor]:
        forward, x, grad = self.forward, self.x, self.problem.grad
        leaves = [x, *self.parameters]

        def train() -> Tensor:
            # As optimizers do (set_to_none=True): no gradient is added to one of the step before.
            for leaf in leaves:
                leaf.grad = None
            output, _ = forward(x, None)
            torch.autograd.backward(output, grad)
            return output

        return train

    def _infer(self) -> Callable[[], Tensor]:
        forward, x = self.forward, self.problem.x
        return lambda: forward(x, None)[0]

    def _stream(self) -> Callable[[], Tensor]:
        forward, x = self.forward, self.problem.x
        state: Any = None

        def step() -> Tensor:
            nonlocal state
            output, state = forward(x, state)
            return output

        return step


def difference(ours: Mapping[str, Tensor], peer: Mapping[str, Tensor], tolerance: float = 1e-4) -> str | None:
    """Why two outcomes are not the same, or None; norms of differences are relative to the peer's.

    Everything the peer gives must be given by ours too: a gradient left out would be cheap.
    """
    for name, expected in peer.items():
        if name not in ours:
            return f"{name} is missing from ours"
        got = ours[name]
        if got.shape != expected.shape:
            return f"{name} has shape {tuple(got.shape)}, the peer's has {tuple(expected.shape)}"
        scale = float(expected.norm()) or 1.0
        error = float((got - expected).norm()) / scale
        # Not `error > tolerance`: a nan must count as a difference.
        if not error <= tolerance:
            return f"{name} differs from the peer's by {error:.1e} of its norm (allowed {tolerance:.0e})"
    return None
