"""A layer stepped by hand gives what it gives over a sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import BACKENDS, CELLS
from measured import build, fill, flat, inputs, numbers, states_for
from ostinato import RNN, ShapeError, cell, tanh
from tolerances import assert_agree
from wired import stack


def stepped(layer: RNN, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """The outputs of a loop of steps, and the state behind the last."""
    outputs = []
    for x_t in x:
        output, state = layer.step(x_t, state)
        outputs.append(output)
    return torch.stack(outputs), state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_the_sequence(cell: Any, backend: str) -> None:
    """Outputs, states and gradients, of all layers at once, from a state given."""
    layer = build(cell, 3, 4, backend, num_layers=2).eval()
    state = tuple(s.requires_grad_() for s in states_for(layer, 2, torch.float64))
    x = inputs(4, 2, 3, torch.float64).requires_grad_()
    given = state[0] if len(state) == 1 else state
    sources = [x, *state, *layer.parameters()]
    results = []
    for output, final in (stepped(layer, x, given), layer(x, given)):
        found = {"output": output, **{f"state {k}": s for k, s in enumerate(flat(final))}}
        loss = sum((v * numbers(n, *v.shape)).sum() for n, v in found.items())
        gradients = torch.autograd.grad(loss, sources, allow_unused=True)
        results.append({**found, **{f"grad {k}": g for k, g in enumerate(gradients)}})
    assert_agree(*results, torch.float64)


@pytest.mark.parametrize("connections", ["plain", "residual", "dense"])
@pytest.mark.parametrize("options", [{}, {"return_sequences": False}, {"return_states": True}, {"batch_first": True}])
def test_steps_of_every_wiring(connections: Any, options: Any) -> None:
    """Whatever a call returns by default, and of one sequence without a batch."""
    layer = stack(4, connections=connections, initial_state="learned", **options)
    plain = stack(4, connections=connections, initial_state="learned")
    x = inputs(4, 2, 3, torch.float64)
    meant, ended = plain(x)
    output, state = stepped(layer, x)
    torch.testing.assert_close(output, meant)
    for found, expected in zip(state, ended, strict=True):
        for a, b in zip(flat(found), flat(expected), strict=True):
            torch.testing.assert_close(a, b)
    one, state = stepped(layer, x[:, 1])
    torch.testing.assert_close(one, meant[:, 1])
    assert all(s.dim() == 2 for own in state for s in flat(own))


def test_steps_of_a_stateful_layer_go_on() -> None:
    layer = build(ostinato.cells.lstm, 3, 4, "eager", stateful=True)
    plain = build(ostinato.cells.lstm, 3, 4, "eager")
    x = inputs(4, 2, 3, torch.float64)
    meant = plain(x)[0]
    for t in range(2):
        torch.testing.assert_close(layer.step(x[t])[0], meant[t])
    torch.testing.assert_close(layer(x[2:])[0], meant[2:])


def test_steps_draw_masks_from_the_generator() -> None:
    @cell
    def dropped(p: Any, x: Any, h: Any) -> Any:
        return tanh(p.W @ x + p.U @ ostinato.dropout(h, 0.5) + p.b)

    layer = fill(RNN(dropped, 3, 8, backend="eager"))
    x, h = torch.ones(4, 3), torch.ones(1, 4, 8)

    def run(seed: int) -> Tensor:
        return layer.step(x, h, torch.Generator().manual_seed(seed))[0]

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    assert torch.equal(run(2), layer(x[None], h, generator=torch.Generator().manual_seed(2))[0][0])
    layer.eval()
    assert torch.equal(run(0), run(1))


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"bidirectional": True}, torch.zeros(2, 3), r"step runs forwards, but the layer is bidirectional"),
        ({"lookahead": 1}, torch.zeros(2, 3), r"step sees no later input, but the layer has lookahead=1"),
        ({}, torch.zeros(4, 2, 3), r"a step takes x \[B, D\], or \[D\] for one sequence, got shape \[4, 2, 3\]"),
        ({}, [1.0, 2.0, 3.0], r"a step takes x \[B, D\].*got list; call the layer on sequences"),
        ({}, torch.zeros(2, 4), r"input_size=3"),
    ],
)
def test_what_cannot_be_stepped_is_refused(options: Any, x: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        RNN("gru", 3, 4, backend="eager", **options).step(x)
