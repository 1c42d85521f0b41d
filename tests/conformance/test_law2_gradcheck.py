"""Law 2: gradients are derivatives, first and second, by finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS, CELLS, EVERY, across, in_turn, needs_c
from measured import build, inputs, states_for


def as_function(layer: Any, lengths: list[int] | None) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """The layer as a function of x, its states and its parameters alone, and a point to differentiate at."""
    names = [name for name, _ in layer.named_parameters()]
    states = len(layer.cell.states)

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state = rest[:states]
        weights = dict(zip(names, rest[states:], strict=True))
        given = state[0] if states == 1 else state
        output, final = torch.func.functional_call(layer, weights, (x, given, lengths))
        return output, *((final,) if isinstance(final, Tensor) else final)

    point = (
        inputs(3, 2, layer.input_size, torch.float64),
        *states_for(layer, 2, torch.float64),
        *layer.parameters(),
    )
    return run, tuple(v.detach().clone().requires_grad_() for v in point)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cell", "lengths", "bidirectional"), across(CELLS, [None, [1, 3], [0, 2]], [False, True]))
def test_gradcheck(cell: Any, lengths: list[int] | None, bidirectional: bool, backend: str) -> None:
    run, point = as_function(build(cell, 2, 3, backend, bidirectional=bidirectional), lengths)
    # fast mode compares along random directions: every input and output takes part
    assert torch.autograd.gradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize(
    ("cell", "backend"),
    [pytest.param(*c.values, "eager", id=f"{c.id}-eager") for c in EVERY]
    # the rest give through C what they give in eager, by the first law
    + [pytest.param(*c.values, "c", marks=needs_c, id=f"{c.id}-c") for c in CELLS],
)
def test_gradcheck_of_every_element(cell: Any, backend: str) -> None:
    run, point = as_function(build(cell, 1, 2, backend), [1, 3])
    assert torch.autograd.gradcheck(run, point)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cell", "lengths"), in_turn(CELLS, [None, [1, 3]]))
def test_double_backward(cell: Any, lengths: list[int] | None, backend: str) -> None:
    run, point = as_function(build(cell, 2, 3, backend), lengths)
    assert torch.autograd.gradgradcheck(run, point, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_penalty_trains(cell: Any, backend: str) -> None:
    """The gradient of a gradient's norm, as eager gives it."""
    found = []
    for each in (backend, "eager"):
        layer = build(cell, 3, 4, each)
        x = inputs(4, 2, 3, torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), [x, *layer.parameters()]))
    for ours, meant in zip(*found, strict=True):
        torch.testing.assert_close(ours, meant, rtol=1e-10, atol=1e-12)
