"""bfloat16: what comes in and goes out is rounded, sums and states are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import CELLS, build, expected, flat, inputs, measure, needs_c, ragged, states_for
from tolerances import TOLERANCES, assert_agree, smooth

pytestmark = needs_c

SHAPES = [(5, 3, 7, 9), (7, 20, 17, 33), (3, 2, 100, 257)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_values_and_gradients(cell: Any, shape: tuple[int, ...], threads: int) -> None:
    """A layer in bfloat16 gives what the same weights give in float64, to bfloat16's rounding."""
    steps, batch, width, hidden = shape
    layer = build(cell, width, hidden, "c", torch.float32, bidirectional=True).bfloat16()
    x, state = inputs(steps, batch, width, torch.bfloat16), states_for(layer, batch, torch.bfloat16)
    torch.set_num_threads(threads)
    for lengths in (None, ragged(steps, batch)):
        found, meant = (smooth(f(layer, x, state, lengths), cell.program()) for f in (measure, expected))
        assert_agree(found, meant, torch.bfloat16)


@pytest.mark.parametrize("cell", CELLS)
def test_states_are_not_rounded_from_step_to_step(cell: Any) -> None:
    """Over a thousand steps the error stays that of one rounding of the output."""
    layer = build(cell, 3, 16, "c", torch.float32).bfloat16()
    x = inputs(1000, 2, 3, torch.bfloat16)
    with torch.no_grad():
        output, final = layer(x)
    found = {"output": output, **{f"state {k}": s for k, s in enumerate(flat(final))}}
    meant = expected(layer, x, wants=lambda n: False)
    values: dict[str, Tensor | None] = dict(zip(found, meant.values(), strict=True))
    assert_agree(found, values, torch.bfloat16)


def test_float16_runs_on_the_kernel_too() -> None:
    layer = build(ostinato.cells.lstm, 5, 7, "c", torch.float32).half()
    x = inputs(4, 3, 5, torch.float16)
    output, _ = layer(x)
    meant = expected(layer, x)["output"]
    assert output.dtype == torch.float16 and meant is not None
    assert (output.double() - meant).abs().max() <= TOLERANCES[torch.bfloat16].value / 8  # three bits more


def test_compiled_graphs_take_it(recwarn: Any) -> None:
    layer = build(ostinato.cells.lstm, 5, 7, "c", torch.float32).bfloat16()
    x = inputs(4, 3, 5, torch.bfloat16)
    whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(whole(x)[0], layer(x)[0])
