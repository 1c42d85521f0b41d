"""Bad input: each gets the documented error, which says the fact, what was got, and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import BACKENDS
from measured import build, inputs, measure, sizes_for
from ostinato import RNN, BackendError, CellError, OstinatoError, ShapeError

X = torch.zeros(4, 2, 3)
H = torch.zeros(1, 2, 5)


def lstm(**arguments: Any) -> RNN:
    """A layer that takes x [T, 2, 3] and has H = 5."""
    return RNN("lstm", 3, 5, **arguments)


# what is done, the error, and what its message must hold: the fact, what was got, the remedy
CALLS: list[tuple[str, Any, type[OstinatoError], list[str]]] = [
    ("width", lambda: lstm()(torch.zeros(4, 2, 7)), ShapeError, ["last dimension is 7", "input_size=3", "D = 3"]),
    ("one dimension", lambda: lstm()(torch.zeros(3)), ShapeError, ["1 dimensions", "[T, B, D]", "[T, D]"]),
    ("four dimensions", lambda: lstm()(torch.zeros(1, 4, 2, 3)), ShapeError, ["4 dimensions", "[1, 4, 2, 3]"]),
    ("no tensor", lambda: lstm()([[1.0]]), ShapeError, ["list", "tensor or a PackedSequence"]),
    ("none", lambda: lstm()(None), ShapeError, ["NoneType", "tensor"]),
    ("integers", lambda: lstm()(X.long()), ShapeError, ["torch.int64", "x.float()"]),
    ("booleans", lambda: lstm()(X.bool()), ShapeError, ["torch.bool", "x.float()"]),
    ("complex", lambda: lstm()(X.cfloat()), ShapeError, ["torch.complex64"]),
    ("half", lambda: lstm()(X.half()), ShapeError, ["torch.float16", "weights are torch.float32", ".to("]),
    ("bfloat16", lambda: lstm()(X.bfloat16()), ShapeError, ["torch.bfloat16", ".to("]),
    ("double", lambda: lstm()(X.double()), ShapeError, ["torch.float64", "weights are torch.float32", ".to("]),
    ("another device", lambda: lstm()(X.to("meta")), ShapeError, ["meta", "cpu", ".to("]),
    ("batch first width", lambda: lstm(batch_first=True)(torch.zeros(2, 3, 4)), ShapeError, ["[B, T, D]", "D = 3"]),
    # states
    ("state alone", lambda: lstm()(X, H), ShapeError, ["2 states", "got 1", "state=(h, c)"]),
    ("too many states", lambda: lstm()(X, (H, H, H)), ShapeError, ["2 states", "got 3", "state=(h, c)"]),
    ("a number for a state", lambda: lstm()(X, 0.0), ShapeError, ["2 states", "float", "state=(h, c)"]),
    ("none for a state", lambda: lstm()(X, (H, None)), ShapeError, ["state c", "NoneType", "[1, 2, 5]"]),
    ("state width", lambda: lstm()(X, (H, torch.zeros(1, 2, 4))), ShapeError, ["state c", "[1, 2, 4]", "[1, 2, 5]"]),
    ("state batch", lambda: lstm()(X, (torch.zeros(1, 3, 5), H)), ShapeError, ["state h", "[1, 3, 5]", "[1, 2, 5]"]),
    ("state layers", lambda: lstm(num_layers=2)(X, (H, H)), ShapeError, ["[1, 2, 5]", "[2, 2, 5]", "num_layers"]),
    ("state directions", lambda: lstm(bidirectional=True)(X, (H, H)), ShapeError, ["[2, 2, 5]", "num_directions"]),
    ("state dimensions", lambda: lstm()(X, (H[0], H[0])), ShapeError, ["[2, 5]", "[1, 2, 5]"]),
    ("state unbatched", lambda: lstm()(X[:, 0], (H, H)), ShapeError, ["[1, 2, 5]", "[1, 5]"]),
    ("state dtype", lambda: lstm()(X, (H, H.double())), ShapeError, ["state c", "torch.float64", "torch.float32"]),
    ("state of integers", lambda: lstm()(X, (H.long(), H)), ShapeError, ["state h", "torch.int64", ".to("]),
    ("state device", lambda: lstm()(X, (H.to("meta"), H)), ShapeError, ["state h", "meta", "cpu"]),
    ("state for none", lambda: RNN("gru", 3, 5)(X, (H, H)), ShapeError, ["1 states", "got 2", "state=h"]),
    # lengths
    ("beyond T", lambda: lstm()(X, None, [4, 5]), ShapeError, ["lengths[1] = 5", "T = 4", "lengths <= T"]),
    ("far beyond T", lambda: lstm()(X, None, [2**40, 1]), ShapeError, ["lengths[0]", "T = 4"]),
    ("negative", lambda: lstm()(X, None, [4, -1]), ShapeError, ["lengths[1] = -1", "negative", "between 0 and T = 4"]),
    ("tensor beyond T", lambda: lstm()(X, None, torch.tensor([9, 1])), ShapeError, ["lengths[0] = 9", "lengths <= T"]),
    ("floats", lambda: lstm()(X, None, torch.tensor([4.0, 2.0])), ShapeError, ["torch.float32", "whole numbers"]),
    ("bools", lambda: lstm()(X, None, torch.tensor([True, False])), ShapeError, ["torch.bool", "whole numbers"]),
    ("list of floats", lambda: lstm()(X, None, [4.0, 2.0]), ShapeError, ["4.0", "float", "whole numbers"]),
    ("list of bools", lambda: lstm()(X, None, [True, 2]), ShapeError, ["True", "bool", "whole numbers"]),
    ("list of text", lambda: lstm()(X, None, ["4", 2]), ShapeError, ["'4'", "str", "whole numbers"]),
    ("list of none", lambda: lstm()(X, None, [None, 2]), ShapeError, ["None", "whole numbers"]),
    ("too few", lambda: lstm()(X, None, [4]), ShapeError, ["[1]", "2 sequences", "[2]"]),
    ("too many", lambda: lstm()(X, None, [4, 2, 1]), ShapeError, ["[3]", "2 sequences"]),
    ("2-D", lambda: lstm()(X, None, torch.ones(2, 2, dtype=torch.int64)), ShapeError, ["[2, 2]", "2 sequences"]),
    ("a number", lambda: lstm()(X, None, 4), ShapeError, ["int", "list of numbers or a tensor"]),
    ("scalar tensor", lambda: lstm()(X, None, torch.tensor(4)), ShapeError, ["[]", "2 sequences"]),
    ("unbatched", lambda: lstm()(X[:, 0], None, [4, 4]), ShapeError, ["[2]", "1 sequences"]),
    ("T = 0", lambda: lstm()(X[:0], None, [0, 1]), ShapeError, ["lengths[1] = 1", "T = 0"]),
    # construction
    ("unknown cell", lambda: RNN("lsmt", 3, 5), CellError, ["no cell 'lsmt'", "did you mean 'lstm'"]),
    ("unknown cell, upper case", lambda: RNN("GRU", 3, 5), CellError, ["'GRU'", "did you mean 'gru'"]),
    ("nothing near", lambda: RNN("xyzzy", 3, 5), CellError, ["'xyzzy'", "lstm", "gru"]),
    ("a class for a cell", lambda: RNN(torch.nn.LSTM, 3, 5), CellError, ["type", "@ostinato.cell"]),
    ("a function for a cell", lambda: RNN(lambda p, x, h: h, 3, 5), CellError, ["function", "@ostinato.cell"]),
    ("unknown option", lambda: ostinato.cells.gru(size=3), CellError, ["no option 'size'", "none"]),
    ("unknown backend", lambda: lstm(backend="cuda"), BackendError, ["'cuda'", "auto, c, triton, eager"]),
    ("backend none", lambda: lstm(backend=None), BackendError, ["None", "auto, c, triton, eager"]),
    ("input_size 0", lambda: RNN("gru", 0, 5), ShapeError, ["input_size is 0", "at least 1"]),
    ("hidden_size below 0", lambda: RNN("gru", 3, -5), ShapeError, ["hidden_size is -5", "at least 1"]),
    ("hidden_size float", lambda: RNN("gru", 3, 5.0), ShapeError, ["hidden_size is 5.0", "whole number"]),
    ("hidden_size bool", lambda: RNN("gru", 3, True), ShapeError, ["hidden_size is True", "whole number"]),
    ("num_layers 0", lambda: RNN("gru", 3, 5, 0), ShapeError, ["num_layers is 0", "at least 1"]),
    ("dropout 1", lambda: lstm(dropout=1.0), ShapeError, ["dropout is 1.0", "0 <= dropout < 1"]),
    ("dropout below 0", lambda: lstm(dropout=-0.1), ShapeError, ["dropout is -0.1", "0 <= dropout < 1"]),
    ("dropout nan", lambda: lstm(dropout=float("nan")), ShapeError, ["dropout is nan", "0 <= dropout < 1"]),
    ("dropout text", lambda: lstm(dropout="0.5"), ShapeError, ["dropout is '0.5'", "0 <= dropout < 1"]),
    ("size missing", lambda: RNN("projected_lstm", 3, 5), ShapeError, ["size P", "sizes={'P': ...}"]),
    ("size stray", lambda: lstm(sizes={"P": 3}), ShapeError, ["'P'"]),
    ("size 0", lambda: RNN("projected_lstm", 3, 5, sizes={"P": 0}), ShapeError, ["P is 0", "at least 1"]),
    ("size text", lambda: RNN("projected_lstm", 3, 5, sizes={"P": "3"}), ShapeError, ["P is '3'", "whole number"]),
    (
        "proj_size",
        lambda: ostinato.LSTM(3, 5, proj_size=5),
        ShapeError,
        ["proj_size is 5", "less than hidden_size = 5"],
    ),
    ("proj_size below 0", lambda: ostinato.LSTM(3, 5, proj_size=-1), ShapeError, ["proj_size is -1"]),
    ("nonlinearity", lambda: ostinato.Elman(3, 5, nonlinearity="sin"), CellError, ["'sin'", "'tanh' or 'relu'"]),
    ("argument of another", lambda: ostinato.GRU(3, 5, proj_size=2), CellError, ["no argument 'proj_size'", "LSTM"]),
    ("misspelt argument", lambda: ostinato.GRU(3, 5, dropuot=0.2), CellError, ["no argument 'dropuot'", "'dropout'"]),
    ("init text", lambda: lstm(init="orthogonal"), CellError, ["init is 'orthogonal'", "{'U_*': 'orthogonal'}"]),
    ("init list", lambda: lstm(init=["U_*"]), CellError, ["init is list", "{'U_*': 'orthogonal'}"]),
    ("sizes list", lambda: lstm(sizes=[1]), ShapeError, ["sizes is list", "{'P': 32}"]),
    (
        "rule misspelt",
        lambda: lstm(init={"U_f": "orthagonal"}),
        CellError,
        ["'orthagonal'", "mean 'orthogonal[(gain)]'?"],
    ),
    ("rule unlike any", lambda: lstm(init={"U_f": "qqq"}), CellError, ["'qqq'", "a number or one of zeros"]),
    ("rule a tensor", lambda: lstm(init={"b_f": torch.ones(5)}), CellError, ["is Tensor", "cell_parameters()"]),
    ("rule a function", lambda: lstm(init={"b_f": torch.ones_like}), CellError, ["is builtin", "cell_parameters()"]),
    ("no bias to start", lambda: lstm(init={"b_f": 1.0}, bias=False), CellError, ["'b_f'", "bias=False"]),
    *(
        (f"{name} text", lambda name=name: lstm(**{name: "no"}), ShapeError, [f"{name} is 'no'", "True or False"])
        for name in ("bias", "batch_first", "bidirectional", "stateful", "detach", "return_sequences", "return_states")
    ),
    *(
        (f"call {name} 0", lambda name=name: lstm()(X, **{name: 0}), ShapeError, [f"{name} is 0", "True or False"])
        for name in ("detach", "return_sequences", "return_states")
    ),
    # initial states
    ("one initial state", lambda: lstm(initial_state=H[0, 0]), ShapeError, ["initial_state", "2 states", "(h, c)"]),
    ("its width", lambda: lstm(initial_state=(H[0, 0], torch.ones(4))), ShapeError, ["state c", "[1, 1, 5]", "[size]"]),
    ("its batch", lambda: lstm(initial_state=(H, H)), ShapeError, ["state h", "[1, 2, 5]", "[1, 1, 5]", "B = 1"]),
    ("its dtype", lambda: lstm(initial_state=(H[0, 0].long(), H[0, 0])), ShapeError, ["torch.int64", "floating"]),
    ("numbers in it", lambda: lstm(initial_state=(H[0, 0], 2.0)), ShapeError, ["state c is float", "pass a tensor"]),
]


@pytest.mark.parametrize(("what", "call", "kind", "words"), CALLS, ids=[c[0] for c in CALLS])
def test_errors_say_the_fact_what_was_got_and_the_remedy(
    what: str, call: Any, kind: type[OstinatoError], words: list[str]
) -> None:
    with pytest.raises(OstinatoError) as caught:
        call()
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value), str(caught.value)


# options whose values are numbers: those of the values below that fit
NUMBERS = {"forget_bias": (-7, 2.5), "beta": (-7, 2.5)}
NUMBERS |= dict.fromkeys(("alpha", "epsilon", "gamma", "longest", "max_phase", "shortest", "theta"), (2.5,))
OPTIONS = [(name, option) for name, one in ostinato.cells.catalogue().items() for option in one.options]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_no_option_of_a_cell_takes_just_anything(name: str, option: str) -> None:
    """What is neither one of its words, nor a number that fits, is refused when the layer is built, by its name."""
    known = ostinato.cells.get(name)
    for value in (None, "no such thing", -7, 2.5, float("nan"), (), []):
        fits = value in NUMBERS.get(option, ())
        if fits and (option != "forget_bias" or known.options.get("forget_gate", True)):
            RNN(known(**{option: value}), 6, 6, sizes=sizes_for(known, 6))
            continue
        with pytest.raises(CellError) as caught:
            RNN(known(**{option: value}), 6, 6, sizes=sizes_for(known, 6))
        told = str(caught.value)
        rule = option == "forget_bias" and "b_f" in told  # text is read by the layer, as a rule for the bias
        assert (rule or f"{option} " in told) and ";" in told, value


@pytest.mark.parametrize("value", ["cuda", "C", "yes", " c"])
def test_a_bad_environment_variable_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTINATO_BACKEND", value)
    with pytest.raises(BackendError, match=rf"OSTINATO_BACKEND is {value!r}; set it to one of auto, c, triton, eager"):
        lstm()(X)


def test_an_empty_environment_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTINATO_BACKEND", "")
    assert lstm()(X)[0].shape == (4, 2, 5)


def test_a_cell_that_uses_x_elementwise_needs_its_width() -> None:
    @ostinato.cell(sizes={"x": "H"})
    def own(p: Any, x: Any, h: Any) -> Any:
        return ostinato.tanh(x + p.U @ h)

    with pytest.raises(ShapeError, match="uses x elementwise as a vector of size 5, but layer 0 reads"):
        RNN(own, 3, 5)
    assert RNN(own, 5, 5)(torch.zeros(2, 1, 5))[0].shape == (2, 1, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refused_call_changes_nothing(backend: str) -> None:
    """After an error the layer works as before."""
    layer = build(ostinato.cells.lstm, 3, 5, backend)
    x = inputs(4, 2, 3, torch.float64)
    before = layer(x)[0]
    for wrong in (lambda: layer(x, lengths=[9, 9]), lambda: layer(x[..., :2]), lambda: layer(x, (x, x))):
        with pytest.raises(ShapeError):
            wrong()
    assert torch.equal(layer(x)[0], before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unsorted_and_empty_lengths_are_fine(backend: str) -> None:
    layer = build(ostinato.cells.lstm, 3, 5, backend)
    x = inputs(4, 3, 3, torch.float64)
    state = (torch.ones(1, 3, 5, dtype=torch.float64), -torch.ones(1, 3, 5, dtype=torch.float64))
    output, (h, c) = layer(x, state, [1, 4, 0])
    assert torch.equal(output[:, 2], torch.zeros(4, 5, dtype=torch.float64))
    assert torch.equal(h[:, 2], state[0][:, 2]) and torch.equal(c[:, 2], state[1][:, 2])
    assert torch.equal(output[1:, 0], torch.zeros(3, 5, dtype=torch.float64))
    assert output[0, 0].abs().min() > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("kind", [ostinato.LSTM, ostinato.GRU, ostinato.Elman])
def test_nan_and_inf_propagate_as_in_torch(kind: Any, bad: float, backend: str) -> None:
    """Not a number stays not a number, infinity saturates a gate: in outputs, states and gradients."""
    theirs = {ostinato.LSTM: torch.nn.LSTM, ostinato.GRU: torch.nn.GRU, ostinato.Elman: torch.nn.RNN}[kind]
    module = theirs(3, 5, dtype=torch.float64)
    layer = kind(3, 5, dtype=torch.float64, backend=backend)
    layer.load_state_dict(module.state_dict())
    x = inputs(4, 3, 3, torch.float64)
    x[1, 1, 0] = bad
    found = []
    for each in (layer, module):
        own = x.clone().requires_grad_()
        output, _ = each(own)
        (gradient,) = torch.autograd.grad(output[:, [0, 2]].sum(), own)
        found.append((output, gradient))
    (output, gradient), (meant, their_gradient) = found
    assert torch.equal(output.isnan(), meant.isnan())
    torch.testing.assert_close(output, meant, equal_nan=True)
    # the sequences that are clean have clean gradients
    torch.testing.assert_close(gradient[:, [0, 2]], their_gradient[:, [0, 2]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_not_numbers_show(backend: str) -> None:
    layer = build(ostinato.cells.gru, 3, 5, backend)
    with torch.no_grad():
        layer.cell_parameters()["U_n"][2, 3] = float("nan")
    output = measure(layer, inputs(3, 2, 3, torch.float64), wants=lambda n: False)["output"]
    assert isinstance(output, Tensor) and output.isnan().any()


@pytest.mark.parametrize("backend", ["eager", "auto", "c"])
def test_half_precision_works(backend: str) -> None:
    """A layer of half precision gives half precision, and what the whole one gives."""
    layer = lstm(dtype=torch.float16, backend=backend)
    output, (h, c) = layer(X.half())
    assert output.dtype == h.dtype == c.dtype == torch.float16
    torch.testing.assert_close(output.float(), layer.float()(X)[0], rtol=0, atol=5e-3)


def test_a_device_that_c_does_not_take() -> None:
    """On the meta device eager gives shapes; backend="c" says why not."""
    layer = lstm(device="meta", backend="c")
    with pytest.raises(BackendError, match=r"on meta.*CPU"):
        layer(X.to("meta"))
    output, _ = lstm(device="meta")(X.to("meta"))
    assert output.shape == (4, 2, 5) and output.device.type == "meta"
