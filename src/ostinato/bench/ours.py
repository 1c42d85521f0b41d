"""Our own layer as a contestant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nn import RNN
from ..runtime import choose
from .contest import Problem, TorchContestant

__all__ = ["Ours", "build_ours", "gradients_of_views", "ran_on"]


@dataclass(frozen=True)
class Ours:
    """Our layer, ready to run.

    weights: under the names in the equations; backend: the one that really runs.
    matrix_elements: how many elements the weight matrices have, which counts the operations of a call.
    """

    contestant: TorchContestant
    weights: Mapping[str, Tensor]
    backend: str

    @property
    def matrix_elements(self) -> int:
        return sum(weight.numel() for weight in self.weights.values() if weight.dim() == 2)


def build_ours(problem: Problem, backend: str = "auto", seed: int = 0) -> Ours:
    """The layer of `problem.cell` at its widths, in evaluation mode, its weights drawn from `seed`.

    The biases are drawn too: left at zero, one added twice or not at all would not show.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = RNN(problem.cell, problem.shape.D, problem.shape.H, backend=backend).eval()
        weights = layer.cell_parameters()
        with torch.no_grad():
            for weight in weights.values():
                if weight.dim() == 1:
                    weight.uniform_(-0.1, 0.1)
    parameters = list(layer.parameters())

    def gradients() -> dict[str, Tensor]:
        return gradients_of_views(weights, parameters)

    contestant = TorchContestant(problem, layer, parameters, gradients)
    return Ours(contestant, weights, ran_on(layer))


def ran_on(layer: RNN) -> str:
    """The name of the backend that runs a layer's float32 calls on CPU."""
    (runner,) = layer._runners
    kernel = choose(runner.step, layer.backend, torch.device("cpu"), torch.float32)
    return "eager" if kernel is None else "c"


def gradients_of_views(views: Mapping[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """The part of a parameter's gradient that belongs to each view of it.

    A layer may pack several weights into one parameter; a view has its place in that parameter's storage,
    and the gradient is laid out as the parameter is.
    """
    owners = {parameter.untyped_storage().data_ptr(): parameter for parameter in parameters}
    found: dict[str, Tensor] = {}
    for name, view in views.items():
        owner = owners[view.untyped_storage().data_ptr()]
        assert owner.grad is not None, f"{name} took no gradient"
        grad = owner.grad if owner.grad.stride() == owner.stride() else owner.grad.contiguous()
        offset = view.storage_offset() - owner.storage_offset() + grad.storage_offset()
        found[name] = grad.as_strided(view.shape, view.stride(), offset)
    return found
