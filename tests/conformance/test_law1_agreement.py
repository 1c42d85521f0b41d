"""Law 1: outputs, final states and every gradient agree with eager in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from laws import BACKENDS, CELLS, DTYPES, across, in_turn, needs_c, others
from measured import build, everything, expected, inputs, measure, numbers, ragged, states_for
from tolerances import allowed, assert_agree, differences, errors

# T, B, D, H: small and odd, widths that divide nothing, one wide, one long
SHAPES = [
    (1, 1, 1, 1),
    (5, 3, 3, 1),
    (7, 1, 16, 17),
    (4, 5, 17, 16),
    (6, 2, 63, 63),
    (3, 17, 100, 100),
    (2, 3, 257, 257),
]
SHAPES += [(5, 16, 1, 63), (9, 4, 3, 100), (2, 33, 16, 257), (50, 2, 3, 16)]
ROUNDED = [(1, 1, 1, 1), (4, 5, 17, 16), (3, 17, 100, 100)]  # for eager in float32: torch's own products at any width


def runs() -> list[Any]:
    """Every cell through C, in the dtypes in turn, and eagerly in float32; they are compared with eager in float64."""
    through_c = [pytest.param(*p.values, "c", marks=needs_c, id=f"{p.id}-c") for p in CELLS]
    eagerly = [pytest.param(*p.values, "eager", id=f"{p.id}-eager") for p in CELLS]
    return in_turn(through_c) + in_turn(eagerly, DTYPES[:1])


@needs_c
@pytest.mark.parametrize(("cell", "shape", "dtype"), across(CELLS, SHAPES))
def test_values_and_gradients(cell: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Both directions, with lengths and without, states given and not."""
    check_values_and_gradients(cell, shape, "c", dtype)


