"""Law 6: T=0, B=0, B=1, T=1, H=1, widths that divide nothing, inputs of any layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS, CELLS, DTYPES
from measured import build, expected, inputs, measure, numbers, states_for
from tolerances import assert_agree

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch first in memory": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "features first in memory": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "every other step": lambda x: x.repeat_interleave(2, 0)[::2],
    "every other feature": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "inside a wider tensor": lambda x: torch.nn.functional.pad(x, (3, 4))[:, :, 3:-4],
    "with an odd offset": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_layouts(cell: Any, dtype: torch.dtype, backend: str) -> None:
    """However x and the states lie in memory, the numbers are the same."""
    layer = build(cell, 5, 17, backend, dtype, bidirectional=True)
    x, state = inputs(6, 4, 5, dtype), states_for(layer, 4, dtype)
    meant = expected(layer, x, state)
    for name, layout in LAYOUTS.items():
        odd = layout(x)
        assert torch.equal(odd, x) and (not odd.is_contiguous() or "offset" in name)
        assert_agree(measure(layer, odd, tuple(layout(s) for s in state)), meant, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", [0, 1, 2], ids=["T", "B", "D"])
@pytest.mark.parametrize("cell", CELLS)
def test_expanded_inputs(cell: Any, axis: int, backend: str) -> None:
    """x and the states repeated without being copied: stride 0."""
    layer = build(cell, 5, 7, backend, bidirectional=True)
    shape = [6, 4, 5]
    shape[axis] = 1
    x = numbers("narrow", *shape).expand(6, 4, 5)
    assert x.stride(axis) == 0
    state = tuple(
        numbers(n, 2, 1, s.shape[2]).expand(2, 4, -1)
        for n, s in zip(layer.cell.states, states_for(layer, 4, x.dtype), strict=True)
    )
    assert_agree(measure(layer, x, state), expected(layer, x.clone(), state), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_expanded_and_strided_weights(cell: Any, backend: str) -> None:
    """Weights handed in by functional_call may be views of anything."""
    layer = build(cell, 5, 5, backend)
    x = inputs(4, 3, 5, torch.float64)
    meant = layer(x)[0]
    plain = {n: p.detach() for n, p in layer.named_parameters()}
    weights = {n: p.repeat_interleave(2, -1)[..., ::2] if p.dim() else p for n, p in plain.items()}
    assert_agree({"output": torch.func.functional_call(layer, weights, (x,))[0]}, {"output": meant}, torch.float64)
    constant = {n: p.new_full((1,) * p.dim(), 0.1).expand(p.shape) for n, p in layer.named_parameters()}
    copied = {n: p.clone() for n, p in constant.items()}
    found, meant = (torch.func.functional_call(layer, w, (x,))[0] for w in (constant, copied))
    assert_agree({"output": found}, {"output": meant}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_batch_first(cell: Any, backend: str) -> None:
    """batch_first turns x and output, never the states."""
    turned = build(cell, 5, 7, backend, bidirectional=True, batch_first=True)
    plain = build(cell, 5, 7, backend, bidirectional=True)
    x, state = inputs(6, 4, 5, torch.float64), states_for(plain, 4, torch.float64)
    given = state[0] if len(state) == 1 else state
    for lengths in (None, [3, 6, 0, 1]):
        output, final = turned(x.transpose(0, 1), given, lengths)
        meant, last = plain(x, given, lengths)
        assert torch.equal(output, meant.transpose(0, 1))
        for a, b in zip(*((s,) if isinstance(s, Tensor) else s for s in (final, last)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)], ids=["T=0", "B=0", "T=0,B=0"])
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_to_do(cell: Any, steps: int, batch: int, lengths: bool, backend: str) -> None:
    """Empty outputs of the right shape, the states as they were, parameter gradients of zeros."""
    layer = build(cell, 5, 7, backend, bidirectional=True, num_layers=2)
    state = states_for(layer, batch, torch.float64)
    ends = [steps] * batch if lengths else None
    x = inputs(steps, batch, 5, torch.float64)
    for given in (state, None):
        found = measure(layer, x, given, ends)
        assert found["output"] is not None
        assert found["output"].shape == (steps, batch, layer.output_size)
        for name, s in zip(layer.cell.states, state, strict=True):
            before = s if given is not None else torch.zeros_like(s)
            assert torch.equal(found[f"state {name}"], before)  # type: ignore[arg-type]
    for name, parameter in layer.named_parameters():
        gradient = found.get(f"grad {name}")
        assert gradient is None or torch.equal(gradient, torch.zeros_like(parameter))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_results_are_not_views_of_what_was_given(cell: Any, backend: str) -> None:
    """Writing into x, the states or a result changes no other result."""
    layer = build(cell, 3, 4, backend)
    x, state = inputs(3, 2, 3, torch.float64), states_for(layer, 2, torch.float64)
    for steps in (1, 3):
        own, given = x[:steps].clone(), tuple(s.clone() for s in state)
        with torch.no_grad():
            output, final = layer(own, given[0] if len(given) == 1 else given)
            finals = (final,) if isinstance(final, Tensor) else final
            places = {"x": [own], "states": list(given), "output": [output], "final states": list(finals)}
            kept = {name: [v.clone() for v in values] for name, values in places.items()}
            for written, values in places.items():
                for value in values:
                    value.fill_(7.0)
                for name in places.keys() - {written}:
                    for value, before in zip(places[name], kept[name], strict=True):
                        assert torch.equal(value, before), (written, name)
                for value, before in zip(values, kept[written], strict=True):
                    value.copy_(before)
