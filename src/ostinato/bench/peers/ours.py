"""Our own layer as a contestant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...ir import Program
from ...nn import RNN
from ...runtime import choose
from ..task.cells import cell_named, extra_sizes
from ..task.contest import Problem, TorchContestant, distances
from ..task.forms import PLAIN, Form
from ..task.work import Work, work_of

__all__ = ["Ours", "build_ours", "ran_on", "rounding"]


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ours:
    """Our layer, ready to run.

    weights: those that are trained and those that are fixed, under the names in the equations.
    backend: the one that really runs.
    program: the step that a peer has to compute, masks and all; sizes: a number for each of its symbols.
    """

    contestant: TorchContestant
    weights: Mapping[str, Tensor]
    backend: str
    layer: RNN
    program: Program
    sizes: dict[str, int]
    form: Form = PLAIN

    def work(self, pass_: str) -> Work:
        """The work of a call; of sequences of several lengths that of their real steps."""
        problem = self.contestant.problem
        work = work_of(self.program, self.sizes, problem.shape, pass_)
        if self.form.name != "packed":
            return work
        share = float(problem.lengths.sum()) / (problem.shape.T * problem.shape.B)
        return Work(work.flops * share, work.operations * share, work.bytes * share)

    def masks(self, x: Tensor) -> list[Tensor]:
        """The random numbers that the layer draws for an input x [T, B, D], in the order of the Program's."""
        (place,) = self.layer._stack.places
        variant = place.ready(self.layer.training, True, False).variant
        if not self.program.masks:
            return []
        if variant.takes_statistics:  # statistics of the batch, as they were kept
            return list(place.running.given(self.layer._weights(place.running.all_names), x, None))
        names = [mask.name for mask in variant.step.program.masks]
        drawn = dict(zip(names, variant.masks(x, None, None), strict=True))
        return [drawn[mask.name] for mask in self.program.masks]


def build_ours(
    problem: Problem, backend: str = "auto", seed: int = 0, *, pass_: str = "infer", form: Form = PLAIN
) -> Ours:
    """The layer of `problem.cell` at its widths, where its x is, its weights drawn from `seed`; in training mode for
    the pass `train`.

    Biases that start at zero are drawn too: one added twice or not at all would not show.
    """
    shape, cell = problem.shape, cell_named(problem.cell)
    sizes, device = extra_sizes(cell.program(), shape.H), problem.x.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = RNN(cell, shape.D, shape.H, backend=backend, sizes=sizes, device=device).train(pass_ == "train")
        with torch.no_grad():
            for weight in layer.cell_parameters().values():
                if weight.dim() == 1 and not weight.any():
                    weight.uniform_(-0.1, 0.1)
    layer.to(form.dtype)
    (place,) = layer._stack.places
    contestant = form.contestant(problem, layer, list(layer.parameters()), _gradients(layer))
    weights = _weights(layer)
    program = place.program if layer.training else place.ready(False, True, False).variant.step.program
    backend, sizes = ran_on(layer, form, device), {"D": shape.D, "H": shape.H, **sizes}
    return Ours(contestant, weights, backend, layer, program, sizes, form)


def rounding(ours: Ours, pass_: str) -> dict[str, float]:
    """How far the eager backend is from itself in float64, for each value of the outcome.

    Where a gradient grows over time rounding grows with it, and nobody who computes in float32 can be held closer.
    """
    found: list[Mapping[str, Tensor]] = []
    for dtype in (ours.form.dtype, torch.float64):
        twin = deepcopy(ours.layer).to(dtype)
        twin.backend = "eager"
        parameters = list(twin.parameters())
        contestant = replace(
            ours.contestant, forward=twin, parameters=parameters, gradients=_gradients(twin), dtype=dtype
        )
        found.append(contestant.outcome(pass_))
    return distances(*found)


def _weights(layer: RNN) -> dict[str, Tensor]:
    """All that the equations name, under the names there."""
    (place,) = layer._stack.places
    return dict(zip(place.names, layer._weights(list(place.names.values())), strict=True))


def _gradients(layer: RNN) -> Callable[[], dict[str, Tensor]]:
    """What gives the gradients of the weights that are trained."""
    (place,) = layer._stack.places
    trained = {name: weight for name, weight in _weights(layer).items() if name not in place.program.fixed}

    def gradients() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, weight in trained.items():
            assert weight.grad is not None, f"{name} took no gradient"
            found[name] = weight.grad
        return found

    return gradients


def ran_on(layer: RNN, form: Form = PLAIN, device: torch.device = CPU) -> str:
    """The name of the backend that runs a layer's calls on a device."""
    (place,) = layer._stack.places
    step = place.ready(layer.training, True, False).variant.step
    kernel = choose(step, layer.backend, device, form.products)
    return "eager" if kernel is None else "c" if layer.backend == "auto" else layer.backend
