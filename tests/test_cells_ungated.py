"""Every cell beside the LSTM and GRU families against one plain step from its paper, and what its options refuse."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS
from measured import build, flat, inputs, numbers, ragged, sizes_for, states_for
from ostinato import RNN, Cell, CellError, ShapeError, cell, cells, tanh, transpose
from ostinato.ir import equations, simplify
from steps_ungated import STEPS
from tolerances import assert_agree

FAMILIES = ("beyond", "diagonal", "elman", "filters", "structured", "time_constants")

# each option away from its default, alone or with another that it meets
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "antisymmetric": [{"gated": True}, {"epsilon": 0.5, "gamma": 0.2}],
    "clockwork": [{"periods": (1, 3)}, {"periods": (2,)}],
    "elman": [{"activation": "relu"}],
    "fir": [{"window": 1}, {"full": True}, {"window": 1, "full": True}, {"window": 5}],
    "highway": [{"depth": 1}, {"coupled": False}, {"depth": 2, "coupled": False}],
    "indrnn": [{"activation": "tanh"}],
    "jordan": [{"output": "sigmoid"}, {"output": "identity"}, {"activation": "relu"}],
    "leaky": [{"learned": True}, {"activation": "relu"}, {"shortest": 2.0, "longest": 2.0}],
    "lmu": [{"theta": 10.0}, {"hidden_to_memory": False}, {"hidden_to_memory": False, "memory_to_memory": False}],
    "lru": [{"r_min": 0.5, "r_max": 0.9, "max_phase": 1.0}],
    "narx": [{"inputs": 1, "outputs": 1}, {"inputs": 3, "outputs": 2}, {"activation": "relu"}],
    "qrnn": [{"pooling": "f"}, {"pooling": "ifo"}, {"window": 1}, {"window": 3, "pooling": "ifo"}],
    "simple": [{"output": "new"}, {"activation": "relu"}],
    "slstm": [{"forget_gate": "exponential"}],
    "sru": [{"projected": True}, {"alpha": 1.5}],
    "time_skip": [{"delays": (1,)}, {"delays": (2, 3)}, {"activation": "relu"}],
}
# what changes how parameters start, or how many states there are, which the plain step sees from its arguments
UNSEEN = {"leaky": {"shortest", "longest"}, "lmu": {"theta"}, "lru": {"r_min", "r_max", "max_phase"}}
UNSEEN |= {"fir": {"window"}, "qrnn": {"window"}}


def family() -> dict[str, Cell]:
    """The cells of these families by name."""
    modules = (importlib.import_module(f"ostinato.cells.{module}") for module in FAMILIES)
    return {n: value for module in modules for n, value in vars(module).items() if isinstance(value, Cell)}


def everyone() -> Iterator[Any]:
    for name, one in family().items():
        for options in ({}, *VARIANTS.get(name, [])):
            yield pytest.param(name, options, id=one(**options).name)


CASES = pytest.mark.parametrize(("name", "options"), list(everyone()))


def test_every_cell_is_in_the_catalogue_and_has_a_plain_step() -> None:
    listed = cells.catalogue()
    assert {name: listed.get(name) for name in family()} == family()
    assert set(STEPS) == set(family())
    assert set(VARIANTS) == {name for name, one in family().items() if one.options}
    for name, variants in VARIANTS.items():
        assert {option for options in variants for option in options} == set(family()[name].options), name


def plain(name: str, options: dict[str, Any], p: dict[str, Tensor], x: Tensor, states: tuple[Tensor, ...]) -> Any:
    """The output [T, B, O] and final states of the plain step, one step after the other."""
    seen = {k: v for k, v in options.items() if k not in UNSEEN.get(name, set())}
    outputs = []
    for value in x:
        output, states = STEPS[name](p, value, *states, **seen)
        outputs.append(output)
    return torch.stack(outputs), states


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("steps", "batch", "width", "hidden"), [(5, 3, 4, 6), (9, 2, 7, 7), (3, 1, 1, 1)])
@CASES
def test_values_and_gradients_are_those_of_the_plain_step(
    name: str, options: dict[str, Any], steps: int, batch: int, width: int, hidden: int, backend: str
) -> None:
    one = family()[name](**options)
    width = width if one.program().input_size == "D" else hidden
    layer = build(one, width, hidden, backend)
    assert layer.cell is one
    x = inputs(steps, batch, width, torch.float64).requires_grad_()
    state = tuple(s.requires_grad_() for s in states_for(layer, batch, torch.float64))
    weights = layer.cell_parameters()
    output, finals = layer(x, state[0] if len(state) == 1 else state) if state else layer(x)
    found = gradients(output, flat(finals), weights, x, state)
    p = {**weights, **layer.cell_buffers()}
    meant_output, meant_finals = plain(name, options, p, x, tuple(s[0] for s in state))
    meant = gradients(meant_output, tuple(s.unsqueeze(0) for s in meant_finals), weights, x, state)
    assert_agree(found, meant, torch.float64)


def gradients(
    output: Tensor, finals: tuple[Tensor, ...], weights: dict[str, Any], x: Tensor, state: tuple[Tensor, ...]
) -> dict[str, Tensor | None]:
    """Every result, and the gradient of their weighted sum to everything that went in; 0 where nothing leads."""
    values = {"output": output, **{f"state {k}": s for k, s in enumerate(finals)}}
    loss = torch.stack([(v * numbers(f"loss {n}", *v.shape)).sum() for n, v in values.items()]).sum()
    sources = {**weights, "x": x, **{f"state {k}": s for k, s in enumerate(state)}}
    found = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
    back = {
        f"grad {n}": torch.zeros_like(s) if g is None else g for (n, s), g in zip(sources.items(), found, strict=True)
    }
    return {**{n: v.detach() for n, v in values.items()}, **back}


# ---------------------------------------------------------------- what the laws lean on


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [n for n, c in family().items() if c.program().input_size == "H"])
def test_a_cell_that_uses_x_elementwise_asks_for_its_width(name: str, backend: str) -> None:
    """Both directions and lengths as it stands; another width is refused with the remedy."""
    with pytest.raises(ShapeError, match=f"cell {name} uses x elementwise as a vector of size 5, but layer 0 reads"):
        RNN(name, 4, 5)
    layer = build(family()[name], 5, 5, backend, bidirectional=True)
    x, lengths = inputs(6, 4, 5, torch.float64), ragged(6, 4)
    output, _ = layer(x, lengths=lengths)
    for b, n in enumerate(lengths):
        alone, _ = layer(x[:n, b : b + 1])
        torch.testing.assert_close(output[:n, b : b + 1], alone, rtol=1e-13, atol=1e-13)
        assert not output[n:, b].any()


# ---------------------------------------------------------------- options

REFUSED = [
    ("antisymmetric", {"epsilon": -1.0}, "epsilon -1.0; give a number of at least 0"),
    ("antisymmetric", {"gated": "yes"}, "gated 'yes'; choose False or True"),
    ("antisymmetric", {"gamma": "x"}, "gamma 'x'; give a number of at least 0"),
    ("clockwork", {"periods": (4, 2)}, r"periods \(4, 2\); give whole numbers that rise"),
    ("clockwork", {"periods": ()}, r"periods \(\); give whole numbers that rise"),
    ("clockwork", {"periods": 3}, "periods 3; give whole numbers that rise"),
    ("clockwork", {"periods": (0, 1)}, "periods 0; give a whole number of at least 1"),
    ("elman", {"activation": "sigmoid"}, "activation 'sigmoid'; choose 'tanh' or 'relu'"),
    ("fir", {"full": 2}, "full 2; choose False or True"),
    ("fir", {"window": 0}, "window 0; give a whole number of at least 1"),
    ("fir", {"window": True}, "window True; give a whole number of at least 1"),
    ("highway", {"coupled": None}, "coupled None; choose False or True"),
    ("highway", {"depth": 0}, "depth 0; give a whole number of at least 1"),
    ("indrnn", {"activation": None}, "activation None; choose 'relu' or 'tanh'"),
    ("jordan", {"activation": "linear"}, "activation 'linear'; choose 'tanh' or 'relu'"),
    ("jordan", {"output": "softmax"}, "output 'softmax'; choose 'tanh', 'sigmoid', 'relu' or 'identity'"),
    ("leaky", {"learned": "fixed"}, "learned 'fixed'; choose False or True"),
    ("leaky", {"shortest": 0.5}, "shortest 0.5; give a number of at least 1"),
    ("leaky", {"longest": 0.5}, "longest 0.5; give a number of at least 1"),
    ("leaky", {"activation": "sin"}, "activation 'sin'; choose 'tanh' or 'relu'"),
    ("lmu", {"theta": 0}, "theta 0; give a number of at least"),
    ("lmu", {"memory_to_memory": 0}, "memory_to_memory 0; choose False or True"),
    ("lru", {"r_max": 1.5}, r"r_max 1.5; give a number within 0\.\.1"),
    ("lru", {"r_min": 0.9, "r_max": 0.5}, r"r_max 0.5; give a number within 0.9\.\.1"),
    ("lru", {"max_phase": float("inf")}, "max_phase inf; give a number of at least"),
    ("narx", {"inputs": 0}, "inputs 0; give a whole number of at least 1"),
    ("narx", {"outputs": 1.0}, r"outputs 1.0; give a whole number of at least 1"),
    ("qrnn", {"pooling": "fi"}, "pooling 'fi'; choose 'f', 'fo' or 'ifo'"),
    ("qrnn", {"window": "2"}, "window '2'; give a whole number of at least 1"),
    ("simple", {"output": "old"}, "output 'old'; choose 'previous' or 'new'"),
    ("slstm", {"forget_gate": "tanh"}, "forget_gate 'tanh'; choose 'sigmoid' or 'exponential'"),
    ("sru", {"projected": 8}, "projected 8; choose False or True"),
    ("sru", {"alpha": -0.5}, "alpha -0.5; give a number of at least 0"),
    ("time_skip", {"delays": (1, 1)}, r"delays \(1, 1\); give whole numbers that rise"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=lambda v: str(v) if isinstance(v, dict) else None)
def test_an_option_out_of_range_is_refused_with_what_fits(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CellError, match=f"^{name} has {message}"):
        family()[name](**options).program()


# ---------------------------------------------------------------- how parameters start


def fresh(name: str, hidden: int = 64, init: dict[str, str] | None = None, **options: Any) -> dict[str, Tensor]:
    """All that a new layer's equations name, trained or not."""
    torch.manual_seed(3)
    one = family()[name](**options)
    width = hidden if one.program().input_size == "H" else 5
    layer = RNN(one, width, hidden, sizes=sizes_for(one, hidden), init=init, dtype=torch.float64)
    return {**{n: p.detach() for n, p in layer.cell_parameters().items()}, **layer.cell_buffers()}


