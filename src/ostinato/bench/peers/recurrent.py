"""PyPI's torchrecurrent as a peer: a loop in Python over modules of one step, for the cells that both have."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..task.contest import Contestant, Problem, TorchContestant

__all__ = ["RECURRENT", "build_torchrecurrent", "why_no_torchrecurrent"]


@dataclass(frozen=True)
class Match:
    """A layer of torchrecurrent that computes a cell of ours.

    Args:
        layer: the name of its class.
        layout: the names in our equations that its parameters are stacked from, by their names in it.
        options: what it is built with; recurrent biases, of which our equations have none, are always left out.
        frozen: parameters of it that our equations have as a number.
    """

    layer: str
    layout: Mapping[str, Sequence[str]]
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: Sequence[str] = ()


def _gates(names: str, recurrent: str | None = None) -> dict[str, list[str]]:
    recurrent = names if recurrent is None else recurrent
    return {
        "weight_ih": [f"W_{gate}" for gate in names],
        "weight_hh": [f"U_{gate}" for gate in recurrent],
        "bias_ih": [f"b_{gate}" for gate in names],
    }


RECURRENT: dict[str, Match] = {
    "peephole_lstm": Match("PeepholeLSTM", {**_gates("ifgo"), "weight_ph": ["p_i", "p_f", "p_o"]}),
    "lstm_1997": Match("OriginalLSTM", _gates("igo")),
    "janet": Match("JANET", _gates("fg"), frozen=["beta"]),
    "mgu": Match("MGU", _gates("fn")),
    "mut2": Match("MUT2", _gates("zrn")),
    "mut3": Match("MUT3", _gates("zrn")),
    "ugrnn": Match("UGRNN", _gates("cg")),
    "indrnn": Match("IndRNN", {"weight_ih": ["W"], "vector_u": ["u"], "bias_ih": ["b"]}, {"nonlinearity": "relu"}),
    "antisymmetric": Match(
        "AntisymmetricRNN",
        {"weight_ih": ["W"], "weight_hh": ["U"], "bias_ih": ["b"]},
        {"epsilon": 0.01, "gamma": 0.01},
    ),
    "fastgrnn": Match(
        "FastGRNN",
        {"weight_ih": ["W"], "weight_hh": ["U"], "bias_ih": ["b_z", "b_g"], "zeta": ["zeta"], "nu": ["nu"]},
        {"nonlinearity": "sigmoid"},
    ),
}


def why_no_torchrecurrent() -> str | None:
    """Why it cannot be measured here, or None where it can; it is looked for, not imported."""
    if importlib.util.find_spec("torchrecurrent") is None:
        return "torchrecurrent is not installed; run: pip install 'ostinato[bench]'"
    return None


def build_torchrecurrent(problem: Problem, weights: Mapping[str, Tensor]) -> Contestant:
    """Its layer with copies of our weights."""
    import torchrecurrent  # pyright: ignore[reportMissingImports]

    match = RECURRENT[problem.cell]
    made: nn.Module = getattr(torchrecurrent, match.layer)(
        problem.shape.D, problem.shape.H, recurrent_bias=False, **match.options
    )
    parameters = {name.removeprefix("cells.0."): parameter for name, parameter in made.named_parameters()}
    with torch.no_grad():
        for name, parts in match.layout.items():
            parameters[name].copy_(torch.cat([torch.atleast_1d(weights[part]) for part in parts]))
    for name in match.frozen:
        parameters[name].requires_grad_(False)

    def gradients() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, parts in match.layout.items():
            grad = parameters[name].grad
            assert grad is not None, f"{name} took no gradient"
            pieces = grad.split([torch.atleast_1d(weights[part]).shape[0] for part in parts])
            found.update((part, piece.reshape(weights[part].shape)) for part, piece in zip(parts, pieces, strict=True))
        return found

    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    return TorchContestant(problem, made, trained, gradients)
