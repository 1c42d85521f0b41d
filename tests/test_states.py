"""States: learned, kept, cut off from their history, of layers that differ."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import BACKENDS, CELLS
from measured import build, fill, flat, inputs, numbers, sizes_for
from ostinato import RNN, ShapeError, detach_state
from ostinato.ir import activations
from tolerances import assert_agree
from wired import same, stack

# ---- how they are held


def test_states_of_layers_that_differ_are_held_layer_by_layer() -> None:
    """One entry for each layer, as that layer alone would give it; equal layers share one tensor a state."""
    layer = stack([4, 6, 5], bidirectional=True)
    state = layer(inputs(4, 3, 3, torch.float64))[1]
    assert [tuple(s.shape for s in flat(own)) for own in state] == [((2, 3, 4),), ((2, 3, 6),) * 2, ((2, 3, 5),)]
    assert isinstance(state[0], Tensor) and isinstance(state[1], tuple)
    widths = fill(RNN("lstm", 3, [4, 5], backend="eager", dtype=torch.float64))
    assert [[s.shape for s in own] for own in widths(inputs(4, 3, 3, torch.float64))[1]] == [
        [(1, 3, 4)] * 2,
        [(1, 3, 5)] * 2,
    ]
    equal = RNN("lstm", 3, [4, 4], backend="eager")(torch.zeros(4, 3, 3))[1]
    assert [s.shape for s in equal] == [(2, 3, 4)] * 2
    alone = layer(inputs(4, 3, 3, torch.float64)[:, 0])[1]  # without a batch
    assert [tuple(s.shape for s in flat(own)) for own in alone] == [((2, 4),), ((2, 6),) * 2, ((2, 5),)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("connections", ["plain", "dense"])
def test_they_carry_over_a_cut(connections: Any, backend: str) -> None:
    """Held layer by layer, given back as they came or as lists."""
    layer = stack([4, 6, 5], backend, connections=connections)
    x = inputs(6, 3, 3, torch.float64)
    whole, ended = layer(x)
    first, middle = layer(x[:2])
    second, final = layer(x[2:], [list(flat(own)) for own in middle])
    same(torch.cat([first, second]), whole)
    same(final, ended)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.zeros(1),
            r"states of different names or sizes, got Tensor; pass a tuple with the states of each of the 3",
        ),
        ((torch.zeros(1, 3, 4),), r"different names or sizes, got 1; pass a tuple"),
        ((torch.zeros(1, 3, 4),) * 3, r"layer 1: the cell has 2 states, got 1; pass state=\(h, c\)"),
        (
            (torch.zeros(1, 2, 4), (torch.zeros(1, 3, 6),) * 2, torch.zeros(1, 3, 5)),
            r"layer 0: the state h has shape \[1, 2, 4\]; it must be \[1, 3, 4\]",
        ),
    ],
)
def test_states_that_do_not_fit_are_refused_layer_by_layer(given: Any, message: str) -> None:
    layer = stack([4, 6, 5]).float()
    with pytest.raises(ShapeError, match=message):
        layer(torch.zeros(2, 3, 3), given)


# ---- learned


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_learned_state_is_the_state_given(cell: Any, backend: str) -> None:
    """A parameter for each activation, layer and direction, the same for every sequence; zeros to begin with."""
    layer = build(cell, 3, 4, backend, num_layers=2, bidirectional=True, initial_state="learned").eval()
    sizes = sizes_for(cell, 4)
    other = build(cell, 3, 4, backend, num_layers=2, bidirectional=True, sizes=sizes).eval()
    suffixes = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]
    own = activations(layer.programs[0])
    learned = [[layer.get_parameter(f"{name}0{suffix}") for suffix in suffixes] for name in own]
    assert len(list(layer.parameters())) == len(list(other.parameters())) + 4 * len(own)
    x, lengths = inputs(4, 3, 3, torch.float64), [4, 0, 2]
    made = {n: torch.stack(c).unsqueeze(1).expand(4, 3, -1) for n, c in zip(own, learned, strict=True)}
    widths = zip(cell.states, layer._stack.places[0].step.state_sizes, strict=True)
    given = tuple(made[n] if n in own else x.new_zeros(4, 3, size) for n, size in widths)
    results = []
    for ran, state in ((layer, None), (other, given[0] if len(given) == 1 else given)):
        output, final = ran(x, state, lengths)
        found = {"output": output, **{f"state {k}": s for k, s in enumerate(flat(final))}}
        loss = sum((v * numbers(n, *v.shape)).sum() for n, v in found.items())
        gradients = torch.autograd.grad(loss, [p for column in learned for p in column])
        results.append({**found, **{f"grad {k}": g for k, g in enumerate(gradients)}})
    assert_agree(*results, torch.float64)
    layer.reset_parameters()
    assert not any(p.any() for column in learned for p in column)
    same(layer(x, lengths=lengths)[0], layer(x, [torch.zeros_like(s) for s in given], lengths)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["vectors", "of each place"])
def test_an_initial_state_given_to_the_layer_is_that_given_in_the_call(form: str, backend: str) -> None:
    """Kept in the state_dict, not trained, moved with the layer; a state given in the call goes before it."""
    shape = (4,) if form == "vectors" else (4, 1, 4)
    given = (numbers("h", *shape), numbers("c", *shape))
    layer = build(ostinato.cells.lstm, 3, 4, backend, num_layers=2, bidirectional=True, initial_state=given).eval()
    plain = build(ostinato.cells.lstm, 3, 4, backend, num_layers=2, bidirectional=True).eval()
    plain.load_state_dict({name: p for name, p in layer.state_dict().items() if name in plain.state_dict()})
    x = inputs(5, 3, 3, torch.float64)
    whole = tuple(s.expand(4, 3, 4).contiguous() for s in given)
    same(layer(x)[0], plain(x, whole)[0])
    zeros = tuple(torch.zeros_like(s) for s in whole)
    same(layer(x, zeros)[0], plain(x)[0])
    assert {name for name, _ in layer.named_parameters()} == {name for name, _ in plain.named_parameters()}
    layer.reset_parameters()
    for k, suffix in enumerate(("_l0", "_l0_reverse", "_l1", "_l1_reverse")):
        for name, value in zip("hc", whole, strict=True):
            same(getattr(layer, f"{name}0{suffix}"), value[k, 0])
    again = RNN.from_spec(json.loads(json.dumps(layer.spec()))).double().eval()
    assert again.initial_state == "fixed" and not again.h0_l0.any()
    again.load_state_dict(layer.state_dict())
    same(again(x)[0], layer(x)[0])


def test_initial_states_of_layers_that_differ_are_given_layer_by_layer() -> None:
    h, c, top = numbers("h", 4), numbers("c", 4), numbers("top", 5)
    layer = RNN(["lstm", "gru"], 3, [4, 5], initial_state=((h, c), top), dtype=torch.float64, backend="eager")
    x = inputs(5, 2, 3, torch.float64)
    state = tuple(s.expand(1, 2, -1) for s in (h, c)), top.expand(1, 2, -1)
    same(layer(x)[0], layer(x, state)[0])
    assert (layer(x)[0] - layer(x, ((state[0][0] * 0, state[0][1]), state[1]))[0]).abs().max() > 1e-6


def test_a_state_given_goes_before_a_learned_one() -> None:
    layer = fill(RNN("gru", 3, 4, initial_state="learned", backend="eager"))
    x, h = inputs(4, 2, 3, torch.float32), numbers("h", 1, 2, 4, dtype=torch.float32)
    layer(x, h)[0].sum().backward()
    assert layer.get_parameter("h0_l0").grad is None
    assert not torch.equal(layer(x, h)[0], layer(x)[0])


# ---- without their history


def test_states_are_detached_where_it_is_asked_for() -> None:
    layer = build(ostinato.cells.lstm, 3, 4, "eager")
    x = inputs(3, 2, 3, torch.float64)
    given = tuple(numbers(n, 1, 2, 4).requires_grad_() for n in "hc")
    always = build(ostinato.cells.lstm, 3, 4, "eager", detach=True)
    for ran, options, flows in ((layer, {}, True), (layer, {"detach": True}, False), (always, {}, False)):
        output = ran(x, given, **options)[0]
        gradients = torch.autograd.grad(output.sum(), given, allow_unused=True)
        assert all((g is not None) == flows for g in gradients)
        same(output, layer(x, given)[0])
    assert torch.autograd.grad(always(x, given, detach=False)[0].sum(), given)[0].any()


def test_detach_state_keeps_the_shape_of_what_it_is_given() -> None:
    h = torch.ones(1, requires_grad=True) * 2
    assert detach_state(None) is None
    found = detach_state((h, [h, (h,)]))
    assert isinstance(found, tuple) and isinstance(found[1], list) and isinstance(found[1][1], tuple)
    assert not any(s.requires_grad for s in (found[0], found[1][0], found[1][1][0])) and h.requires_grad


# ---- kept from call to call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_stateful_layer_goes_on_where_it_stopped(cell: Any, backend: str) -> None:
    layer = build(cell, 3, 4, backend, num_layers=2, stateful=True).eval()
    plain = build(cell, 3, 4, backend, num_layers=2).eval()
    x = inputs(6, 2, 3, torch.float64)
    for _ in range(2):
        pieces = [layer(x[:2])[0], layer(x[2:5])[0], layer(x[5:])[0]]
        same(torch.cat(pieces), plain(x)[0])
        layer.reset_state()
    layer(x[:2])
    given = flat(plain(x[:4])[1])
    same(layer(x[4:], given[0] if len(given) == 1 else given)[0], plain(x)[0][4:])  # a state given goes before
    same(layer(x[:3], lengths=[0, 3])[1], plain(x[:3], plain(x)[1], [0, 3])[1])


def test_a_kept_state_has_no_history() -> None:
    """Each piece can be trained on by itself."""
    layer = fill(RNN("lstm", 3, 4, stateful=True, backend="eager"))
    for _ in range(2):
        output, (_, c) = layer(inputs(3, 2, 3, torch.float32))
        assert output.requires_grad and c.requires_grad
        output.sum().backward()


def test_other_sequences_need_a_reset() -> None:
    layer = RNN(["gru", "lstm"], 3, 4, stateful=True, backend="eager")
    layer(torch.zeros(2, 4, 3))
    with pytest.raises(
        ShapeError, match=r"keeps the states of 4 sequences \(stateful=True\), but the input has 3; call"
    ):
        layer(torch.zeros(2, 3, 3))
    layer.reset_state()
    layer(torch.zeros(2, 3, 3))
    layer(torch.zeros(2, 3, 3), (torch.zeros(1, 3, 4), (torch.zeros(1, 3, 4),) * 2))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["deepcopy", "pickle"])
def test_kept_states_move_and_are_copied_but_not_stored(copier: Any) -> None:
    layer = fill(RNN("lstm", 3, 4, stateful=True, backend="eager"))
    x = inputs(6, 2, 3, torch.float64)
    layer(x[:3].float())
    layer.double()
    other = copier(layer)
    assert not any("kept" in name or name.startswith(("h", "c")) for name in layer.state_dict())
    found = layer(x[3:])[0]
    same(other(x[3:])[0], found)
    fresh = RNN.from_spec(layer.spec()).double()
    fresh.load_state_dict(layer.state_dict())
    assert not torch.allclose(fresh(x[3:])[0], found)  # begins with zeros
    layer(x[:1])
    other.load_state_dict(layer.state_dict())
    layer.to(torch.float32)
    with pytest.raises(ShapeError, match=r"is torch.float64, but the weights are torch.float32"):
        layer(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_states_are_kept_in_a_captured_graph_too() -> None:
    torch._dynamo.reset()
    layer = fill(RNN("gru", 3, 4, stateful=True, backend="eager"))
    x = inputs(6, 2, 3, torch.float32)
    whole = torch.cat([layer(x[:3])[0], layer(x[3:])[0]])
    layer.reset_state()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    same(torch.cat([compiled(x[:3])[0], compiled(x[3:])[0]]), whole)
    torch._dynamo.reset()


# ---- what a layer says of itself


def test_spec_holds_every_option() -> None:
    for arguments in (
        {"hidden_size": 4, "num_layers": 3, "connections": "residual", "stateful": True, "detach": True},
        {"hidden_size": [4, 5, 6], "bidirectional": True, "merge": None, "lookahead": [0, 1, 2]},
        {"hidden_size": [4, 5, 6], "initial_state": "learned", "return_sequences": False, "return_states": True},
        {"hidden_size": [4, 5, 6], "init": {"U*": "orthogonal(0.5)"}, "dropout": 0.5, "locked": True},
        {"hidden_size": [4, 5, 6], "connections": "dense"},
    ):
        layer = fill(RNN(["gru", "lstm", "elman"], 3, backend="eager", **arguments)).eval()
        spec = json.loads(json.dumps(layer.spec(), allow_nan=False))
        again = RNN.from_spec(spec)
        again.load_state_dict(layer.state_dict())
        again.eval()
        assert json.loads(json.dumps(again.spec())) == spec and repr(again) == repr(layer)
        for name, value in arguments.items():
            own = getattr(again, "hidden_sizes" if name == "hidden_size" else name)
            meant = [value] * 3 if name == "hidden_size" and isinstance(value, int) else value
            assert (list(own) if isinstance(own, tuple) else own) == meant, name
        x = inputs(4, 2, 3, torch.float32)
        same(again(x)[0], layer(x)[0])
    assert "RNN([gru, lstm, elman], 3, [4, 5, 6]" in repr(layer) and "connections=dense" in repr(layer)


def test_a_spec_of_an_earlier_version_is_read() -> None:
    """One Program and no options."""
    spec = RNN("gru", 3, 4, 2).spec()
    old = {k: spec[k] for k in ("program", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "sizes")}
    assert RNN.from_spec(old).spec() == spec
    with pytest.raises(ostinato.ProgramError, match="has no 'program'"):
        RNN.from_spec({"input_size": 3})


def test_init_is_drawn_by_the_layers_rules() -> None:
    layer = RNN(["gru", "lstm"], 3, [4, 4], init={"U_*": "identity(0.5)", "b_f": 3.0})
    for k in (0, 1):
        for name, value in layer.cell_parameters(k).items():
            if name.startswith("U_"):
                assert torch.equal(value, 0.5 * torch.eye(4))
    assert torch.equal(layer.cell_parameters(1)["b_f"], torch.full((4,), 3.0))
    with pytest.raises(ostinato.CellError, match=r"init has 'V_\*'"):
        RNN("gru", 3, 4, init={"V_*": 0.0})
    generator = torch.Generator().manual_seed(0)
    layer.reset_parameters(generator)
    drawn = [p.clone() for p in layer.parameters()]
    layer.reset_parameters(generator.manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(drawn, layer.parameters(), strict=True))


def test_states_kept_in_inference_mode_are_gone_on_from_in_training() -> None:
    for cell in ("gru", "lstm"):
        found, meant = (fill(RNN(cell, 3, 4, stateful=True, backend="eager")) for _ in range(2))
        x = inputs(6, 2, 3, torch.float32)
        with torch.inference_mode():
            found(x[:3])
        meant(x[:3])
        for layer in (found, meant):
            layer(x[3:])[0].square().sum().backward()
        for p, q in zip(found.parameters(), meant.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad)