def test_time_constants_span_the_range_that_is_asked_for() -> None:
    plain = {"U": "zeros"}  # an orthogonal matrix of this size takes seconds
    tau = fresh("leaky", 4000, plain, shortest=2.0, longest=200.0)["tau"]
    assert 2.0 <= tau.min() < 2.05 and 195.0 < tau.max() <= 200.0
    assert tau.log().mean().item() == pytest.approx(math.log(400.0) / 2, abs=0.1)
    own = 1 + fresh("leaky", 4000, plain, learned=True, shortest=2.0, longest=200.0)["s"].exp()
    assert 2.0 <= own.min() < 2.05 and 195.0 < own.max() <= 200.0
    layer = RNN("leaky", 3, 4)
    assert "tau_l0" not in dict(layer.named_parameters()) and "tau_l0" in layer.state_dict()


def test_the_identity_keeps_a_rectified_state() -> None:
    p = fresh("irnn")
    assert torch.equal(p["U"], torch.eye(64, dtype=torch.float64)) and not p["b"].any()
    assert p["W"].std().item() == pytest.approx(0.001, rel=0.2)


def test_clocks_come_in_blocks_and_fast_ones_see_slow_ones() -> None:
    p = fresh("clockwork", 7, periods=(1, 3, 9))
    assert p["period"].tolist() == [1, 1, 1, 3, 3, 9, 9]
    assert torch.equal(p["mask"] != 0, p["period"][None, :] >= p["period"][:, None])


