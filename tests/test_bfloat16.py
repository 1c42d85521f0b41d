"""bfloat16: what comes in and goes out is rounded, sums and states are not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import CELLS, across, needs_c
from measured import build, everything, expected, inputs, measure, ragged, states_for
from tolerances import TOLERANCES, differences, errors, kinked, smooth

pytestmark = needs_c

SHAPES = [(5, 3, 7, 9), (7, 20, 17, 33), (3, 2, 100, 257)]


def agree(layer: Any, x: Tensor, state: Any, lengths: Any, gradients: bool) -> list[str]:
    """What is off by more than the table, and by more than torch's own bfloat16 is: where rounding what is multiplied
    moves a state from step to step (a linear memory), no kernel is better than its products.
    """
    wants = everything if gradients else nothing
    program = layer.programs[0]
    found, meant = (smooth(f(layer, x, state, lengths, wants=wants), program) for f in (measure, expected))
    eager = build(layer.cell, x.shape[2], layer.hidden_size, "eager", torch.float32, bidirectional=layer.bidirectional)
    eager.load_state_dict(layer.state_dict())
    own = errors(smooth(measure(eager.bfloat16(), x, state, lengths, wants=wants), program), meant)
    return differences(found, meant, torch.bfloat16, {name: value / 10 for name, value in own.items()})


def nothing(name: str) -> bool:
    return False


@pytest.mark.parametrize(("cell", "shape", "threads"), across(CELLS, SHAPES, [1, 3]))
def test_values_and_gradients(cell: Any, shape: tuple[int, ...], threads: int) -> None:
    """A layer in bfloat16 gives what the same weights give in float64, to bfloat16's rounding."""
    steps, batch, width, hidden = shape
    layer = build(cell, width, hidden, "c", torch.float32, bidirectional=True).bfloat16()
    x, state = inputs(steps, batch, width, torch.bfloat16), states_for(layer, batch, torch.bfloat16)
    torch.set_num_threads(threads)
    for lengths in (None, ragged(steps, batch)):
        assert agree(layer, x, state, lengths, gradients=True) == []


@pytest.mark.parametrize("cell", [p for p in CELLS if not kinked(p.values[0].program())])  # type: ignore[union-attr]
def test_states_are_not_rounded_from_step_to_step(cell: Any) -> None:
    """Over a thousand steps the error stays that of one rounding of the output."""
    layer = build(cell, 3, 16, "c", torch.float32).bfloat16()
    assert agree(layer, inputs(1000, 2, 3, torch.bfloat16), None, None, gradients=False) == []


def test_float16_runs_on_the_kernel_too() -> None:
    layer = build(ostinato.cells.lstm, 5, 7, "c", torch.float32).half()
    x = inputs(4, 3, 5, torch.float16)
    output, _ = layer(x)
    meant = expected(layer, x)["output"]
    assert output.dtype == torch.float16 and meant is not None
    assert (output.double() - meant).abs().max() <= TOLERANCES[torch.bfloat16].value / 8  # three bits more


@pytest.mark.parametrize("gradients", [True, False])
def test_products_are_of_the_layers_dtype_whatever_autocast_says(monkeypatch: Any, gradients: bool) -> None:
    """On a GPU the autocast of the CPU says nothing."""
    asked: list[torch.dtype] = []

    def choose(step: Any, backend: str, device: torch.device, dtype: torch.dtype) -> Any:
        asked.append(dtype)
        return choosing(step, backend, device, dtype)

    runner = sys.modules["ostinato.runtime.runner"]
    choosing = runner.choose
    monkeypatch.setattr(runner, "choose", choose)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    layer = build(ostinato.cells.lstm, 5, 7, "c", torch.float32).bfloat16()
    x = inputs(4, 3, 5, torch.bfloat16)
    with torch.set_grad_enabled(gradients):
        layer(x)
    assert asked and set(asked) == {torch.bfloat16}


def test_compiled_graphs_take_it(recwarn: Any) -> None:
    layer = build(ostinato.cells.lstm, 5, 7, "c", torch.float32).bfloat16()
    x = inputs(4, 3, 5, torch.bfloat16)
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(x)[0], layer(x)[0])


@pytest.mark.parametrize(("cell", "shape", "threads"), across(CELLS, [*SHAPES, (5, 4, 8, 8)], [1, 3]))
def test_values_without_gradients(cell: Any, shape: tuple[int, ...], threads: int) -> None:
    """Without gradients the kernel itself reads bfloat16 and writes it, whatever the layout."""
    steps, batch, width, hidden = shape
    layer = build(cell, width, hidden, "c", torch.float32, bidirectional=True).bfloat16().eval()
    state = states_for(layer, batch, torch.bfloat16)
    torch.set_num_threads(threads)
    with torch.no_grad():
        x = inputs(steps, batch, width, torch.bfloat16)
        whole = x.transpose(0, 1).contiguous().transpose(0, 1)  # each sequence in one piece
        for given, lengths in ((x, None), (x, ragged(steps, batch)), (whole, None)):
            assert agree(layer, given, state, lengths, gradients=False) == []


def test_not_a_number_stays_one() -> None:
    """Rounding to bfloat16 does not make a NaN, or what is larger than the largest number, into something else."""
    layer = build(ostinato.cells.linear, 4, 4, "c", torch.float32).bfloat16()
    x = inputs(3, 2, 4, torch.bfloat16)
    x[0, 0, 0], x[1, 1, 1] = float("nan"), float("inf")
    with torch.no_grad():
        found = layer(x)[0]
    meant = expected(layer, x)["output"]
    assert meant is not None and torch.equal(torch.isfinite(found), torch.isfinite(meant))
