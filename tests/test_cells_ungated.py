"""Every cell beside the LSTM and GRU families against one plain step from its paper, and what its options refuse."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import BACKENDS, backend_param, build, fill, flat, inputs, numbers, ragged, sizes_for, states_for
from ostinato import RNN, Cell, CellError, ShapeError, cell, cells, tanh, transpose
from ostinato.ir import equations, simplify
from steps_ungated import STEPS
from tolerances import assert_agree

FAMILIES = ("beyond", "diagonal", "elman", "filters", "structured", "time_constants")

# each option away from its default, alone or with another that it meets
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "antisymmetric": [{"gated": True}, {"epsilon": 0.5, "gamma": 0.2}],
    "clockwork": [{"periods": (1, 3)}, {"periods": (2,)}],
    "elman": [{"activation": "relu"}],
    "fir": [{"window": 1}, {"full": True}, {"window": 1, "full": True}, {"window": 5}],
    "highway": [{"depth": 1}, {"coupled": False}, {"depth": 2, "coupled": False}],
    "indrnn": [{"activation": "tanh"}],
    "jordan": [{"output": "sigmoid"}, {"output": "linear"}, {"activation": "relu"}],
    "leaky": [{"learned": True}, {"activation": "relu"}, {"shortest": 2.0, "longest": 2.0}],
    "lmu": [{"theta": 10.0}],
    "lru": [{"r_min": 0.5, "r_max": 0.9, "max_phase": 1.0}],
    "narx": [{"inputs": 1, "outputs": 1}, {"inputs": 3, "outputs": 2}, {"activation": "relu"}],
    "qrnn": [{"pooling": "f"}, {"pooling": "ifo"}, {"window": 1}, {"window": 3, "pooling": "ifo"}],
    "simple": [{"output": "new"}, {"activation": "relu"}],
    "slstm": [{"forget_gate": "exponential"}],
    "sru": [{"projected": True}, {"alpha": 1.5}],
    "time_skip": [{"delays": (1,)}, {"delays": (2, 3)}, {"activation": "relu"}],
}
# what changes how parameters start, or how many states there are, which the plain step sees from its arguments
UNSEEN = {"leaky": {"shortest", "longest"}, "lmu": {"theta"}, "lru": {"r_min", "r_max", "max_phase"}}
UNSEEN |= {"fir": {"window"}, "qrnn": {"window"}}


def family() -> dict[str, Cell]:
    """The cells of these families by name."""
    found: dict[str, Cell] = {}
    for module in FAMILIES:
        for name, value in vars(importlib.import_module(f"ostinato.cells.{module}")).items():
            if isinstance(value, Cell):
                found[name] = value
    return found


def everyone() -> Iterator[Any]:
    for name, one in family().items():
        for options in ({}, *VARIANTS.get(name, [])):
            yield pytest.param(name, options, id=one(**options).name)


CASES = pytest.mark.parametrize(("name", "options"), list(everyone()))


def test_every_cell_is_in_the_catalogue_and_has_a_plain_step() -> None:
    listed = cells.catalogue()
    assert {name: listed.get(name) for name in family()} == family()
    assert set(STEPS) == set(family())
    assert set(VARIANTS) == {name for name, one in family().items() if one.options}
    for name, variants in VARIANTS.items():
        assert {option for options in variants for option in options} == set(family()[name].options), name


def plain(name: str, options: dict[str, Any], p: dict[str, Tensor], x: Tensor, states: tuple[Tensor, ...]) -> Any:
    """The output [T, B, O] and final states of the plain step, one step after the other."""
    seen = {k: v for k, v in options.items() if k not in UNSEEN.get(name, set())}
    outputs = []
    for value in x:
        output, states = STEPS[name](p, value, *states, **seen)
        outputs.append(output)
    return torch.stack(outputs), states


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("steps", "batch", "width", "hidden"), [(5, 3, 4, 6), (9, 2, 7, 7), (3, 1, 1, 1)])
@CASES
def test_values_and_gradients_are_those_of_the_plain_step(
    name: str, options: dict[str, Any], steps: int, batch: int, width: int, hidden: int, backend: str
) -> None:
    one = family()[name](**options)
    width = width if one.program().input_size == "D" else hidden
    layer = build(one, width, hidden, backend)
    assert layer.cell is one
    x = inputs(steps, batch, width, torch.float64).requires_grad_()
    state = tuple(s.requires_grad_() for s in states_for(layer, batch, torch.float64))
    weights = layer.cell_parameters()
    output, finals = layer(x, state[0] if len(state) == 1 else state) if state else layer(x)
    found = gradients(output, flat(finals), weights, x, state)
    p = {**weights, **layer.cell_buffers()}
    meant_output, meant_finals = plain(name, options, p, x, tuple(s[0] for s in state))
    meant = gradients(meant_output, tuple(s.unsqueeze(0) for s in meant_finals), weights, x, state)
    assert_agree(found, meant, torch.float64)


def gradients(
    output: Tensor, finals: tuple[Tensor, ...], weights: dict[str, Any], x: Tensor, state: tuple[Tensor, ...]
) -> dict[str, Tensor | None]:
    """Every result, and the gradient of their weighted sum to everything that went in; 0 where nothing leads."""
    values = {"output": output, **{f"state {k}": s for k, s in enumerate(finals)}}
    loss = sum((v * numbers(f"loss {n}", *v.shape)).sum() for n, v in values.items())
    sources = {**weights, "x": x, **{f"state {k}": s for k, s in enumerate(state)}}
    found = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
    back = {
        f"grad {n}": torch.zeros_like(s) if g is None else g for (n, s), g in zip(sources.items(), found, strict=True)
    }
    return {**{n: v.detach() for n, v in values.items()}, **back}