def test_a_slow_block_changes_at_its_period_only() -> None:
    layer = build(cells.clockwork(periods=(1, 2, 4)), 3, 6, "eager", return_states=True)
    *_, states = layer(inputs(9, 2, 3, torch.float64))
    h = states[0]["h"] if isinstance(states, list) else states["h"]
    for unit, period in enumerate([1, 1, 2, 2, 4, 4]):
        changed = [t for t in range(1, 9) if (h[t, :, unit] != h[t - 1, :, unit]).any()]
        assert changed == [t for t in range(1, 9) if t % period == 0]


def test_what_a_linear_recurrent_unit_keeps_has_the_modulus_of_its_ring() -> None:
    p = fresh("lru", 2000, r_min=0.6, r_max=0.9, max_phase=1.5)
    modulus, angle = (-p["nu"].exp()).exp(), p["theta"].exp()
    assert 0.6 <= modulus.min() < 0.61 and 0.89 < modulus.max() <= 0.9
    assert 0.0 < angle.min() < 0.01 and 1.49 < angle.max() <= 1.5
    torch.testing.assert_close(p["gamma"].exp(), (1 - modulus**2).sqrt())
    assert p["B_re"].var().item() == pytest.approx(1 / (2 * 5), rel=0.1)
    assert p["C_im"].var().item() == pytest.approx(1 / 2000, rel=0.05)


