"""The LSTM and GRU families: each cell against its step in plain torch, how it starts, and what its options may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import BACKENDS
from measured import build, inputs, measure, numbers, states_for
from ostinato import RNN, Cell, CellError, ShapeError, cell, cells, sigmoid, tanh
from ostinato.ir import simplify
from ostinato.nn.initialize import rules_for
from steps_gated import (
    STEPS,
    Step,
    full_peepholes,
    janet,
    lstm,
    mingru,
    minlstm,
    mut1,
    mut2,
    no_activation,
    projected_peephole,
    squashed_as_in_1997,
    vanilla,
    with_options,
)
from tolerances import assert_agree

T, B, D, H = 5, 3, 4, 6
FILES = ("gru", "lstm", "minimal", "peephole")
FAMILY = {name: c for name, c in cells.catalogue().items() if Path(c.code.co_filename).stem in FILES}

# Options that no name of the catalogue stands for.
LSTM, PEEPHOLE = cells.lstm, cells.peephole_lstm
OPTIONS: list[tuple[Cell, Step]] = [
    (
        LSTM(forget_gate=False, input_activation="logistic(-2, 2)", output_activation="logistic(-1, 1)"),
        squashed_as_in_1997,
    ),
    (PEEPHOLE(projection=True), projected_peephole),
    (
        PEEPHOLE(input_activation="relu", output_activation="sigmoid"),
        with_options(vanilla, g=torch.relu, h=torch.sigmoid),
    ),
    (PEEPHOLE(input_gate=False, forget_gate=False, output_gate=False), with_options(vanilla, i=1.0, f=1.0, o=1.0)),
    (
        PEEPHOLE(output_gate=False, output_activation="identity"),
        with_options(vanilla, o=1.0, h=no_activation),
    ),
    (PEEPHOLE(peepholes="full", forget_bias=3.0), full_peepholes),
    (LSTM(forget_bias="chrono(50)"), lstm),
    (cells.mut1(input_term="direct"), with_options(mut1, direct=True)),
    (cells.mut2(input_term="direct"), with_options(mut2, direct=True)),
    (cells.mingru(positive=True), with_options(mingru, positive=True)),
    (cells.minlstm(positive=True), with_options(minlstm, positive=True)),
    (cells.minlstm(normalized=False), with_options(minlstm, normalized=False)),
    (cells.janet(beta=0.0), with_options(janet, beta=0.0)),
    (cells.janet(beta=-0.5), with_options(janet, beta=-0.5)),
]
EVERY = [pytest.param(c, STEPS.get(name), id=name) for name, c in FAMILY.items()]
EVERY += [pytest.param(c, step, id=c.name) for c, step in OPTIONS]


def test_every_cell_of_the_families_has_a_step() -> None:
    assert set(FAMILY) == set(STEPS)


def by_hand(step: Step, layer: RNN, x: Tensor, states: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What `measured.measure` gives, from the step alone."""
    names = layer.programs[0].states
    x = x.detach().requires_grad_()
    given = [s.detach().requires_grad_() for s in states]
    p = {name: weight.detach().clone().requires_grad_() for name, weight in layer.cell_parameters().items()}
    outputs: list[Tensor] = []
    now = tuple(s[0] for s in given)
    for t in range(len(x)):
        output, now = step(p, x[t], *now)
        outputs.append(output)
    found = {"output": torch.stack(outputs)}
    found.update({f"state {n}": s.unsqueeze(0) for n, s in zip(names, now, strict=True)})
    loss = torch.stack([(v * numbers(f"loss {n}", *v.shape)).sum() for n, v in found.items()]).sum()
    sources = {"x": x, **{f"state {n}": s for n, s in zip(names, given, strict=True)}}
    sources.update({f"{name}_l0": weight for name, weight in p.items()})
    gradients = torch.autograd.grad(loss, list(sources.values()))  # a parameter the step does not use is an error
    found.update({f"grad {n}": g for n, g in zip(sources, gradients, strict=True)})
    return {n: v.detach() for n, v in found.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("cell", "step"), EVERY)
def test_a_cell_is_its_step_written_by_hand(cell: Cell, step: Step, backend: str) -> None:
    width = H if cell.program().input_size == "H" else D
    layer = build(cell, width, H, backend)
    x, states = inputs(T, B, width, torch.float64), states_for(layer, B, torch.float64)
    assert_agree(measure(layer, x, states), by_hand(step, layer, x, states), torch.float64)


# ---------------------------------------------------------------- the same cells as before


