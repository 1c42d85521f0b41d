"""Layers of torch.nn read by from_torch and given by to_torch: equal options, weights and numbers."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import ostinato
from laws import cells
from measured import build, fill, flat, inputs, numbers, results
from ostinato import RNN, CellError, sigmoid, tanh
from ostinato.nn.exchange import from_torch, to_torch
from tolerances import assert_agree

KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm-projected": (nn.LSTM, {"proj_size": 3}),
    "gru": (nn.GRU, {}),
    "elman": (nn.RNN, {}),
    "elman-relu": (nn.RNN, {"nonlinearity": "relu"}),
}
# The same equations out of the catalogue, by the names of KINDS.
OURS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lstm": ("lstm", {}),
    "lstm-projected": ("projected_lstm", {"sizes": {"P": 3}}),
    "gru": ("gru_reset_after", {}),
    "elman": ("elman", {}),
    "elman-relu": (ostinato.cells.elman(activation="relu"), {}),
}
CELLS: dict[str, tuple[type[nn.Module], dict[str, Any], type]] = {
    "LSTMCell": (nn.LSTMCell, {}, ostinato.LSTM),
    "GRUCell": (nn.GRUCell, {}, ostinato.GRU),
    "RNNCell": (nn.RNNCell, {}, ostinato.Elman),
    "RNNCell-relu": (nn.RNNCell, {"nonlinearity": "relu"}, ostinato.Elman),
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "dropout": 0.25},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False, "bidirectional": True, "num_layers": 2},
]
NAMES = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")

names = pytest.mark.parametrize("name", list(KINDS))
settings = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def values(module: Any, x: torch.Tensor, *state: Any) -> dict[str, torch.Tensor]:
    """Outputs, states and the gradient of x, whose parameters differ in number."""
    return {n: v for n, v in results(module.eval(), x, *state).items() if not n.startswith("grad ") or n == "grad 0"}


def assert_same_settings(ours: Any, theirs: Any) -> None:
    assert {n: getattr(ours, n) for n in NAMES} == {n: getattr(theirs, n) for n in NAMES}
    assert getattr(ours, "proj_size", ours.sizes.get("P", 0)) == theirs.proj_size


@names
@settings
def test_from_torch_gives_equal_numbers(name: str, settings: dict[str, Any]) -> None:
    kind, more = KINDS[name]
    module = fill(kind(6, 7, dtype=torch.float64, **settings, **more))
    layer = from_torch(module, backend="eager")
    assert_same_settings(layer, module)
    assert layer.backend == "eager"
    x = inputs(5, 4, 6, torch.float64)
    assert_agree(values(layer, x), values(module, x), torch.float64)


@names
@settings
def test_to_torch_gives_equal_numbers(name: str, settings: dict[str, Any]) -> None:
    """Of the layers with torch's names, and of any layer with the same equations."""
    kind, more = KINDS[name]
    cell, options = OURS[name]
    ours = from_torch(kind(6, 7, dtype=torch.float64, **settings, **more), "eager")
    x = inputs(5, 4, 6, torch.float64)
    for layer in (fill(ours), fill(RNN(cell, 6, 7, backend="eager", dtype=torch.float64, **options, **settings))):
        module = to_torch(layer)
        assert type(module) is kind
        assert_same_settings(layer, module)
        assert getattr(module, "nonlinearity", None) == (more.get("nonlinearity", "tanh") if kind is nn.RNN else None)
        assert_agree(values(module, x), values(layer, x), torch.float64)
        again = from_torch(module)
        for key, value in layer.state_dict().items():  # and back, bit for bit
            assert torch.equal(again.state_dict()[key], value)


@names
def test_a_state_carries_over_as_it_is(name: str) -> None:
    kind, more = KINDS[name]
    module = fill(kind(6, 7, 2, bidirectional=True, dtype=torch.float64, **more))
    x = inputs(5, 4, 6, torch.float64)
    state = tuple(numbers(f"s{k}", *s.shape) for k, s in enumerate(flat(module(x)[1])))
    given = state if len(state) > 1 else state[0]
    assert_agree(values(from_torch(module, "eager"), x, given), values(module, x, given), torch.float64)


