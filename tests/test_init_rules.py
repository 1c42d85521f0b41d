"""Which rule a parameter gets: defaults, patterns, rules that refer to others, and what is no rule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

import ostinato
from ostinato import RNN, CellError
from ostinato.nn.initialize import chrono_, chrono_rules, default_rules, initialize, initialize_all, rules_for
from ostinato.nn.rules import FORMS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- which rule a parameter gets


@pytest.mark.parametrize("name", list(ostinato.cells.catalogue()))
def test_every_cell_of_the_catalogue_declares_what_it_can_have(name: str) -> None:
    program = ostinato.cells.catalogue()[name].program()
    rules = rules_for(program)
    assert rules == default_rules(program)
    assert set(rules) == set(program.params)


@pytest.mark.parametrize("name", list(ostinato.cells.catalogue()))
def test_one_pattern_reaches_every_parameter(name: str) -> None:
    program = ostinato.cells.catalogue()[name].program()
    trained = set(program.params) - set(program.fixed)
    if not trained:
        pytest.skip("no parameter is trained")
    rules = rules_for(program, {"*": 0.25})
    assert {n for n, rule in rules.items() if rule == 0.25} >= trained
    assert {n: rules[n] for n in program.fixed} == {n: default_rules(program)[n] for n in program.fixed}


def test_where_a_matrix_stands_gives_its_default() -> None:
    rules = rules_for(ostinato.cells.lstm.program())
    assert {n: r for n, r in rules.items() if n.startswith("W_")} == dict.fromkeys(
        ["W_i", "W_f", "W_g", "W_o"], "xavier"
    )
    assert {n: r for n, r in rules.items() if n.startswith("U_")} == dict.fromkeys(
        ["U_i", "U_f", "U_g", "U_o"], "orthogonal"
    )
    assert (rules["b_i"], rules["b_f"]) == ("zeros", 1.0)


def test_a_name_goes_before_a_pattern_and_a_later_pattern_before_an_earlier() -> None:
    program = ostinato.cells.lstm.program()
    rules = rules_for(program, {"b_f": 2.0, "*": "uniform", "U_*": "orthogonal", "[UW]_o": "xavier"})
    assert rules["b_f"] == 2.0
    assert rules["b_i"] == rules["W_f"] == "uniform"
    assert rules["U_f"] == "orthogonal"
    assert rules["U_o"] == rules["W_o"] == "xavier"


def test_parameters_that_are_not_trained_answer_to_their_names_alone() -> None:
    program = dataclasses.replace(ostinato.cells.elman.program(), fixed=("U",))
    assert rules_for(program, {"*": "uniform"}) == {"W": "uniform", "U": "orthogonal", "b": "uniform"}
    assert rules_for(program, {"U": "identity"})["U"] == "identity"
    with pytest.raises(CellError, match="init has '\\?U\\*', but cell elman has no such parameter to train"):
        rules_for(program, {"?U*": "identity"})


def test_a_pattern_that_matches_nothing_names_what_is_near() -> None:
    program = ostinato.cells.lstm.program()
    with pytest.raises(
        CellError, match=r"init has 'b_forget', but cell lstm has no such parameter.*did you mean .*'b_f'"
    ):
        rules_for(program, {"b_forget": 1.0})
    with pytest.raises(CellError, match="its parameters are W_i, "):
        rules_for(program, {"?????": 1.0})
    elman = ostinato.cells.elman.program()
    assert rules_for(program, {"U": "identity"}, beside=[elman]) == default_rules(program)  # meant for the other layer
    assert rules_for(elman, {"U": "identity"}, beside=[program])["U"] == "identity"


def test_a_layer_takes_rules_for_all_its_layers_and_directions() -> None:
    layer = RNN("lstm", 3, 5, num_layers=2, bidirectional=True, init={"U_*": "identity(0.5)", **chrono_rules(50)})
    for k, reverse in ((0, False), (0, True), (1, False), (1, True)):
        own = {n: p.detach() for n, p in layer.cell_parameters(k, reverse).items()}
        assert all(torch.equal(own[f"U_{g}"], 0.5 * torch.eye(5)) for g in "ifgo")
        assert torch.equal(own["b_i"], -own["b_f"]) and own["b_f"].all()
    with pytest.raises(CellError, match="init has 'V_\\*', but cell lstm has no such parameter"):
        RNN("lstm", 3, 5, init={"V_*": 1.0})


def test_layers_of_different_cells_share_the_rules_they_have() -> None:
    layer = RNN(["lstm", "elman"], 3, [5, 4], init={"b_f": 3.0, "U": "identity"})
    assert torch.equal(layer.cell_parameters(0)["b_f"].detach(), torch.full((5,), 3.0))
    assert torch.equal(layer.cell_parameters(1)["U"].detach(), torch.eye(4))


def test_a_layer_is_drawn_again_by_a_generator() -> None:
    layer = RNN("gru", 3, 5, num_layers=2, init={"b_*": "uniform"})
    layer.reset_parameters(seeded())
    first = {n: v.clone() for n, v in layer.state_dict().items()}
    torch.manual_seed(3)
    layer.reset_parameters(seeded(1))
    assert not any(torch.equal(v, first[n]) for n, v in layer.state_dict().items())
    layer.reset_parameters(seeded())
    assert all(torch.equal(v, first[n]) for n, v in layer.state_dict().items())


# ---------------------------------------------------------------- rules that refer to others


def test_chrono_gives_the_input_gate_the_negative_of_the_same_draw() -> None:
    program = ostinato.cells.lstm.program()
    rules = rules_for(program, chrono_rules(784))
    layer = RNN("lstm", 3, 50)
    own = layer.cell_parameters()
    for turned in (own, dict(reversed(own.items()))):  # whatever the order of the equations
        initialize_all(turned, rules, 50, seeded())
        assert torch.equal(own["b_i"], -own["b_f"])
        assert float(own["b_f"].detach().max()) > 5 and float(own["b_f"].detach().min()) >= 0


def test_chrono_on_a_layer_draws_each_direction_anew_and_leaves_the_rest() -> None:
    layer = RNN("lstm", 3, 6, num_layers=2, bidirectional=True)
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    chrono_(layer, 100, generator=seeded())
    forget = [layer.cell_parameters(k, r)["b_f"].detach() for k in (0, 1) for r in (False, True)]
    assert len({tuple(f.tolist()) for f in forget}) == 4
    for name, p in layer.named_parameters():
        assert torch.equal(p, before[name]) == (not name.startswith(("b_f", "b_i")))
    gru = RNN("gru", 3, 6)
    chrono_(gru, 100, forget="b_z", input=None, generator=seeded())
    assert torch.equal(gru.cell_parameters()["b_z"], forget[0])


def test_what_cannot_be_drawn_in_chrono_is_said() -> None:
    with pytest.raises(CellError, match="no parameter 'b_f'.*input=, None for a cell without an input gate"):
        chrono_(RNN("gru", 3, 4), 100)
    with pytest.raises(CellError, match="give t_max >= 2 steps"):
        chrono_(RNN("lstm", 3, 4), 1)
    with pytest.raises(CellError, match="no parameter 'b_f'"):
        chrono_(RNN("lstm", 3, 4, bias=False), 100)


def test_references_that_lead_nowhere_are_named() -> None:
    values = {"a": torch.empty(3), "b": torch.empty(3), "c": torch.empty(4)}
    with pytest.raises(CellError, match=r"parameter a: the initialisation 'minus\(d\)' refers to 'd', which is no"):
        initialize_all(values, {"a": "minus(d)", "b": 0.0, "c": 0.0}, 3)
    with pytest.raises(CellError, match="which itself refers to another"):
        initialize_all(values, {"a": "minus(b)", "b": "minus(a)", "c": 0.0}, 3)
    with pytest.raises(CellError, match=r"parameter c: .*one \[3\]; it must be one of the same shape \[4\]"):
        initialize_all(values, {"a": 0.0, "b": 0.0, "c": "minus(a)"}, 3)
    with pytest.raises(CellError, match="refers to no parameter"):
        initialize(torch.empty(3), "minus(a)", 3)


# ---------------------------------------------------------------- what is no rule


@pytest.mark.parametrize(
    "rule", ["ones-ish", "", "glorot", "2.5", "Xavier", "xavier(", "uniform(1, 2", None, True, [1]]
)
def test_what_is_no_rule_gets_the_list_of_all(rule: Any) -> None:
    with pytest.raises(CellError, match="there is no initialisation") as refusal:
        initialize(torch.empty(3, 3), rule, 3)
    assert repr(rule) in str(refusal.value)
    assert [form for form in FORMS if form not in str(refusal.value)] == []


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("xavier(2)", "has 1 arguments; write xavier"),
        ("uniform(1)", "has 1 arguments; write uniform"),
        ("normal", r"has 0 arguments; write normal\(std\)"),
        ("periods", r"has 0 arguments; write periods"),
        ("normal(a)", r"has an argument that is no number; write normal\(std\)"),
        ("uniform(1,)", "has an argument that is no number"),
        ("uniform(2, 1)", "is out of range; give a <= b"),
        ("log_uniform(0, 1)", "is out of range; give 0 < a <= b"),
        ("normal(-1)", "is out of range; give std >= 0"),
        ("orthogonal(inf)", "is out of range; give finite numbers"),
        ("spectral_radius(-1)", "give r >= 0"),
        ("chrono(1)", "give t_max >= 2 steps"),
        ("upper_blocks(1.5)", "give a count >= 1"),
        ("upper_blocks(0)", "give a count >= 1"),
        ("legendre_a(0)", "give theta > 0"),
        ("lru_nu(0.5, 1.5)", "give 0 <= r_min <= r_max <= 1"),
        ("lru_theta(0)", "give max_phase > 0"),
        ("minus", r"names no parameter; write minus\(name\)"),
        ("minus(2)", r"names no parameter; write minus\(name\)"),
        (math.nan, "give a finite number"),
        (-math.inf, "give a finite number"),
    ],
)
def test_arguments_that_do_not_fit_are_said(rule: Any, why: str) -> None:
    with pytest.raises(CellError, match=why):
        initialize(torch.empty(3, 3), rule, 3)
    with pytest.raises(CellError, match=f"parameter U: .*{why}"):
        rules_for(ostinato.cells.elman.program(), {"U": rule})


@pytest.mark.parametrize(
    ("name", "rule", "why"),
    [
        ("b", "orthogonal", "is for matrices, not for a vector; give it a number, 'uniform' or 'zeros'"),
        ("b", "spectral_radius(1)", "is for square matrices, not for a vector"),
        ("U", "linspace(0, 1)", "is for vectors, not for a matrix"),
    ],
)
def test_a_rule_for_another_shape_is_refused(name: str, rule: str, why: str) -> None:
    with pytest.raises(CellError, match=f"parameter {name}: .*{why}"):
        rules_for(ostinato.cells.elman.program(), {name: rule})
    with pytest.raises(CellError, match=why):
        initialize(torch.empty((3, 3) if name == "U" else (3,)), rule, 3)


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(CellError, match=r"is for square matrices, got \[3, 4\]; choose another"):
        initialize(torch.empty(3, 4), "spectral_radius(1)", 3)
    with pytest.raises(CellError, match="not for a scalar"):
        initialize(torch.empty(()), "linspace(0, 1)", 3)
