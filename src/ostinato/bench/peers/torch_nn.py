"""torch.nn's modules as peers, holding copies of our weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..task.contest import Problem, TorchContestant
from ..task.forms import Form

__all__ = ["TORCH_MODULES", "build_torch_module"]


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


def build_torch_module(problem: Problem, weights: Mapping[str, Tensor], form: Form) -> TorchContestant:
    """Its module with copies of our weights."""
    spec = TORCH_MODULES[problem.cell]
    layout = spec.layout()
    module = spec.module(problem.shape.D, problem.shape.H).to(problem.x.device, form.dtype)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, parts in layout.items():
            blocks = parameters[name].chunk(len(parts))
            for part, block in zip(parts, blocks, strict=True):
                block.copy_(weights[part]) if part else block.zero_()

    def gradients() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, parts in layout.items():
            grad = parameters[name].grad
            assert grad is not None, f"{name} took no gradient"
            blocks = grad.chunk(len(parts))
            found.update((part, block) for part, block in zip(parts, blocks, strict=True) if part)
        return found

    return form.contestant(problem, module, list(parameters.values()), gradients)