def test_lstm_without_options_is_the_plain_function() -> None:
    @cell(init={"b_f": 1.0})
    def lstm(p, x, h, c):
        i = sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
        f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
        g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
        o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
        c = f * c + i * g
        h = o * tanh(c)
        return h, c

    @cell(sizes={"h": "P"}, init={"b_f": 1.0})
    def projected_lstm(p, x, h, c):
        i = sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
        f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
        g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
        o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
        c = f * c + i * g
        h = p.W_p @ (o * tanh(c))
        return h, c

    @cell(init={"b_f": 1.0})
    def peephole_lstm(p, x, h, c):
        i = sigmoid(p.W_i @ x + p.U_i @ h + p.p_i * c + p.b_i)
        f = sigmoid(p.W_f @ x + p.U_f @ h + p.p_f * c + p.b_f)
        g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
        c = f * c + i * g
        o = sigmoid(p.W_o @ x + p.U_o @ h + p.p_o * c + p.b_o)
        h = o * tanh(c)
        return h, c

    for plain in (lstm, projected_lstm, peephole_lstm):
        assert cells.get(plain.name).program() == plain.program()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("lstm_b", cells.lstm),
        ("lstm_np", cells.lstm),
        ("lstm_f", cells.lstm_1997),
        ("goodfellow_lstm", cells.lstm(input_activation="sigmoid")),
        ("lstm_i", cells.lstm(input_gate=False, forget_bias=0.0)),
    ],
)
def test_names_for_the_same_equations(name: str, same: Cell) -> None:
    ours, other = simplify(cells.get(name).program()), simplify(same.program())
    assert (ours.nodes, ours.next_states, ours.output, ours.init) == (
        *(other.nodes, other.next_states, other.output),
        other.init,
    )
    assert ours.name == name


def test_what_an_option_takes_away_is_gone() -> None:
    gates = {"input_gate": "i", "forget_gate": "f", "output_gate": "o"}
    for base in (cells.lstm, cells.peephole_lstm):
        whole = set(base.program().params)
        for option, gate in gates.items():
            left = {name for name in whole if not name.endswith(f"_{gate}")}
            assert left < whole
            assert set(base(**{option: False}).program().params) == left
            if gate != "o":
                assert set(base(**{option: "coupled"}).program().params) == left


# ---------------------------------------------------------------- how they start


def test_a_forget_gate_starts_open() -> None:
    for name, c in FAMILY.items():
        start = 0.0 if name in ("lstm_i", "lstm_o") else 1.0  # theirs is the comparison with lstm_b
        params = c.program().params
        rules = rules_for(c.program())
        if name == "lstm_cifg":
            assert rules["b_i"] == -1.0
        elif "b_f" in params and name not in ("mgu", "minlstm"):
            assert rules["b_f"] == start, name
        biases = {n for n in params if n.startswith("b_")} - {"b_f"} - ({"b_i"} if name == "lstm_cifg" else set())
        assert all(rules[n] in (0.0, "zeros") for n in biases), name


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_the_forget_bias_is_an_option(value: float) -> None:
    for c in (cells.lstm, cells.peephole_lstm, cells.cifg, cells.janet, cells.projected_lstm):
        layer = RNN(c(forget_bias=value), 3, 4, sizes={"P": 2} if c is cells.projected_lstm else None)
        own = layer.cell_parameters()
        assert bool((own["b_f"] == value).all())
        assert all(bool((own[n] == 0).all()) for n in own if n.startswith(("b_", "p_")) and n != "b_f")
    own = RNN(cells.lstm_cifg(forget_bias=value), 3, 4).cell_parameters()
    assert bool((own["b_i"] == -value).all())


def test_chrono_biases() -> None:
    """Tallec & Ollivier 2018: b_f = log(u), u even within 1..t_max - 1, and b_i = -b_f where there is one."""
    torch.manual_seed(0)
    own = RNN(cells.lstm(forget_bias="chrono(100)"), 3, 500).cell_parameters()
    assert torch.equal(own["b_i"], -own["b_f"])
    times = own["b_f"].detach().exp()
    assert 1 <= times.min() < 5 and 90 < times.max() <= 99.01
    assert float(times.mean()) == pytest.approx(50, abs=5)
    own = RNN(cells.janet(forget_bias="chrono(100)"), 3, 500).cell_parameters()
    assert own["b_f"].exp().min() >= 1 and own["b_f"].std() > 0.1
    assert bool((own["b_g"] == 0).all())


# ---------------------------------------------------------------- what options may be


