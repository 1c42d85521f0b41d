"""Layers: torch.nn's shapes and arguments, weights by name, state_dict, spec, copies."""

from __future__ import annotations

import copy
import io
import json
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import ostinato
from laws import CELLS
from measured import build, fill, inputs
from ostinato import RNN, ShapeError, cell, tanh

PAIRS = [(ostinato.LSTM, nn.LSTM), (ostinato.GRU, nn.GRU), (ostinato.Elman, nn.RNN)]
NAMES = ["LSTM", "GRU", "Elman"]


def flat(state: Any) -> tuple[Tensor, ...]:
    """The states as a tuple, one or several."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def shapes(result: Any) -> list[tuple[int, ...]]:
    """The shapes of output and states."""
    output, state = result
    return [tuple(output.shape), *(tuple(s.shape) for s in flat(state))]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=NAMES)
def test_shapes_are_those_of_torch(ours: Any, theirs: Any, layers: int, bidirectional: bool, batch_first: bool) -> None:
    """The same arguments by position give the same shapes, batched and not."""
    arguments = (5, 7, layers)
    settings = {"batch_first": batch_first, "bidirectional": bidirectional, "dropout": 0.1 if layers > 1 else 0.0}
    layer, module = ours(*arguments, **settings), theirs(*arguments, **settings)
    for x in (torch.zeros(4, 6, 5), torch.zeros(4, 5), torch.zeros(1, 1, 5)):
        assert shapes(layer(x)) == shapes(module(x))
        state = module(x)[1]
        assert shapes(layer(x, state)) == shapes(module(x, state))
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(layer, name) == getattr(module, name)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=NAMES)
def test_arguments_by_position_are_those_of_torch(ours: Any, theirs: Any) -> None:
    import inspect

    skipped = {"self", "args", "kwargs"}
    documented = {
        nn.LSTM: "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size device dtype",
        nn.GRU: "input_size hidden_size num_layers bias batch_first dropout bidirectional device dtype",
        nn.RNN: "input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional device dtype",
    }
    parameters = [p for p in inspect.signature(ours).parameters.values() if p.name not in skipped]
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == documented[theirs].split()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == ["backend"]


@pytest.mark.parametrize("pair", [cell.values[0] for cell in CELLS], ids=[c.id for c in CELLS])
def test_every_cell_is_a_layer(pair: Any) -> None:
    """Shapes of outputs and states, whatever the cell."""
    layer = build(pair, 5, 6, "auto", torch.float32, num_layers=2, bidirectional=True)
    output, state = layer(torch.zeros(4, 3, 5))
    assert output.shape == (4, 3, layer.output_size)
    assert [s.shape[:2] for s in flat(state)] == [(4, 3)] * len(pair.states)
    assert isinstance(state, Tensor) == (len(pair.states) == 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own
def test_projection() -> None:
    layer, module = ostinato.LSTM(5, 7, 2, proj_size=3), nn.LSTM(5, 7, 2, proj_size=3)
    assert layer.proj_size == 3
    assert shapes(layer(torch.zeros(4, 2, 5))) == shapes(module(torch.zeros(4, 2, 5)))


# ---- weights


def test_parameters_are_views_under_the_equations_names() -> None:
    """Written in place, a weight changes the layer; its gradient is there too."""
    layer = RNN("gru", 3, 4, 2, bidirectional=True)
    for index in (0, 1, -1):
        for reverse in (False, True):
            weights = layer.cell_parameters(index, reverse)
            assert set(weights) == {f"{a}_{b}" for a in "WUb" for b in "rzn"}
            assert weights["W_r"].shape == (4, 3 if index == 0 else 8)
    assert layer.cell_parameters(-1)["U_z"] is layer.cell_parameters(1)["U_z"]
    x = torch.randn(5, 2, 3)
    before = layer(x)[0]
    with torch.no_grad():
        layer.cell_parameters(0)["b_z"].fill_(50.0)  # z = 1: the state stays 0
        layer.cell_parameters(0, reverse=True)["b_z"].fill_(50.0)
        layer.cell_parameters(1)["b_z"].fill_(50.0)
        layer.cell_parameters(1, reverse=True)["b_z"].fill_(50.0)
    assert before.abs().max() > 1e-3
    assert layer(x)[0].abs().max() < 1e-6
    layer(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.cell_parameters(1).values())
    total = sum(p.numel() for p in layer.parameters())
    assert total == sum(p.numel() for k in (0, 1) for r in (False, True) for p in layer.cell_parameters(k, r).values())


def test_cell_parameters_that_are_not_there() -> None:
    layer = RNN("gru", 3, 4)
    for wrong in (1, -2):
        with pytest.raises(ShapeError, match=rf"no layer {wrong}; the layer has num_layers=1"):
            layer.cell_parameters(wrong)
    with pytest.raises(ShapeError, match="bidirectional=False"):
        layer.cell_parameters(0, reverse=True)


def test_without_bias_there_is_none() -> None:
    layer = RNN("peephole_lstm", 3, 4, bias=False)
    assert {n[0] for n in layer.cell_parameters()} == {"W", "U", "p"}  # peepholes are no biases
    assert set(RNN("elman", 3, 4, bias=False).cell_parameters()) == {"W", "U"}


def test_weights_start_as_the_cell_says_and_can_be_drawn_again() -> None:
    torch.manual_seed(0)
    first = RNN("lstm", 3, 4)
    torch.manual_seed(0)
    second = RNN("lstm", 3, 4)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    first.reset_parameters()
    assert not torch.equal(first.cell_parameters()["W_i"], second.cell_parameters()["W_i"])
    assert torch.equal(first.cell_parameters()["b_f"], torch.ones(4))
    assert not torch.equal(first.cell_parameters()["U_i"], first.cell_parameters()["U_f"])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=NAMES)
def test_a_state_dict_of_torch_loads_where_it_stands(ours: Any, theirs: Any) -> None:
    """Inside a larger model, and our own state_dict as well; the dictionary given stays as it was."""
    module = nn.ModuleDict({"rnn": theirs(3, 4, 2, bidirectional=True), "head": nn.Linear(8, 2)})
    model = nn.ModuleDict({"rnn": ours(3, 4, 2, bidirectional=True), "head": nn.Linear(8, 2)})
    given = module.state_dict()
    keys = list(given)
    assert str(model.load_state_dict(given)) == "<All keys matched successfully>"
    assert list(given) == keys
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(model["rnn"](x)[0], module["rnn"](x)[0], rtol=1e-5, atol=1e-6)
    again = nn.ModuleDict({"rnn": ours(3, 4, 2, bidirectional=True), "head": nn.Linear(8, 2)})
    again.load_state_dict(model.state_dict())
    assert torch.equal(again["rnn"](x)[0], model["rnn"](x)[0])


def test_a_state_dict_of_other_sizes_is_refused() -> None:
    layer = ostinato.LSTM(3, 4)
    with pytest.raises((ShapeError, RuntimeError), match=r"weight_ih_l0 has 12 rows|hidden_size"):
        layer.load_state_dict(nn.GRU(3, 4).state_dict())
    with pytest.raises((ShapeError, RuntimeError), match=r"hidden_size=4"):
        layer.load_state_dict(nn.LSTM(3, 5).state_dict())
    with pytest.raises(RuntimeError, match=r"[Mm]issing key|size mismatch|[Uu]nexpected key"):
        layer.load_state_dict(nn.LSTM(2, 4).state_dict())
    with pytest.raises(RuntimeError, match=r"[Mm]issing key"):
        layer.load_state_dict(nn.LSTM(3, 4, bias=False).state_dict())
    with pytest.raises(RuntimeError, match=r"[Uu]nexpected key"):
        layer.load_state_dict(nn.LSTM(3, 4, num_layers=2).state_dict())


def test_a_state_dict_saved_to_a_file_loads() -> None:
    layer = build(ostinato.cells.gru, 3, 4, "auto", torch.float32)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = RNN("gru", 3, 4)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 2, 3)
    assert torch.equal(other(x)[0], layer(x)[0])


# ---- PackedSequence


def test_packed_sequences_that_were_sorted_by_hand() -> None:
    """What pack_sequence gives has no order of its own; the states come in the same order as the sequences."""
    layer = fill(RNN("lstm", 3, 4, bidirectional=True))
    parts = [torch.randn(n, 3) for n in (5, 3, 3, 1)]
    output, (h, c) = layer(pack_sequence(parts))
    assert isinstance(output, PackedSequence) and output.sorted_indices is None
    padded, lengths = pad_packed_sequence(output)
    assert lengths.tolist() == [5, 3, 3, 1]
    for b, part in enumerate(parts):
        alone, (h_alone, c_alone) = layer(part)
        torch.testing.assert_close(padded[: len(part), b], alone)
        torch.testing.assert_close(h[:, b], h_alone)
        torch.testing.assert_close(c[:, b], c_alone)


def test_packed_sequences_keep_the_callers_order() -> None:
    layer = fill(RNN("gru", 3, 4, batch_first=True))
    x, lengths = torch.randn(4, 6, 3), [2, 6, 3, 3]
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    state = torch.randn(1, 4, 4)
    output, final = layer(packed, state)
    meant, last = layer(x, state, lengths)
    padded, found = pad_packed_sequence(output, batch_first=True)
    assert found.tolist() == lengths
    torch.testing.assert_close(padded, meant)
    torch.testing.assert_close(final, last)


def test_gradients_flow_through_a_packed_sequence() -> None:
    layer = fill(RNN("gru", 3, 4, dtype=torch.float64))
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    packed = pack_padded_sequence(x, torch.tensor([3, 5]), enforce_sorted=False)
    (gradient,) = torch.autograd.grad(layer(packed)[0].data.square().sum(), x)
    (meant,) = torch.autograd.grad(layer(x, lengths=[3, 5])[0].square().sum(), x)
    torch.testing.assert_close(gradient, meant)


def test_lengths_with_a_packed_sequence_are_refused() -> None:
    with pytest.raises(ShapeError, match="which has its own; leave them out"):
        RNN("gru", 3, 4)(pack_sequence([torch.zeros(2, 3)]), lengths=[2])


# ---- spec, copies, devices


@pytest.mark.parametrize("pair", [cell.values[0] for cell in CELLS], ids=[c.id for c in CELLS])
def test_spec_is_json_and_builds_the_layer_again(pair: Any) -> None:
    layer = build(pair, 3, 4, "auto", torch.float32, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
    layer.eval()
    spec = json.loads(json.dumps(layer.spec(), allow_nan=False))
    again = RNN.from_spec(spec)
    again.load_state_dict(layer.state_dict())
    again.eval()
    x = torch.randn(2, 5, 3)
    assert torch.equal(again(x)[0], layer(x)[0])
    assert json.loads(json.dumps(again.spec())) == spec
    assert repr(again) == repr(layer)


def test_spec_runs_no_ones_code() -> None:
    """A cell of one's own travels as its Program: its function is not needed, nor called."""
    calls = []

    @cell
    def own(p, x, h):
        calls.append(1)
        return tanh(p.W @ x + p.U @ h)

    layer = RNN(own, 3, 4)
    spec = json.loads(json.dumps(layer.spec()))
    read = len(calls)
    again = RNN.from_spec(spec)
    again.load_state_dict(layer.state_dict())
    assert len(calls) == read
    assert torch.equal(again(torch.ones(2, 1, 3))[0], layer(torch.ones(2, 1, 3))[0])