@pytest.mark.parametrize("shape", ROUNDED, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_eager_in_float32(cell: Any, shape: tuple[int, ...]) -> None:
    """The same for eager itself."""
    check_values_and_gradients(cell, shape, "eager", torch.float32)


@needs_c
@pytest.mark.parametrize(("cell", "shape", "dtype"), in_turn(others(SHAPES)))
def test_every_cell_takes_its_turn(cell: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The same for the cells that others stand for, each at one of the shapes, in one dtype.

    Only where eager itself misses the table in float32, since a state grows, is a run held to eager's own error, as
    random programs are.
    """
    check_values_and_gradients(cell, shape, "c", dtype, conditioned=dtype == torch.float32)


def check_values_and_gradients(
    cell: Any, shape: tuple[int, ...], backend: str, dtype: torch.dtype, conditioned: bool = False
) -> None:
    steps, batch, width, hidden = shape
    bidirectional = build(cell, width, hidden, backend, dtype, bidirectional=True)
    forward = build(cell, width, hidden, backend, dtype)
    x = inputs(steps, batch, width, dtype)
    for layer, given, lengths in (
        (forward, False, None),
        (bidirectional, True, None),
        (bidirectional, True, ragged(steps, batch)),
        (forward, False, torch.tensor(ragged(steps, batch))),
    ):
        state = states_for(layer, batch, dtype) if given else None
        found, meant = measure(layer, x, state, lengths), expected(layer, x, state, lengths)
        wrong = differences(found, meant, dtype)
        if wrong and conditioned:
            eager = build(cell, width, hidden, "eager", dtype, bidirectional=layer.bidirectional)
            own = errors(measure(eager, x, state, lengths), meant)
            if any(value > allowed(name, dtype) for name, value in own.items()):  # eager itself misses the table
                wrong = differences(found, meant, dtype, own)
        assert wrong == []


@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_stacks_of_both_directions(cell: Any, backend: str, dtype: torch.dtype) -> None:
    layer = build(cell, 5, 7, backend, dtype, num_layers=3, bidirectional=True)
    x, state = inputs(6, 4, 5, dtype), states_for(layer, 4, dtype)
    lengths = [6, 0, 3, 1]
    assert_agree(measure(layer, x, state, lengths), expected(layer, x, state, lengths), dtype)


@pytest.mark.usefixtures("quickly_compiled")  # the kernels are others than with a bias
@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_without_bias(cell: Any, backend: str, dtype: torch.dtype) -> None:
    layer = build(cell, 5, 7, backend, dtype, bias=False)
    assert not [n for n, _ in layer.named_parameters() if n.startswith("b_")]
    x = inputs(4, 3, 5, dtype)
    assert_agree(measure(layer, x), expected(layer, x), dtype)


@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_only_some_gradients_are_wanted(cell: Any, backend: str, dtype: torch.dtype) -> None:
    """Frozen weights, an input without gradient, one parameter alone, none at all."""
    layer = build(cell, 3, 5, backend, dtype, bidirectional=True)
    names = [name for name, _ in layer.named_parameters()]
    x, state, lengths = inputs(5, 4, 3, dtype), states_for(layer, 4, dtype), [2, 5, 0, 4]
    choices = [
        lambda n: n == "x",
        lambda n: n.startswith("state"),
        lambda n: n != "x",
        lambda n: n in ("x", names[0]),
    ]
    choices += [lambda n, one=name: n == one for name in names]
    choices += [lambda n: n == f"state {layer.cell.states[-1]}", lambda n: n.startswith("b"), lambda n: False]
    for wants in choices:
        got, meant = (f(layer, x, state, lengths, wants=wants) for f in (measure, expected))
        assert_agree(got, meant, dtype)


@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_only_some_results_are_used(cell: Any, backend: str, dtype: torch.dtype) -> None:
    """A loss of the output alone, or of one final state alone."""
    layer = build(cell, 3, 5, backend, dtype, bidirectional=True)
    x, state, lengths = inputs(5, 4, 3, dtype), states_for(layer, 4, dtype), [2, 5, 0, 4]
    for used in ("output", *(f"state {s}" for s in layer.cell.states)):
        for given, many in ((None, None), (state, lengths)):
            got, meant = (f(layer, x, given, many, uses=lambda n, one=used: n == one) for f in (measure, expected))
            assert_agree(got, meant, dtype)


@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_inference_gives_what_training_gives(cell: Any, backend: str, dtype: torch.dtype) -> None:
    """Without gradients nothing is kept, and nothing changes: no_grad, inference_mode, frozen."""
    layer = build(cell, 7, 17, backend, dtype, bidirectional=True)
    x = inputs(5, 4, 7, dtype)
    state = states_for(layer, 4, dtype)
    for lengths in (None, [5, 0, 3, 1]):
        meant = expected(layer, x, state, lengths)
        meant = {n: v for n, v in meant.items() if not n.startswith("grad")}
        with torch.no_grad():
            assert_agree(measure(layer, x, state, lengths, wants=lambda n: False), meant, dtype)
        with torch.inference_mode():
            output, final = layer(x, state[0] if len(state) == 1 else state, lengths)
        finals = (final,) if isinstance(final, torch.Tensor) else final
        got = {"output": output, **{f"state {n}": s for n, s in zip(layer.cell.states, finals, strict=True)}}
        assert_agree({n: v.clone() for n, v in got.items()}, meant, dtype)
    measure(layer, x, wants=everything)


@pytest.mark.parametrize(("cell", "backend", "dtype"), runs())
def test_backward_twice_gives_the_same(cell: Any, backend: str, dtype: torch.dtype) -> None:
    """What forward saved is still there after a backward pass with retain_graph."""
    layer = build(cell, 3, 5, backend, dtype)
    x = inputs(5, 4, 3, dtype).requires_grad_()
    loss = layer(x)[0].square().sum()
    parameters = [x, *layer.parameters()]
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, parameters)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("what", ["x", "weight", "state"])
def test_what_backward_needs_may_not_be_changed_meanwhile(cell: Any, backend: str, what: str) -> None:
    """Written over between forward and backward: right gradients, or torch's error; never wrong numbers."""
    layer = build(cell, 3, 5, backend)
    x, state = inputs(4, 2, 3, torch.float64), states_for(layer, 2, torch.float64)
    meant = expected(layer, x, state)
    own = x.clone()
    given = tuple(s.clone() for s in state)
    output, final = layer(own, given[0] if len(given) == 1 else given)
    finals = (final,) if isinstance(final, torch.Tensor) else final
    results = {"output": output, **{f"state {n}": s for n, s in zip(layer.cell.states, finals, strict=True)}}
    loss = sum((v * numbers(f"loss {n}", *v.shape)).sum() for n, v in results.items())
    names = [n for n, _ in layer.named_parameters()]
    with torch.no_grad():
        targets = {"x": [own], "weight": list(layer.parameters()), "state": list(given)}[what]
        for t in targets:
            t.mul_(3.0)
    try:
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
    except RuntimeError as raised:
        assert "inplace" in str(raised)
    else:
        got = {f"grad {n}": g for n, g in zip(names, gradients, strict=True)}
        assert_agree(got, {n: meant[n] for n in got}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_any_layout(cell: Any, backend: str) -> None:
    """The gradient of a sum is expanded, of a transposed output strided, of a last step mostly zero."""
    losses = {
        "sum": lambda y: y.sum(),
        "transposed": lambda y: (y.transpose(0, 1) * numbers_like(y.transpose(0, 1))).sum(),
        "last": lambda y: y[-1].square().sum(),
        "strided": lambda y: y[::2, :, ::3].square().sum(),
        "reversed": lambda y: (y.flip(0) * numbers_like(y)).sum(),
    }
    for name, loss in losses.items():
        layer = build(cell, 3, 7, backend)
        twin = build(cell, 3, 7, "eager")
        found = []
        for each in (layer, twin):
            x = inputs(5, 4, 3, torch.float64).requires_grad_()
            found.append(torch.autograd.grad(loss(each(x)[0]), [x, *each.parameters()]))
        got, meant = ({f"grad {i} of {name}": g for i, g in enumerate(each)} for each in found)
        assert_agree(got, meant, torch.float64)


def numbers_like(value: torch.Tensor) -> torch.Tensor:
    """Numbers of that shape."""
    return numbers("like", *value.shape, dtype=value.dtype)