GATED = ("lstm", "peephole_lstm")
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    *((name, {"input_gate": "shut"}, ["input_gate 'shut'", "True, False or 'coupled'"]) for name in GATED),
    *((name, {"forget_gate": 1.5}, ["forget_gate 1.5", "True, False or 'coupled'"]) for name in GATED),
    *((name, {"forget_gate": None}, ["forget_gate None", "'coupled'"]) for name in GATED),
    *((name, {"output_gate": "coupled"}, ["output_gate 'coupled'", "choose True or False"]) for name in GATED),
    *(
        (name, {"input_gate": "coupled", "forget_gate": "coupled"}, ["coupled to one", "forget_gate=True"])
        for name in GATED
    ),
    *((name, {"input_gate": "coupled", "forget_gate": False}, ["forget_gate False"]) for name in GATED),
    *((name, {"forget_gate": "coupled", "input_gate": False}, ["input_gate=True"]) for name in GATED),
    *((name, {"input_activation": "swish"}, ["'swish'", "'tanh', 'sigmoid'", "'identity'"]) for name in GATED),
    *((name, {"output_activation": None}, ["output_activation None", "'relu'"]) for name in GATED),
    *((name, {"forget_bias": float("nan")}, ["forget_bias nan", "finite number"]) for name in GATED),
    *((name, {"forget_bias": False}, ["forget_bias False", "'chrono(100)'"]) for name in GATED),
    *((name, {"forget_bias": None}, ["forget_bias None"]) for name in GATED),
    *((name, {"forget_gate": "coupled", "forget_bias": "chrono(9)"}, ["1 - i", "'coupled'"]) for name in GATED),
    *((name, {"forget_gate": False, "forget_bias": 2.0}, ["2.0, but no forget gate", "leave it"]) for name in GATED),
    *((name, {"projection": 3}, ["projection 3", "False or True"]) for name in GATED),
    ("lstm", {"memory_activation": "sigmod"}, ["memory_activation 'sigmod'", "'sigmoid'"]),
    ("lstm", {"peepholes": "full"}, ["no option 'peepholes'"]),
    ("peephole_lstm", {"peepholes": None}, ["peepholes None", "'diagonal' or 'full'"]),
    ("lstm_nig", {"peepholes": "dense"}, ["'dense'", "'diagonal' or 'full'"]),
    ("mut1", {"input_term": "raw"}, ["input_term 'raw'", "'projected' or 'direct'"]),
    ("mut2", {"input_term": True}, ["input_term True", "'projected' or 'direct'"]),
    ("janet", {"beta": "1"}, ["beta '1'", "finite number"]),
    ("janet", {"beta": float("inf")}, ["beta inf"]),
    ("janet", {"forget_bias": []}, ["forget_bias []"]),
    ("mingru", {"positive": "yes"}, ["positive 'yes'", "False or True"]),
    ("minlstm", {"positive": 2}, ["positive 2", "False or True"]),
    ("minlstm", {"normalized": None}, ["normalized None", "False or True"]),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_a_wrong_option_is_refused(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CellError) as refused:
        RNN(cells.get(name)(**options), 4, 4)
    for word in words:
        assert word in str(refused.value)


def test_a_wrong_rule_for_the_forget_bias_is_refused_by_the_layer() -> None:
    with pytest.raises(CellError, match=r"b_f.*'crono\(3\)'.*chrono"):
        RNN(cells.lstm(forget_bias="crono(3)"), 3, 4)


@pytest.mark.parametrize("name", ["mut1", "mut2"])
def test_a_direct_input_has_the_states_width(name: str) -> None:
    with pytest.raises(ShapeError, match="4"):
        RNN(cells.get(name)(input_term="direct"), 3, 4)


# ---------------------------------------------------------------- at the edge of the numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_minlstm_with_both_gates_shut_is_a_mean_and_no_nan(backend: str, dtype: torch.dtype) -> None:
    """f / (f + i) of two gates that underflow."""
    layer = build(cells.minlstm, 2, 3, backend, dtype)
    with torch.no_grad():
        own = layer.cell_parameters()
        for name in own:
            own[name].zero_()
        own["b_f"].fill_(-1000.0)
        own["b_i"].fill_(-1000.0)
        own["b_n"].fill_(4.0)
    x = torch.zeros(2, 1, 2, dtype=dtype, requires_grad=True)
    output, _ = layer(x, torch.zeros(1, 1, 3, dtype=dtype))
    assert output[:, 0, 0].tolist() == [2.0, 3.0]
    gradients = torch.autograd.grad(output.sum(), list(layer.parameters()))
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_a_positive_candidate_keeps_the_state_positive() -> None:
    for c in (cells.mingru(positive=True), cells.minlstm(positive=True)):
        layer = build(c, D, H, "eager")
        output, _ = layer(10 * inputs(20, B, D, torch.float64), torch.full((1, B, H), 0.1, dtype=torch.float64))
        assert bool((output > 0).all())