def test_a_damaged_spec_is_refused() -> None:
    spec = RNN("gru", 3, 4).spec()
    with pytest.raises(ostinato.ProgramError):
        RNN.from_spec({**spec, "program": {**spec["program"], "format": 99}})
    with pytest.raises(ostinato.ProgramError):
        RNN.from_spec({**spec, "program": "gru"})
    with pytest.raises(ostinato.ProgramError, match="has 'foo', which this version does not know"):
        RNN.from_spec({**spec, "foo": 1})
    for name in ("program", "input_size", "hidden_size"):
        with pytest.raises(ostinato.ProgramError, match=f"has no {name!r}"):
            RNN.from_spec({own: value for own, value in spec.items() if own != name})
    with pytest.raises(ostinato.ProgramError, match="is list"):
        RNN.from_spec([spec])  # type: ignore[arg-type]


VENDORS: list[tuple[Any, dict[str, Any], str]] = [
    (ostinato.LSTM, {"num_layers": 2, "dropout": 0.1}, "LSTM(3, 4, num_layers=2, dropout=0.1)"),
    (ostinato.LSTM, {"proj_size": 2}, "LSTM(3, 4, proj_size=2)"),
    (ostinato.GRU, {"bidirectional": True, "merge": "sum"}, "GRU(3, 4, bidirectional=True, merge=sum)"),
    (ostinato.Elman, {"bias": False}, "Elman(3, 4, bias=False)"),
    (ostinato.Elman, {"nonlinearity": "relu"}, "Elman(3, 4, nonlinearity=relu)"),
]


