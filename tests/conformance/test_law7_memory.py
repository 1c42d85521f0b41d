"""Law 7: fresh memory is filled with NaN, so that an unwritten output shows. Here: that the filling works."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from laws import BACKENDS, CELLS
from measured import build, inputs, measure, states_for


def test_fresh_memory_is_nan() -> None:
    """What the fixture of this folder promises to every test in it."""
    for fresh in (
        torch.empty(3),
        torch.empty_like(torch.ones(2)),
        torch.ones(2).new_empty(4),
        torch.empty_strided((2,), (1,)),
    ):
        assert fresh.isnan().all()
    assert os.environ["OSTINATO_POISON"] == "1"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_number_is_written(cell: Any, backend: str) -> None:
    """No NaN comes out, whatever the shape, the lengths and the gradients wanted."""
    for steps, batch, width, hidden in ((1, 1, 1, 1), (3, 5, 17, 3), (2, 9, 3, 33)):
        layer = build(cell, width, hidden, backend, bidirectional=True)
        x, state = inputs(steps, batch, width, torch.float64), states_for(layer, batch, torch.float64)
        for lengths in (None, [0] * batch, [(b * 2) % (steps + 1) for b in range(batch)]):
            for name, value in measure(layer, x, state, lengths).items():
                assert value is None or not value.isnan().any(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_nan_that_was_given_comes_out(cell: Any, backend: str) -> None:
    """A NaN in one sequence spreads through that sequence and through no other."""
    layer = build(cell, 3, 4, backend)
    x = inputs(5, 4, 3, torch.float64)
    clean = measure(layer, x, wants=lambda n: False)["output"]
    for bad in (float("nan"), float("inf"), -float("inf")):
        dirty = x.clone()
        dirty[2, 1, 0] = bad
        output = measure(layer, dirty, wants=lambda n: False)["output"]
        assert output is not None and clean is not None
        assert torch.equal(output[:, [0, 2, 3]], clean[:, [0, 2, 3]])
        assert torch.equal(output[:2], clean[:2])
        meant = measure(build(cell, 3, 4, "eager"), dirty, wants=lambda n: False)["output"]
        assert meant is not None
        assert torch.equal(output.isnan(), meant.isnan())
    assert meant is not None
