"""What takes part in a benchmark: one problem, and contestants that each solve it their own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from ...ir import size_value
from .cells import cell_named, extra_sizes
from .shapes import Shape

__all__ = [
    "STREAM_CHECK_STEPS",
    "Call",
    "Contestant",
    "Problem",
    "TorchContestant",
    "difference",
    "distances",
    "repeatable",
]

Call = Callable[[], object]
STREAM_CHECK_STEPS = 4
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Problem:
    """One cell at one shape: the input, and the gradient that arrives at the output."""

    cell: str
    shape: Shape
    x: Tensor  # [T, B, D]
    grad: Tensor  # [T, B, O]
    lengths: Tensor  # [B], from 1 to T, for the contestants that are given sequences of several lengths

    @classmethod
    def draw(cls, cell: str, shape: Shape, seed: int = 0) -> Problem:
        """The same numbers for the same cell and shape, so that a rerun measures the same work."""
        generator = torch.Generator().manual_seed(seed)
        program = cell_named(cell).program()
        width = size_value(program.output_size, {"D": shape.D, "H": shape.H, **extra_sizes(program, shape.H)})
        x = torch.randn(shape.T, shape.B, shape.D, generator=generator)
        grad = torch.randn(shape.T, shape.B, width, generator=generator)
        return cls(cell, shape, x, grad, _uniform_lengths(shape, generator))


def _uniform_lengths(shape: Shape, generator: torch.Generator) -> Tensor:
    """Lengths [B], uniform from 1 to T: one from each of B equal parts of that range, in any order.

    So about half of the steps are real at every shape. Of 16 lengths drawn alone the share has a deviation of 7 points,
    and a bench would measure its one draw.
    """
    places = torch.arange(shape.B) + torch.rand(shape.B, generator=generator)
    drawn = 1 + (places * shape.T / shape.B).floor().long().clamp(max=shape.T - 1)
    return drawn[torch.randperm(shape.B, generator=generator)]


class Contestant(Protocol):
    """Somebody who can do the passes.

    call: a function of no arguments that does the pass once, to its very end, each time it is called.
    outcome: what the pass gives, under names all contestants share: `output`, and in training `dx` and one
    `d NAME` for each weight.
    """

    def call(self, pass_: str) -> Call: ...

    def outcome(self, pass_: str) -> dict[str, Tensor]: ...


@contextmanager
def repeatable() -> Iterator[None]:
    """Random masks drawn within are the same each time, for whoever draws them in the same order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@dataclass
class TorchContestant:
    """A contestant made of torch operations: our layer, a torch.nn module, a loop by hand.

    forward: (x, state or None) -> (output [T, B, O], state).
    parameters: the leaves whose gradients training asks for.
    gradients: their gradients after a backward pass, under the shared names.
    dtype: of x and of the gradient that arrives; around: a context for the forward pass, such as autocast.
    lay: how a tensor over time [T, B, S] lies for this contestant: x, and the gradient that arrives.
    given: what `forward` is called with, made of x as it lies; flat: its output as a tensor that lies so.
    shown: such a tensor in the form in which the contestants of a group are held against each other.
    """

    problem: Problem
    forward: Callable[[Any, Any], tuple[Any, Any]]
    parameters: Sequence[Tensor]
    gradients: Callable[[], Mapping[str, Tensor]]
    dtype: torch.dtype = torch.float32
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    lay: Callable[[Tensor], Tensor] = lambda whole: whole
    given: Callable[[Tensor], Any] = lambda leaf: leaf
    flat: Callable[[Any], Tensor] = lambda output: output
    shown: Callable[[Tensor], Tensor] = lambda value: value
    x: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.x = self.lay(self.problem.x.to(self.dtype)).clone().requires_grad_()

    def call(self, pass_: str) -> Call:
        return {"train": self._train, "infer": self._infer, "stream": self._stream}[pass_]()

    def outcome(self, pass_: str) -> dict[str, Tensor]:
        with repeatable():
            if pass_ == "train":
                output = self._train()()
                assert self.x.grad is not None, "the input took no gradient"
                found = {"output": output.detach(), "dx": self.x.grad}
                found = {name: self.shown(value).float().clone() for name, value in found.items()}
                found.update((f"d {name}", grad.float().clone()) for name, grad in self.gradients().items())
                return found
            with torch.no_grad():
                if pass_ == "infer":
                    return {"output": self.shown(self._infer()()).float()}
                step = self._stream()
                return {"output": torch.cat([step() for _ in range(STREAM_CHECK_STEPS)]).float()}

    def _run(self, leaf: Tensor, state: Any) -> tuple[Tensor, Any]:
        with self.around():
            output, state = self.forward(self.given(leaf), state)
        return self.flat(output), state

    def _train(self) -> Callable[[], Tensor]:
        run, x = self._run, self.x
        leaves = [x, *self.parameters]
        with torch.no_grad():  # under autocast the output's dtype is not that of x
            grad = self.lay(self.problem.grad).to(run(x, None)[0].dtype)

        def train() -> Tensor:
            # As optimizers do (set_to_none=True): no gradient is added to one of the step before.
            for leaf in leaves:
                leaf.grad = None
            output, _ = run(x, None)
            torch.autograd.backward(output, grad)
            return output

        return train

    def _infer(self) -> Callable[[], Tensor]:
        run, x = self._run, self.x.detach()
        return lambda: run(x, None)[0]

    def _stream(self) -> Callable[[], Tensor]:
        run, x = self._run, self.x.detach()
        state: Any = None

        def step() -> Tensor:
            nonlocal state
            output, state = run(x, state)
            return output

        return step


def difference(
    ours: Mapping[str, Tensor],
    peer: Mapping[str, Tensor],
    tolerance: float = TOLERANCE,
    rounding: Mapping[str, float] = MappingProxyType({}),
) -> str | None:
    """Why two outcomes are not the same, or None; norms of differences are relative to the peer's.

    Everything the peer gives must be given by ours too: a gradient left out would be cheap. A gradient that is zero
    but for rounding (a bias that nothing can tell) is held against a hundredth of the largest one.

    rounding: how far a value is from float64 as a matter of course (see `distances`), where that is known: each side
        may be as far, so that they are twice as far apart, and twice that for good measure.
    """
    scales = _scales(peer)
    for name, expected in peer.items():
        if name not in ours:
            return f"{name} is missing from ours"
        got = ours[name]
        if got.shape != expected.shape:
            return f"{name} has shape {tuple(got.shape)}, the peer's has {tuple(expected.shape)}"
        error = float((got - expected).norm()) / scales[name]
        allowed = max(tolerance, 4 * rounding.get(name, 0.0))
        # Not `error > allowed`: a nan must count as a difference.
        if not error <= allowed:
            return f"{name} differs from the peer's by {error:.1e} of its norm (allowed {allowed:.0e})"
    return None


def distances(rounded: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each value is from the exact one, relative to its norm."""
    scales = _scales(exact)
    return {name: float((rounded[name] - value).norm()) / scales[name] for name, value in exact.items()}


def _scales(values: Mapping[str, Tensor]) -> dict[str, float]:
    """What a difference is relative to."""
    norms = {name: float(value.norm()) for name, value in values.items()}
    least = 0.01 * max((norm for name, norm in norms.items() if name.startswith("d")), default=0.0)
    return {name: max(norm, least if name.startswith("d") else 0.0) or 1.0 for name, norm in norms.items()}
