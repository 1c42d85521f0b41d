"""Law 5: padding never changes a result; batch order does not matter; reverse means within each length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS, CELLS
from measured import build, inputs, measure, numbers, states_for, without
from tolerances import assert_agree

T, B, D, H = 6, 5, 3, 7
LENGTHS = [4, 0, 6, 1, 3]


def filled(x: Tensor, lengths: list[int], value: float) -> Tensor:
    """x with `value` past the end of each sequence."""
    x = x.clone()
    for b, n in enumerate(lengths):
        x[n:, b] = value
    return x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("padding", [0.0, 1e30, float("inf"), float("nan")], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_not_read(cell: Any, padding: float, bidirectional: bool, backend: str) -> None:
    """Whatever stands past a sequence's end, NaN included, not one bit of a value or gradient changes."""
    layer = build(cell, D, H, backend, bidirectional=bidirectional)
    x, state = inputs(T, B, D, torch.float64), states_for(layer, B, torch.float64)
    meant = measure(layer, x, state, LENGTHS)
    got = measure(layer, filled(x, LENGTHS, padding), state, LENGTHS)
    for name, value in meant.items():
        assert value is not None and got[name] is not None
        assert torch.equal(got[name], value), name  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("cell", CELLS)
def test_each_sequence_is_what_it_is_alone(cell: Any, bidirectional: bool, backend: str) -> None:
    """A padded batch gives what its sequences give one by one, cut to their lengths; the rest is 0."""
    layer = build(cell, D, H, backend, bidirectional=bidirectional, num_layers=2)
    x, state = inputs(T, B, D, torch.float64), states_for(layer, B, torch.float64)
    whole = measure(layer, x, state, LENGTHS)
    output, gradient = whole["output"], whole["grad x"]
    assert output is not None and gradient is not None
    losses = {f"loss {n}": numbers(f"loss {n}", *v.shape) for n, v in whole.items() if v is not None}
    total: dict[str, Tensor] = {}
    for b, n in enumerate(LENGTHS):
        own = x[:n, b : b + 1].detach().requires_grad_()
        given = tuple(s[:, b : b + 1].detach().requires_grad_() for s in state)
        alone, final = layer(own, given[0] if len(given) == 1 else given)
        finals = (final,) if isinstance(final, Tensor) else final
        assert_agree({"output": alone}, {"output": output[:n, b : b + 1]}, torch.float64)
        assert torch.equal(output[n:, b], torch.zeros_like(output[n:, b]))
        assert torch.equal(gradient[n:, b], torch.zeros_like(gradient[n:, b]))
        loss = (alone * losses["loss output"][:n, b : b + 1]).sum()
        for name, one in zip(layer.cell.states, finals, strict=True):
            meant = whole[f"state {name}"]
            assert meant is not None
            assert_agree({"state": one}, {"state": meant[:, b : b + 1]}, torch.float64)
            loss = loss + (one * losses[f"loss state {name}"][:, b : b + 1]).sum()
        names = [name for name, _ in layer.named_parameters()]
        # nothing of an empty sequence is read, so there may be no gradient at all
        gradients = torch.autograd.grad(loss, [own, *layer.parameters()], allow_unused=n == 0)
        gradients = [
            torch.zeros_like(p) if g is None else g for g, p in zip(gradients, [own, *layer.parameters()], strict=True)
        ]
        assert_agree({"grad x": gradients[0]}, {"grad x": gradient[:n, b : b + 1]}, torch.float64)
        for name, g in zip(names, gradients[1:], strict=True):
            total[f"grad {name}"] = total[f"grad {name}"] + g if f"grad {name}" in total else g
    assert_agree(total, {n: whole[n] for n in total}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_batch_order_does_not_matter(cell: Any, backend: str) -> None:
    layer = build(cell, D, H, backend, bidirectional=True)
    x, state = inputs(T, B, D, torch.float64), states_for(layer, B, torch.float64)
    order = torch.tensor([3, 1, 4, 0, 2])
    meant = measure(layer, x, state, LENGTHS, wants=lambda n: False)
    got = measure(
        layer,
        x[:, order],
        tuple(s[:, order] for s in state),
        [LENGTHS[b] for b in order],
        wants=lambda n: False,
    )
    for name, value in meant.items():
        assert value is not None
        assert_agree({name: got[name]}, {name: value[:, order]}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_reverse_reverses_within_each_length(cell: Any, backend: str) -> None:
    """The second direction is the first one's equations over the mirrored sequence, mirrored back."""
    both = build(cell, D, H, backend, bidirectional=True)
    single = build(cell, D, H, backend)
    with torch.no_grad():
        theirs = both.state_dict()
        for name, own in single.state_dict().items():
            own.copy_(theirs[f"{name}_reverse"])
    x = inputs(T, B, D, torch.float64)
    mirrored = x.clone()
    for b, n in enumerate(LENGTHS):
        mirrored[:n, b] = x[:n, b].flip(0)
    (output, state), (meant, final) = both(x, None, LENGTHS), single(mirrored, None, LENGTHS)
    width = meant.shape[-1]
    for b, n in enumerate(LENGTHS):
        assert_agree({"output": output[:n, b, width:]}, {"output": meant[:n, b].flip(0)}, torch.float64)
    for ours, one in zip(*((s,) if isinstance(s, Tensor) else s for s in (state, final)), strict=True):
        assert_agree({"state": ours[1]}, {"state": one[0]}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_lengths_of_any_form(cell: Any, backend: str) -> None:
    """A list, a tuple, tensors of any whole-number dtype and stride; all equal to T is the same as none."""
    layer = build(cell, D, H, backend, bidirectional=True)
    x = inputs(T, B, D, torch.float64)
    meant = measure(layer, x, None, LENGTHS)
    forms: list[Any] = [
        tuple(LENGTHS),
        *(torch.tensor(LENGTHS, dtype=d) for d in (torch.int64, torch.int32, torch.uint8)),
    ]
    forms += [torch.tensor([LENGTHS, LENGTHS]).t()[:, 0], [torch.tensor(n) for n in LENGTHS]]
    for form in forms:
        got = measure(layer, x, None, form)
        assert all(torch.equal(got[n], meant[n]) for n in meant)  # type: ignore[arg-type]
    assert_agree(measure(layer, x, None, [T] * B), measure(layer, x), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_no_length_but_zero(cell: Any, backend: str) -> None:
    """Every sequence is empty: outputs 0, states as they were, gradients 0 but for the states' own."""
    layer = build(cell, D, H, backend, bidirectional=True)
    x, state = inputs(T, B, D, torch.float64), states_for(layer, B, torch.float64)
    found = measure(layer, x, state, [0] * B)
    for name, s in zip(layer.cell.states, state, strict=True):
        assert torch.equal(found[f"state {name}"], s)  # type: ignore[arg-type]
        assert torch.equal(found[f"grad state {name}"], numbers(f"loss state {name}", *s.shape))  # type: ignore[arg-type]
    kept = [f"{what} {n}" for n in layer.cell.states for what in ("state", "grad state")]
    for name, value in without(found, kept).items():
        assert value is None or torch.equal(value, torch.zeros_like(value)), name
