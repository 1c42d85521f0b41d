"""The language: what a cell may say, what is read from it, and errors that show the user's own line."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import numpy
import pytest
import torch

import ostinato
from ostinato import (
    RNN,
    Cell,
    CellError,
    cell,
    concat,
    emit,
    exp,
    maximum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)


def params(c: Cell) -> dict[str, tuple[str, ...]]:
    """Parameters and their shapes."""
    return c.program().params


def test_a_cell_is_its_equations() -> None:
    @cell
    def own(p, x, h, c):
        """My cell (Somebody 1999).

        More of it.
        """
        f = sigmoid(p.W @ x + p.U @ h + p.d * c + p.b)
        return f * c, tanh(f)

    assert (own.name, own.states, own.summary) == ("own", ("h", "c"), "My cell (Somebody 1999).")
    assert own.reference == "Somebody 1999"
    assert own.doc.startswith("My cell") and own.doc.endswith("More of it.")
    assert params(own) == {"W": ("H", "D"), "U": ("H", "H"), "d": ("H",), "b": ("H",)}
    assert repr(own) == "<cell own(x, h, c)>"


def test_parameters_take_their_shape_from_where_they_stand() -> None:
    @cell
    def own(p, x, h):
        y = p.V @ concat(h, x, p.e)
        return emit(tanh(p.O @ y) + p.k, tanh(y) * exp(p.s) + p.R @ (p.Q @ h))

    assert params(own) == {
        "V": ("H", "D+H+H"),
        "e": ("H",),
        "O": ("H", "H"),
        "k": ("H",),
        "s": ("H",),
        "R": ("H", "H"),
        "Q": ("H", "H"),
    }


def test_sizes_are_declared() -> None:
    @cell(sizes={"h": "P", "x": "H", "alpha": (), "M": ("H", "K"), "b": "K"})
    def own(p, x, h):
        return p.W @ (x + p.alpha * (p.M @ tanh(p.N @ h + p.b)))

    assert params(own) == {
        "W": ("P", "H"),
        "alpha": (),
        "M": ("H", "K"),
        "N": ("K", "P"),
        "b": ("K",),
    }
    layer = RNN(own, 4, 4, sizes={"P": 3, "K": 2})
    assert layer(torch.zeros(5, 2, 4))[0].shape == (5, 2, 3)


def test_the_first_state_is_put_out_unless_another_value_is_emitted() -> None:
    @cell
    def plain(p, x, h, c):
        return tanh(c), tanh(h)

    @cell
    def other(p, x, h, c):
        y = p.W @ x
        return emit(y, tanh(c), tanh(h))

    @cell
    def none(p, x):
        return emit(p.W @ x)

    assert plain.program().output == plain.program().next_states[0]
    assert other.program().nodes[other.program().output].name == "y"
    assert none.states == () and RNN(none, 3, 4)(torch.ones(2, 1, 3))[1] == ()


def test_options_make_variants() -> None:
    @cell
    def own(p, x, h, *, gate=True, kind="tanh"):
        squash = {"tanh": tanh, "relu": relu}[kind]
        z = sigmoid(p.W_z @ x) if gate else 0.5
        return z * squash(p.W @ x + p.U @ h)

    variant = own(gate=False, kind="relu")
    assert dict(own.options) == {"gate": True, "kind": "tanh"}
    assert dict(variant.options) == {"gate": False, "kind": "relu"}
    assert variant.name == "own(gate=False, kind='relu')"
    assert "W_z" in params(own) and "W_z" not in params(variant)
    assert own(gate=True) is own
    assert params(variant(gate=True)) == params(own)
    with pytest.raises(CellError, match=r"no option 'gates'; its options are: gate, kind"):
        own(gates=True)


def test_a_cell_stands_in_another_cell() -> None:
    @cell
    def leaky(p, x, h):
        return 0.9 * h + 0.1 * ostinato.cells.gru(p, x, h)

    assert set(params(leaky)) == set(params(ostinato.cells.gru))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    layer, plain = RNN(leaky, 3, 5, dtype=torch.float64), RNN("gru", 3, 5, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    h = torch.zeros(1, 2, 5, dtype=torch.float64)
    for step in x:
        h = 0.9 * h + 0.1 * plain(step[None], h)[1]
    torch.testing.assert_close(layer(x)[1], h)


def test_local_names_are_kept() -> None:
    names = {node.name for node in ostinato.cells.gru.program().nodes}
    assert {"r", "z", "n"} <= names
    assert {"i", "f", "g", "o"} <= {node.name for node in ostinato.cells.lstm.program().nodes}


def test_declared_starts() -> None:
    @cell(init={"b": 3.0, "U": "identity", "W": "zeros", "u": "uniform"})
    def own(p, x, h):
        return relu(p.W @ x + p.U @ h + p.V @ tanh(h) + p.R @ x + p.b + p.u + p.e)

    weights = RNN(own, 6, 5).cell_parameters()
    assert torch.equal(weights["b"], torch.full((5,), 3.0)) and torch.equal(weights["e"], torch.zeros(5))
    assert torch.equal(weights["U"], torch.eye(5)) and torch.equal(weights["W"], torch.zeros(5, 6))
    torch.testing.assert_close(weights["V"] @ weights["V"].T, torch.eye(5), atol=1e-5, rtol=0)
    bound = math.sqrt(6 / 11)
    assert 0.1 < weights["R"].abs().max() <= bound
    assert 0 < weights["u"].abs().max() <= 5**-0.5
    assert torch.equal(RNN("lstm", 3, 4).cell_parameters()["b_f"], torch.ones(4))


def test_arithmetic_means_what_python_means() -> None:
    """Every operator and function against plain torch, numbers on either side."""

    @cell(sizes={"x": "H"})
    def own(p, x, h):
        a = 2 - x + -h * 3 / (1 + abs(x)) - (1 - h) / 2
        b = maximum(a, 0.5) ** 2 + sqrt(a * a + 1) ** -1.5 + (+a)
        return where(a > b, exp(tanh(a)), softplus(b)) + where(x >= 0.1, 1.0, h)

    x, h = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    a = 2 - x + -h * 3 / (1 + x.abs()) - (1 - h) / 2
    b = a.clamp(min=0.5) ** 2 + torch.sqrt(a * a + 1) ** -1.5 + a
    meant = torch.where(a > b, torch.exp(torch.tanh(a)), torch.nn.functional.softplus(b))
    meant = meant + torch.where(x >= 0.1, torch.ones_like(h), h)
    layer = RNN(own, 4, 4, dtype=torch.float64, backend="eager")
    torch.testing.assert_close(layer(x[None], h[None])[0][0], meant)


def bad(body: str, head: str = "@cell", arguments: str = "p, x, h, c") -> Any:
    """A cell whose only line is `body`."""
    names = {name: getattr(ostinato, name) for name in ostinato.__all__} | {
        "torch": torch,
        "math": math,
        "numpy": numpy,
    }
    source = f"{head}\ndef wrong({arguments}):\n    {body}\n"
    import linecache

    linecache.cache["<wrong>"] = (len(source), None, source.splitlines(True), "<wrong>")
    exec(compile(source, "<wrong>", "exec"), names)
    return names["wrong"]


REFUSED = [
    ("return (h if h > 0 else c), c", "no truth value", "where(condition, a, b)"),
    ("return (h if h else c), c", "no truth value", "where(condition, a, b)"),
    ("return h and c, c", "no truth value", "where(condition, a, b)"),
    ("return torch.tanh(h), c", "torch.tanh does not take symbols", "functions of ostinato"),
    ("return torch.sigmoid(p.W @ x), c", "torch.sigmoid does not take symbols", "functions of ostinato"),
    ("return math.tanh(h), c", "a symbol has no number", "functions of ostinato"),
    ("return numpy.tanh(h), c", "", "functions of ostinato"),
    ("return torch.ones(3) * h, c", "", ""),
    ("return numpy.ones(3) * h, c", "ndarray", "p.NAME and numbers"),
    ("return h * 'text', c", "str 'text' cannot stand", "p.NAME and numbers"),
    ("return h * None, c", "NoneType", "p.NAME and numbers"),
    ("return h * True, c", "bool", "p.NAME and numbers"),
    ("return h ** c, c", "an exponent is a number", "exp(b * log(a))"),
    ("return 2 ** h, c", "an exponent is a number", "exp(b * log(a))"),
    ("return h[0], c", "a symbol has no elements", "whole vectors"),
    ("return sum(h), c", "a symbol has no elements", "whole vectors"),
    ("return len(h), c", "a symbol has no elements", "whole vectors"),
    ("return h.tanh(), c", "no attribute 'tanh'", "functions of ostinato"),
    ("return h.T @ x, c", "no attribute 'T'", "functions of ostinato"),
    ("return h @ c, c", "stands left of @, but is not a matrix", "p.NAME @ value"),
    ("return 2 @ c, c", "left of @", "p.NAME @ value"),
    ("return p.W @ 3, c", "cannot stand right of @", "p.W @ x"),
    ("return p.W @ h + p.W @ x, c", "cannot multiply", "another parameter name"),
    ("return x + h, c", "their sizes differ", "p.W @ value"),
    ("return p.W @ x + p.W, c", "matrix", "p.W @ value"),
    ("return h * (h > c), c", "a truth value, not a number", "where(condition, a, b)"),
    ("return where(h, h, c), c", "not a comparison", "where(a > b, value, other)"),
    ("return where(True, h, c), c", "not a comparison", "where(a > b, value, other)"),
    ("return where(h > c, x, h), c", "their sizes differ", "p.W @ value"),
    ("return concat(), c", "concat of nothing", "vectors"),
    ("return p.W @ concat(1.0, h), c", "not a vector", "vectors"),
    ("return tanh(h)", "has 2 states (h, c), but returned 1", "in the order of the arguments"),
    ("return h, c, h", "has 2 states (h, c), but returned 3", "in the order of the arguments"),
    ("return None", "returned NoneType", "next states (h, c)"),
    ("return h, 1.0", "returned float", "next states (h, c)"),
    ("return p.W @ x, concat(h, c)", "state c has size H", "declare sizes"),
    ("return emit(h), c", "", ""),
    ("return emit(1.0, h, c)", "emit takes values", "emit(output, *next_states)"),
    ("return emit(h, h)", "has 2 states (h, c), but returned 1", "emit(y, ...)"),
    ("return undefined(h), c", "NameError", "functions of ostinato"),
    ("return tanh(h, c), c", "TypeError", "functions of ostinato"),
    ("return tanh(), c", "TypeError", "functions of ostinato"),
    ("raise ValueError('own')", "ValueError: own", "functions of ostinato"),
]


@pytest.mark.parametrize(("line", "fact", "remedy"), REFUSED, ids=[line for line, *_ in REFUSED])
def test_an_error_shows_the_users_own_line(line: str, fact: str, remedy: str) -> None:
    with pytest.raises(CellError) as caught:
        RNN(bad(line), 3, 4)
    message = str(caught.value)
    assert fact in message and remedy in message
    # where the equations end is known by the cell's own line, everything else by the line that is wrong
    assert "<wrong>" in message
    assert line in message or "@cell" in message, message


def test_a_shape_error_shows_the_line_that_is_wrong() -> None:
    """The line among many, in a file that exists."""

    @cell
    def own(p, x, h):
        a = p.W @ x
        b = h + x  # this line
        return tanh(a + b)

    with pytest.raises(CellError) as caught:
        own.program()
    here, start = inspect.getsourcelines(test_a_shape_error_shows_the_line_that_is_wrong)
    number = start + next(i for i, line in enumerate(here) if "# this line" in line)
    assert "b = h + x  # this line" in str(caught.value)
    assert f"test_lang.py:{number}" in str(caught.value)


SIGNATURES = [
    ("return h", "@cell", "h", "f(p, x, *states)"),
    ("return h", "@cell", "p, *h", "name every state"),
    ("return h", "@cell", "p, x, h, **more", "name every state"),
    ("return h", "@cell", "p, x, h, *, option", "has no default"),
]


@pytest.mark.parametrize(("line", "head", "arguments", "fact"), SIGNATURES, ids=[s[2] for s in SIGNATURES])
def test_signatures(line: str, head: str, arguments: str, fact: str) -> None:
    with pytest.raises(CellError, match=fact.replace("(", r"\(").replace(")", r"\)").replace("*", r"\*")):
        bad(line, head, arguments)


def test_other_misuse() -> None:
    with pytest.raises(CellError, match="put it on a function"):
        cell(3)  # type: ignore[call-overload]
    with pytest.raises(CellError, match="sizes names 'q'"):
        bad("return tanh(p.W @ x + p.U @ h)", "@cell(sizes={'q': 'P'})", "p, x, h").program()
    with pytest.raises(CellError, match="not a name"):
        bad("return tanh(p.W @ x + p.U @ h)", "@cell(sizes={'h': '2H'})", "p, x, h").program()
    with pytest.raises(CellError, match="vectors of one size"):
        bad("return tanh(p.W @ x + p.U @ h)", "@cell(sizes={'h': ('H', 'H')})", "p, x, h").program()
    with pytest.raises(CellError, match="a cell holds equations, not numbers"):
        ostinato.cells.gru(torch.zeros(3), torch.zeros(3))
    with pytest.raises(CellError, match="there is no initialisation 'ones-ish'"):
        RNN(bad("return tanh(p.W @ x)", "@cell(init={'W': 'ones-ish'})", "p, x, h"), 3, 4)
    with pytest.raises(CellError, match="is for matrices"):
        RNN(bad("return tanh(p.W @ x + p.b)", "@cell(init={'b': 'orthogonal'})", "p, x, h"), 3, 4)
    with pytest.raises(CellError, match="elman has activation 'sin'; choose 'tanh' or 'relu'"):
        ostinato.cells.elman(activation="sin").program()


def test_reading_leaves_no_trace() -> None:
    """Not a profiler, not a cell half read: an error in one reading does not change the next."""
    import sys

    before = sys.getprofile()
    wrong = bad("return h if h > 0 else c, c")
    for _ in range(2):
        with pytest.raises(CellError):
            wrong.program()
    assert sys.getprofile() is before
    assert ostinato.cells.gru.program() is ostinato.cells.gru.program()


def test_cells_pickle_and_keep_their_meaning() -> None:
    for original in ostinato.cells.catalogue().values():
        copy = pickle.loads(pickle.dumps(original))
        assert (copy.name, copy.states, copy.summary) == (original.name, original.states, original.summary)
        assert copy.program() == original.program()
        assert copy.reference == original.reference


def test_reading_a_cell_does_not_disturb_a_profiler() -> None:
    import cProfile

    profiler = cProfile.Profile()
    profiler.enable()
    try:
        program = cell(lambda p, x, h: tanh(p.W @ x + p.U @ h)).program()
    finally:
        profiler.disable()
    assert program.states == ("h",)


def test_a_value_of_parameters_has_one_size_wherever_it_is_used() -> None:
    @cell(sizes={"h": "P", "s": ()})
    def own(p, x, h, c):
        return tanh(p.s * p.b), tanh(p.W @ (p.b * p.b))

    assert own.program().params == {"s": (), "b": ("P",), "W": ("H", "P")}

    @cell(sizes={"s": ()})
    def other(p, x, h):
        v = p.s * p.b
        return tanh(p.b * h + p.W @ (p.V @ x + v))

    assert other.program().params == {"b": ("H",), "W": ("H", "H"), "V": ("H", "D"), "s": ()}
