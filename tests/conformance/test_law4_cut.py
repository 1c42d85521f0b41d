"""Law 4: a sequence cut in two, its state carried over, gives what the whole gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS, CELLS, DTYPES
from measured import build, expected, inputs, measure, states_for
from tolerances import assert_agree


def bare(state: Any) -> tuple[Tensor, ...]:
    """The states as a tuple, one or several."""
    return (state,) if isinstance(state, Tensor) else state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_pieces_give_the_whole(cell: Any, dtype: torch.dtype, backend: str) -> None:
    """Cut anywhere, empty pieces and single steps included; gradients flow through the cut."""
    layer = build(cell, 5, 17, backend, dtype, num_layers=2)
    x = inputs(6, 3, 5, dtype)
    state = states_for(layer, 3, dtype)
    meant = expected(layer, x, state)
    for cuts in ([3], [0, 6], [1, 2, 3, 4, 5], [5]):
        assert_agree(measure(_Pieces(layer, cuts), x, state), meant, dtype)


class _Pieces:
    """A layer that runs a sequence piece by piece."""

    def __init__(self, layer: Any, cuts: list[int]) -> None:
        self.layer, self.cuts = layer, cuts
        self.programs, self.named_parameters = layer.programs, layer.named_parameters

    def __call__(self, x: Tensor, state: Any, lengths: None) -> tuple[Tensor, Any]:
        outputs = []
        for start, stop in zip([0, *self.cuts], [*self.cuts, x.shape[0]], strict=True):
            output, state = self.layer(x[start:stop], state)
            outputs.append(output)
        return torch.cat(outputs), state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_streaming_gives_the_whole(cell: Any, backend: str) -> None:
    """One step of one sequence at a time, without gradients."""
    layer = build(cell, 5, 17, backend)
    x = inputs(9, 1, 5, torch.float64)
    meant = expected(layer, x, wants=lambda n: False)
    state: Any = None
    outputs = []
    with torch.no_grad():
        for t in range(9):
            output, state = layer(x[t : t + 1], state)
            outputs.append(output)
    found = {"output": torch.cat(outputs)}
    found.update({f"state {n}": s for n, s in zip(layer.cell.states, bare(state), strict=True)})
    assert_agree(found, meant, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_first_output_of_the_reverse_direction_is_its_last_state(cell: Any, backend: str) -> None:
    """What each direction ends with stands at its own end of the output."""
    layer = build(cell, 5, 6, backend, bidirectional=True)
    if layer.programs[0].output != layer.programs[0].next_states[0]:
        pytest.skip("the cell puts out something other than its first state")
    output, state = layer(inputs(4, 3, 5, torch.float64), None, [4, 2, 1])
    first, width = bare(state)[0], output.shape[-1] // 2
    for b, n in enumerate([4, 2, 1]):
        assert torch.equal(output[n - 1, b, :width], first[0, b])
        assert torch.equal(output[0, b, width:], first[1, b])