def test_a_legendre_memory_holds_the_window() -> None:
    """The memory that reads a constant comes to hold it: the first polynomial alone, from theta steps on."""
    p = fresh("lmu", 12, theta=20.0)
    m = torch.zeros(6, dtype=torch.float64)
    for _ in range(60):
        m = p["A"] @ m + p["B"][:, 0]
    torch.testing.assert_close(m, torch.eye(6, dtype=torch.float64)[0], rtol=0, atol=1e-2)
    assert {"A_l0", "B_l0"} <= set(dict(RNN("lmu", 2, 3, sizes={"N": 4}).named_buffers()))


def test_a_fresh_filter_is_the_moving_average() -> None:
    x = inputs(8, 2, 3, torch.float64)
    y, _ = RNN(cells.fir(window=4), 3, 3, dtype=torch.float64)(x)
    padded = torch.cat([torch.zeros(3, 2, 3, dtype=torch.float64), x])
    torch.testing.assert_close(y, torch.stack([padded[t : t + 4].mean(0) for t in range(8)]))


# ---------------------------------------------------------------- values that the papers promise


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_exponential_gates_stay_finite(backend: str, dtype: torch.dtype, forget_gate: str) -> None:
    """Where exp of the gates would be infinite, and where it would be nothing, the stabiliser keeps all in range."""
    layer = build(cells.slstm(forget_gate=forget_gate), 3, 5, backend, dtype)
    x = inputs(40, 2, 3, dtype).requires_grad_()
    for shift in (-90.0, 0.0, 500.0):
        with torch.no_grad():
            layer.cell_parameters()["b_i"].fill_(shift)
        output, state = layer(x)
        found = torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])
        assert all(v.isfinite().all() for v in (output, *found, *state[1:]))
        assert output.abs().max() <= 1.0  # a mean of tanh under weights that add up to 1
        assert output.abs().max() > 1e-3


