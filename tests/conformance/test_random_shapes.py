"""Laws 1, 5 and 6 at shapes drawn at random: the cells of the catalogue give the same in C as in eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from laws import CELLS, DTYPES, THOROUGH, needs_c
from measured import build, expected, inputs, measure, states_for
from tolerances import assert_agree

# around the widths of vectors, tiles and blocks, and anything between
WIDTHS = st.one_of(st.integers(1, 40), st.sampled_from([47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129]))


def strided(x: Tensor, form: int) -> Tensor:
    """The same numbers, laid out in memory in one of several ways."""
    if form == 1:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if form == 2:
        return torch.nn.functional.pad(x, (1, 2, 0, 1))[:, : x.shape[1], 1:-2]
    if form == 3:
        return x.repeat_interleave(2, 2)[:, :, ::2]
    return x


@needs_c
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=40 if THOROUGH else 12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape(cell: Any, data: st.DataObject) -> None:
    steps, batch = data.draw(st.integers(0, 9), "T"), data.draw(st.integers(0, 35), "B")
    width, hidden = data.draw(WIDTHS, "D"), data.draw(WIDTHS, "H")
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    both, layers = data.draw(st.booleans(), "bidirectional"), data.draw(st.integers(1, 2), "num_layers")
    layer = build(cell, width, hidden, "c", dtype, bidirectional=both, num_layers=layers)
    ends = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
    lengths = data.draw(st.none() | ends, "lengths")
    form = data.draw(st.integers(0, 3), "layout")
    x = strided(inputs(steps, batch, width, dtype), form)
    state = None
    if data.draw(st.booleans(), "state"):
        state = tuple(strided(s, form) for s in states_for(layer, batch, dtype))
    wanted = data.draw(st.sampled_from(["everything", "x", "weights", "nothing"]), "gradients")
    choose = {
        "everything": lambda n: True,
        "x": lambda n: n == "x",
        "weights": lambda n: n != "x" and not n.startswith("state"),
        "nothing": lambda n: False,
    }[wanted]
    found, meant = (f(layer, x, state, lengths, wants=choose) for f in (measure, expected))
    for name, value in meant.items():  # eager leaves out the gradient of what no step read
        if value is None or (name in found and found[name] is None):
            other = found.get(name) if value is None else value
            assert other is None or not other.any(), name
    kept = [n for n, v in meant.items() if v is not None and found.get(n) is not None]
    assert_agree({n: found[n] for n in kept}, {n: meant[n] for n in kept}, dtype)