@pytest.mark.parametrize("name", list(CELLS))
@pytest.mark.parametrize("bias", [True, False])
def test_from_torch_reads_cells(name: str, bias: bool) -> None:
    """A cell stepped by hand gives what the layer gives over the sequence."""
    kind, more, ours = CELLS[name]
    cell = fill(kind(3, 4, bias=bias, dtype=torch.float64, **more))
    layer = from_torch(cell, "eager")
    assert type(layer) is ours
    x = inputs(5, 2, 3, torch.float64)
    output, final = layer(x)
    state: Any = None
    for t, x_t in enumerate(x):
        state = cell(x_t, state)
        torch.testing.assert_close(output[t], flat(state)[0])
    for s, meant in zip(flat(final), flat(state), strict=True):
        torch.testing.assert_close(s[0], meant)


@names
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_dtype_device_mode_and_what_is_frozen_carry_over(name: str, dtype: torch.dtype) -> None:
    kind, more = KINDS[name]
    module = kind(3, 4, num_layers=2, dtype=dtype, **more).eval()
    module.weight_hh_l1.requires_grad_(False)
    layer = from_torch(module)
    back = to_torch(layer)
    for one in (layer, back):
        assert not one.training
        assert {p.dtype for p in one.parameters()} == {dtype}
    frozen = {n for n, p in layer.named_parameters() if not p.requires_grad}
    assert frozen == {n for n in dict(layer.named_parameters()) if n.startswith("U") and n.endswith("_l1")}
    assert [n for n, p in back.named_parameters() if not p.requires_grad] == ["weight_hh_l1"]
    assert back.train().training and to_torch(layer.train()).training
    elsewhere = from_torch(kind(3, 4, device="meta", dtype=dtype, **more))
    assert all(p.is_meta for p in (*elsewhere.parameters(), *to_torch(elsewhere).parameters()))


@names
def test_no_random_number_is_drawn(name: str) -> None:
    kind, more = KINDS[name]
    module = kind(3, 4, **more)
    before = torch.get_rng_state()
    to_torch(from_torch(module))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_copies() -> None:
    module = nn.GRU(3, 4)
    layer = from_torch(module)
    back = to_torch(layer)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    assert all(p.any() for p in module.parameters())
    assert back.weight_ih_l0.any()


def test_weights_under_a_parametrization_are_read_as_they_stand() -> None:
    module = fill(nn.LSTM(3, 4, dtype=torch.float64))
    parametrizations.weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(2.0)  # type: ignore[union-attr,index]
    layer = from_torch(module)
    torch.testing.assert_close(
        torch.cat([layer.cell_parameters()[f"U_{g}"] for g in "ifgo"]), module.weight_hh_l0, check_stride=False
    )


def test_layers_out_of_copies_and_checkpoints_are_known_by_their_equations() -> None:
    plain = RNN("gru_reset_after", 3, 4)
    for layer in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain)), RNN.from_spec(plain.spec())):
        assert type(to_torch(layer)) is nn.GRU

    @ostinato.cell(init={"b": 2.0})
    def my_own(p: Any, inputs: Any, memory: Any) -> Any:
        return tanh(p.W @ inputs + p.U @ memory + p.b)

    layer = fill(RNN(my_own, 3, 4, dtype=torch.float64, backend="eager"))
    x = inputs(5, 2, 3, torch.float64)
    assert_agree(values(to_torch(layer), x), values(layer, x), torch.float64)


def test_dropout_without_a_place_for_it_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(UserWarning, match="there is one"):
            layer = RNN("lstm", 3, 4, dropout=0.5)
        assert to_torch(layer).dropout == 0.0


# ---------------------------------------------------------------- what cannot be carried over