@pytest.mark.parametrize(("kind", "arguments", "text"), VENDORS, ids=[v[2] for v in VENDORS])
def test_layers_with_torchs_arguments_come_back_as_such(kind: Any, arguments: dict[str, Any], text: str) -> None:
    layer = kind(3, 4, backend="eager", **arguments).eval()
    spec = json.loads(json.dumps(layer.spec()))
    again = kind.from_spec({**spec})
    again.load_state_dict(layer.state_dict())
    again.eval()
    assert type(again) is kind and again.spec() == layer.spec()
    assert repr(again).replace(", backend=eager", "") == repr(layer).replace(", backend=eager", "") == text
    assert all(getattr(again, name) == value for name, value in arguments.items())
    assert torch.equal(again(torch.ones(2, 1, 3))[0], layer(torch.ones(2, 1, 3))[0])
    for other in {ostinato.LSTM, ostinato.GRU, ostinato.Elman} - {kind}:
        with pytest.raises(ostinato.ProgramError, match=f"is no {other.__name__}; use RNN.from_spec"):
            other.from_spec(spec)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "after a run"])
def test_copies(copier: Any, ran: bool) -> None:
    """A copy gives the same numbers, holds weights of its own, and trains."""

    @cell
    def local(p, x, h):
        return tanh(p.W @ x + p.U @ h + p.b)

    for layer in (RNN(local, 3, 4), ostinato.LSTM(3, 4, 2), ostinato.GRU(3, 4), ostinato.Elman(3, 4)):
        x = torch.randn(5, 2, 3)
        if ran:
            layer(x)[0].sum().backward()
        other = copier(layer)
        assert type(other) is type(layer) and repr(other) == repr(layer)
        assert torch.equal(other(x)[0], layer(x)[0])
        with torch.no_grad():
            next(other.parameters()).add_(1.0)
        assert not torch.equal(other(x)[0], layer(x)[0])
        other(x)[0].sum().backward()


