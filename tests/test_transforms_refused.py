"""A transform on a cell it cannot be applied to says why, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

import ostinato
from ostinato import RNN, CellError, ShapeError, cell, cells, sigmoid, tanh, transforms


@cell
def pointwise(p, x, h):
    """No matrix multiplies the state."""
    return tanh(p.W @ x + p.u * h)


@cell
def looser(p, x, h):
    """What is written is the difference to the old state."""
    n = tanh(p.W @ x + p.U @ h)
    return h + sigmoid(p.V @ x) * (n - h)


@cell(sizes={"x": "H", "h": "P"})
def unequal(p, x, h):
    """x has a size of its own, which is not the output's."""
    return tanh(p.W @ x + p.U @ h)


@cell
def stateless(p, x):
    """Nothing is carried."""
    return ostinato.emit(tanh(p.W @ x))


@cell
def blind(p, x, h):
    """x is not read."""
    return tanh(p.U @ h)


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("has no product of a matrix with a value that depends on a state", lambda: transforms.layer_norm(pointwise)),
    ("has no product of a matrix with x", lambda: transforms.layer_norm(blind, on="input")),
    ("on= names 'gate'; choose of recurrent, input, state", lambda: transforms.layer_norm(cells.lstm, on="gate")),
    ("on= names None; choose of", lambda: transforms.layer_norm(cells.lstm, on=None)),  # type: ignore[arg-type]
    ("on= names no place", lambda: transforms.layer_norm(cells.lstm, on=())),
    (
        "reads none on; choose on='recurrent' or on='input'; if a transform changed the states, normalise before it",
        lambda: transforms.layer_norm(transforms.zoneout(cells.lstm, 0.1), on="state"),
    ),
    ("eps of layer_norm = 0", lambda: transforms.layer_norm(cells.lstm, eps=0)),
    ("has no product of a matrix with a value that depends on a state", lambda: transforms.batch_norm(pointwise, 9)),
    ("max_length of batch_norm = 0", lambda: transforms.batch_norm(cells.lstm, 0)),
    ("max_length of batch_norm = 2.5", lambda: transforms.batch_norm(cells.lstm, 2.5)),  # type: ignore[arg-type]
    ("momentum is 2.0; give a share", lambda: transforms.batch_norm(cells.lstm, 9, momentum=2.0)),
    ("has no state 'cell'; did you mean 'c'", lambda: transforms.zoneout(cells.lstm, {"cell": 0.1})),
    ("has no state 'memory'; its states are h, c", lambda: transforms.zoneout(cells.lstm, {"memory": 0.1})),
    ("the rate is 1.0; give a probability, 0 <= rate < 1", lambda: transforms.zoneout(cells.lstm, 1.0)),
    ("the rate of c is -0.1", lambda: transforms.zoneout(cells.lstm, {"c": -0.1})),
    ("the rate is True", lambda: transforms.zoneout(cells.lstm, True)),
    ("the rate is nan", lambda: transforms.zoneout(cells.lstm, float("nan"))),
    ("has no states", lambda: transforms.zoneout(stateless, 0.1)),
    ("the rate on input is 1.5", lambda: transforms.variational_dropout(cells.lstm, input=1.5)),
    ("the rate on output is '0.1'", lambda: transforms.variational_dropout(cells.lstm, output="0.1")),  # type: ignore[arg-type]
    ("does not read x; leave out input=", lambda: transforms.variational_dropout(blind, input=0.1)),
    ("multiplies the state c, or a multiple", lambda: transforms.variational_dropout(cells.lstm, state={"c": 0.1})),
    ("multiplies the state h, or a multiple", lambda: transforms.variational_dropout(pointwise, state=0.1)),
    ("is a sum with a multiple of its old value", lambda: transforms.recurrent_dropout(cells.elman, 0.1)),
    ("is not a gate times one value", lambda: transforms.recurrent_dropout(looser, 0.1)),
    ("has no value 'k'; pass value= one of i, f, g", lambda: transforms.recurrent_dropout(cells.lstm, 0.1, value="k")),
    ("has no product of a matrix with a value that depends on a state", lambda: transforms.weight_drop(pointwise, 0.1)),
    ("x has size H and the output P", lambda: transforms.residual(unequal)),
    ("over is 'width'; choose 'depth' or 'time'", lambda: transforms.residual(cells.lstm, over="width")),
    ("is of the output, not of a state", lambda: transforms.residual(cells.lstm, state="h")),
    ("has no state 'q'", lambda: transforms.residual(cells.lstm, over="time", state="q")),
    ("depth of deep_transition = 0", lambda: transforms.deep_transition(cells.lstm, 0)),
    ("has no states", lambda: transforms.deep_transition(stateless, 1)),
    ("no sum of cell pointwise has one product", lambda: transforms.multiplicative_integration(pointwise)),
    (
        "apply it before transforms that wrap products",
        lambda: transforms.multiplicative_integration(transforms.layer_norm(cells.lstm)),
    ),
    ("alpha is '2'; give a number", lambda: transforms.multiplicative_integration(cells.lstm, alpha="2")),  # type: ignore[arg-type]
    ("only is 'yes'; give True or False", lambda: transforms.skip_in_time(cells.lstm, 3, only="yes")),  # type: ignore[arg-type]
    ("k of skip_in_time = 1", lambda: transforms.skip_in_time(cells.lstm, 1)),
    ("multiplies the state c, or a multiple", lambda: transforms.skip_in_time(cells.lstm, 4, state="c")),
]


@pytest.mark.parametrize(("message", "make"), REFUSED, ids=[message for message, _ in REFUSED])
def test_a_refusal_says_why(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(CellError) as caught:
        make()
    assert message in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("name", cells.catalogue())
def test_what_a_refusal_offers_is_taken(name: str) -> None:
    """Every value that recurrent_dropout names, and every other place that layer_norm does."""
    known = cells.get(name)
    try:
        transforms.recurrent_dropout(known, 0.1)
    except CellError as refusal:
        offered = re.search(r"pass value= one of (.*), the values", str(refusal))
        assert offered or "name no value of the step" in str(refusal)
        for value in offered[1].split(", ") if offered else ():
            masks = transforms.recurrent_dropout(known, 0.1, value=value).program().masks
            assert masks and all(mask.name.startswith(f"drop_{value}") for mask in masks), value
    try:
        transforms.layer_norm(known, on="state")
    except CellError as refusal:
        places = re.findall(r"on='(\w+)'", str(refusal).partition("; ")[2].partition(";")[0])
        assert places or "choose another cell" in str(refusal)
        for place in places:
            assert "g_" in "".join(transforms.layer_norm(known, on=place).program().params), place


def test_what_is_refused_by_itself_can_be_named() -> None:
    masks = transforms.recurrent_dropout(looser, 0.1, value="n").program().masks
    assert [mask.name for mask in masks] == ["drop_n"]
    assert transforms.residual(unequal, over="time").program().states == ("h",)


def test_a_residual_connection_needs_equal_sizes() -> None:
    cell = transforms.residual(cells.gru)
    assert RNN(cell, 4, 4)(torch.zeros(2, 1, 4))[0].shape == (2, 1, 4)
    with pytest.raises(ShapeError, match="make input_size and the output's size equal"):
        RNN(cell, 3, 4)


def test_options_are_given_before() -> None:
    with pytest.raises(CellError, match="give them before it is transformed"):
        transforms.zoneout(cells.elman, 0.1)(activation="relu")
    assert transforms.zoneout(cells.elman(activation="relu"), 0.1).name == "zoneout(elman(activation='relu'), 0.1)"