@pytest.mark.parametrize("name", list(cells()))
def test_to_torch_names_a_cell_it_has_not(name: str) -> None:
    """Whatever the catalogue holds: equal numbers, or an error that says which cells can."""
    layer = build(cells()[name], 4, 4, "eager")
    x = inputs(5, 2, 4, torch.float64)
    try:
        module = to_torch(layer)
    except CellError as refusal:
        assert "torch.nn has no cell with the equations of" in str(refusal)
        assert name in str(refusal)
        assert name.partition("(")[0] not in ("lstm", "projected_lstm", "gru_reset_after", "elman") or "(" in name
    else:
        assert_agree(values(module, x), values(layer, x), torch.float64)


def test_to_torch_says_what_is_near() -> None:
    with pytest.raises(CellError, match="torch.nn.GRU resets after the product, that is 'gru_reset_after'"):
        to_torch(RNN("gru", 3, 4))
    with pytest.raises(CellError, match="torch.nn.LSTM has no peepholes"):
        to_torch(RNN("peephole_lstm", 3, 4))

    @ostinato.cell
    def gru_reset_after(p: Any, x: Any, h: Any) -> Any:
        return sigmoid(p.W @ x + p.U @ h + p.b)

    with pytest.raises(CellError, match="equations of gru_reset_after; it has lstm, "):
        to_torch(RNN(gru_reset_after, 3, 4))  # a name is not enough


OPTIONS: list[dict[str, Any]] = [
    {"bidirectional": True, "merge": "sum"},
    {"bidirectional": True, "merge": None},
    {"dropout": 0.5, "locked": True, "num_layers": 2},
    {"connections": "residual", "num_layers": 2},
    {"connections": "dense", "num_layers": 2},
    {"lookahead": 2},
    {"initial_state": "learned"},
    {"initial_state": "fixed"},
    {"stateful": True},
    {"detach": True},
    {"return_sequences": False},
    {"return_states": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_to_torch_names_an_option_torch_has_not(options: dict[str, Any]) -> None:
    name = next(n for n in options if n not in NAMES)
    with pytest.raises(CellError, match=f"torch.nn has no option {name}, and the layer has {name}={options[name]!r}; "):
        to_torch(ostinato.LSTM(4, 4, **options))


def test_every_option_is_carried_over_refused_or_without_effect() -> None:
    """A new option of the layer is refused until torch.nn is known to have it."""
    refused = {n for options in OPTIONS for n in options} - set(NAMES)
    silent = {"self", "cell", "backend", "init", "sizes", "device", "dtype"}
    assert set(inspect.signature(RNN.__init__).parameters) == refused | set(NAMES) | silent


def test_to_torch_has_one_of_each_for_all_layers() -> None:
    with pytest.raises(CellError, match=r"torch.nn has one hidden_size for all layers, and the layer has \[8, 4\]"):
        to_torch(RNN("lstm", 3, [8, 4]))
    with pytest.raises(CellError, match="torch.nn has one cell for all layers"):
        to_torch(RNN(["gru_reset_after", "elman"], 3, 4))
    assert to_torch(RNN(["lstm", "lstm"], 3, [4, 4], lookahead=[0, 0])).num_layers == 2


def test_our_weights_under_a_parametrization_are_written_as_they_stand() -> None:
    layer = fill(RNN("elman", 3, 4, dtype=torch.float64, backend="eager"))
    parametrizations.weight_norm(layer, "U_l0")
    x = inputs(5, 2, 3, torch.float64)
    with torch.no_grad():
        layer.parametrizations.U_l0.original0.mul_(2.0)  # type: ignore[union-attr,index]
        torch.testing.assert_close(to_torch(layer)(x)[0], layer(x)[0])


@pytest.mark.parametrize("size", [4, 6])
def test_a_projection_to_no_less_is_refused(size: int) -> None:
    with pytest.raises(CellError, match=f"projects to less than hidden_size=4, not to P={size}"):
        to_torch(RNN("projected_lstm", 3, 4, sizes={"P": size}))


def test_from_torch_refuses_what_it_cannot_know() -> None:
    with pytest.raises(CellError, match="from_torch reads LSTM, GRU, RNN, LSTMCell, .* got Linear"):
        from_torch(nn.Linear(3, 4))

    class Mine(nn.LSTM):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)

    with pytest.raises(CellError, match="Mine has a forward of its own"):
        from_torch(Mine(3, 4))