def test_it_trains_in_float64_and_moves_between_dtypes() -> None:
    layer = RNN("gru", 3, 4)
    x = torch.randn(5, 2, 3)
    single = layer(x)[0]
    double = layer.double()(x.double())[0]
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.float()(x)[0], single)


def test_weights_are_used_as_they_are_now() -> None:
    """No copy of a weight is kept from call to call: optimizer steps, in-place changes, swapped data."""
    layer = RNN("elman", 2, 3)
    x = torch.ones(1, 1, 2)
    seen = [layer(x)[0]]
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    layer(x)[0].sum().backward()
    optimizer.step()
    seen.append(layer(x)[0])
    layer.get_parameter("W_l0").data = torch.ones(3, 2)
    seen.append(layer(x)[0])
    with torch.no_grad():
        layer.get_parameter("b_l0").copy_(torch.ones(3))
    seen.append(layer(x)[0])
    for k, a in enumerate(seen):
        assert all(not torch.equal(a, b) for b in seen[k + 1 :])
    torch.testing.assert_close(seen[-1][0, 0], torch.tanh(torch.full((3,), 3.0)))


def test_dropout_acts_between_layers_in_training_alone() -> None:
    layer = fill(RNN("gru", 3, 8, 2, dropout=0.5))
    x = inputs(5, 4, 3, torch.float32)
    layer.eval()
    calm = layer(x)[0]
    assert torch.equal(calm, layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])
    with pytest.warns(UserWarning, match="dropout is 0.5, but acts between layers, and there is one"):
        single = fill(RNN("gru", 3, 8, 1, dropout=0.5))
    assert torch.equal(single(x)[0], single(x)[0])


def test_repr_says_how_it_was_made() -> None:
    assert repr(RNN("gru", 3, 4)) == "RNN(gru, 3, 4)"
    assert "num_layers=2" in repr(RNN("gru", 3, 4, 2)) and "bidirectional=True" in repr(
        RNN("gru", 3, 4, bidirectional=True)
    )


def test_parametrizations_of_weights_work() -> None:
    """torch.nn.utils.parametrize replaces a weight by a function of another."""
    from torch.nn.utils.parametrizations import weight_norm

    layer = fill(RNN("elman", 3, 4))
    x = inputs(3, 2, 3, torch.float32)
    before = layer(x)[0]
    weight_norm(layer, "U_l0")
    torch.testing.assert_close(layer(x)[0], before)
    layer(x)[0].sum().backward()
    assert layer.parametrizations.U_l0.original1.grad is not None