def test_the_stabiliser_changes_nothing() -> None:
    """From zeros, where m is chosen anew, the output is that of the gates as they are."""
    layer = build(cells.slstm, 3, 5, "eager")
    x = inputs(9, 2, 3, torch.float64)
    zeros = tuple(torch.zeros(2, 5, dtype=torch.float64) for _ in range(4))
    meant, _ = plain("slstm", {}, dict(layer.cell_parameters()), x, zeros)
    torch.testing.assert_close(layer(x)[0], meant, rtol=1e-12, atol=1e-12)


def test_an_antisymmetric_network_without_diffusion_keeps_the_norm() -> None:
    """Its linear part turns the state: the eigenvalues of U - U^T are imaginary."""
    layer = build(cells.antisymmetric(epsilon=1e-6, gamma=0.0), 2, 6, "eager")
    h = numbers("h", 1, 1, 6)
    with torch.no_grad():
        layer.cell_parameters()["b"].zero_()
        _, after = layer(torch.zeros(1, 1, 2, dtype=torch.float64), h * 1e-4)
    change = (after - h * 1e-4) / 1e-6
    assert change.abs().max() > 1e-5
    assert (change * h).sum().abs() < 1e-7 * change.norm()


# ---------------------------------------------------------------- transpose


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_matrix_of_parameters_is_transposed(backend: str) -> None:
    @cell(sizes={"V": ("H", "D")})
    def tied(p: Any, x: Any, h: Any) -> Any:
        a = p.V @ x
        return tanh(a + p.V @ (transpose(p.V) @ h) + transpose(p.S * p.R) @ h)

    assert tied.program().params == {"V": ("H", "D"), "S": ("H", "H"), "R": ("H", "H")}
    layer = build(tied, 3, 5, backend)
    weights = layer.cell_parameters()
    x, h = inputs(4, 2, 3, torch.float64), states_for(layer, 2, torch.float64)[0]
    output, final = layer(x, h)
    V, S, R, state = weights["V"], weights["S"], weights["R"], h[0]
    outputs = []
    for value in x:
        state = tanh_of(value @ V.T + state @ V @ V.T + state @ (S * R))
        outputs.append(state)
    found, meant = (
        {"output": y, **{f"grad {k}": g for k, g in enumerate(torch.autograd.grad(y.square().sum(), [V, S, R]))}}
        for y in (output, torch.stack(outputs))
    )
    assert_agree(found, meant, torch.float64)
    torch.testing.assert_close(final[0], outputs[-1])


def tanh_of(value: Tensor) -> Tensor:
    return torch.tanh(value)


def test_two_transpositions_are_none() -> None:
    @cell
    def twice(p: Any, x: Any, h: Any) -> Any:
        return p.W @ x + transpose(transpose(p.U)) @ h

    assert not [n for n in simplify(twice.program()).nodes if n.op == "transpose"]
    assert "Uᵀ" in equations(cells.antisymmetric.program())
    assert r"U^\top" in equations(cells.antisymmetric.program(), latex=True)


def test_what_is_no_matrix_of_parameters_is_not_transposed() -> None:
    def refused(equation: Any, message: str) -> None:
        one = cell(equation)
        with pytest.raises(CellError, match=message):
            one.program()

    refused(lambda p, x, h: transpose(h), r"transpose of h \[H\], which the step computes; transpose a matrix of")
    refused(lambda p, x, h: transpose(p.W @ x) + h, "which the step computes")
    refused(lambda p, x, h: p.b * h + transpose(p.b), r"transpose of p.b \[H\], which is not a matrix")
    refused(lambda p, x, h: h + transpose(2.0), "which is not a matrix")
