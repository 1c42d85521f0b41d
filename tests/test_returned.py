"""What a layer returns: all outputs or the last, every state or the final ones, in every layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import ostinato
from laws import BACKENDS, CELLS, THOROUGH, in_turn
from measured import build, fill, flat, inputs, numbers, ragged, states_for
from ostinato import RNN, ShapeError, cell, emit
from ostinato.nn.layer import Layer
from tolerances import assert_agree
from wired import outputs, stack

pytestmark = pytest.mark.usefixtures("quickly_compiled")  # kernels that return more are others than those of the laws


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_last_outputs_alone(cell: Any, backend: str) -> None:
    """Each direction's output where it ends: 0 for a sequence without steps. Gradients as through the whole stack."""
    layer = build(cell, 5, 7, backend, num_layers=2, bidirectional=True).eval()
    state = states_for(layer, 5, torch.float64)
    given = state[0] if len(state) == 1 else state
    for steps, lengths in ((6, ragged(6, 5)), (6, None), (0, None), (0, [0] * 5)):
        x = inputs(steps, 5, 5, torch.float64).requires_grad_()
        whole, ended = layer(x, given, lengths)
        width = whole.shape[-1] // 2
        ends = lengths or [steps] * 5
        rows = [
            torch.cat([whole[n - 1, b, :width], whole[0, b, width:]]) if n else whole.new_zeros(2 * width)
            for b, n in enumerate(ends)
        ]
        last, final, *_ = layer(x, given, lengths, return_sequences=False)
        found: dict[str, Any] = {"output": last}
        meant: dict[str, Any] = {"output": torch.stack(rows)}
        found.update({f"state {k}": s for k, s in enumerate(flat(final))})
        meant.update({f"state {k}": s for k, s in enumerate(flat(ended))})
        if steps:
            sources = [x, *layer.parameters()]
            for results in (found, meant):
                loss = sum((v * numbers(n, *v.shape)).sum() for n, v in results.items())
                gradients = torch.autograd.grad(loss, sources, allow_unused=True)
                results.update({f"grad {k}": g for k, g in enumerate(gradients)})
        assert_agree(found, meant, torch.float64)


@pytest.mark.parametrize("cell", CELLS)
def test_the_stack_of_outputs_is_not_built_where_the_last_is_wanted(cell: Any, monkeypatch: Any) -> None:
    """The step that runs puts out nothing; below the last layer it must, since that is read."""
    layer = build(cell, 3, 4, "eager", num_layers=2, return_sequences=False)
    asked: list[tuple[bool, ...]] = []
    ready = Layer.ready
    monkeypatch.setattr(Layer, "ready", lambda self, *wanted: (asked.append(wanted), ready(self, *wanted))[1])
    layer(inputs(3, 2, 3, torch.float64))
    assert asked == [(True, True, False), (True, False, False)]
    top = layer._stack.places[-1].ready(True, False, False)
    assert top.variant.step.program.output == -1 and top.variant.step.output_size == 0
    assert layer._stack.places[0].step.output_size > 0


@pytest.mark.parametrize("connections", ["plain", "residual", "dense"])
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "mean", None, "one direction"])
def test_the_last_outputs_of_every_wiring(merge: Any, connections: Any) -> None:
    two = merge != "one direction"
    arguments = {"bidirectional": True, "merge": merge} if two else {}
    layer = stack(4, connections=connections, **arguments)
    x, lengths = inputs(5, 3, 3, torch.float64), [3, 5, 1]
    if two and connections == "residual":
        with pytest.raises(ShapeError, match=r"connections='residual' adds has no step of its own; use connections="):
            layer(x, lengths=lengths, return_sequences=False)
        with pytest.raises(ShapeError, match="take what you need of return_sequences=True"):
            stack(4, connections=connections, return_sequences=False, **arguments)
        return
    found = layer(x, lengths=lengths, return_sequences=False)[0]
    whole, _, states = layer(x, lengths=lengths, return_states=True)
    if not two:
        meant: Any = torch.stack([whole[n - 1, b] for b, n in enumerate(lengths)])
    else:  # the directions before they are merged are the states of the cell, an Elman network
        forward, backward = states[-1]["h"], states[-1]["h_reverse"]
        ends = [torch.stack([forward[n - 1, b] for b, n in enumerate(lengths)]), backward[0]]
        both = torch.stack(ends)
        ways = {"concat": torch.cat(ends, -1), "sum": both.sum(0), "mul": both.prod(0), "mean": both.mean(0)}
        meant = tuple(ends) if merge is None else ways[merge]
    assert_agree(outputs(found), outputs(meant), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_all_states_at_every_step(cell: Any, backend: str) -> None:
    """Of every layer and direction, the memory cell included: those that a run up to that step ends with."""
    layer = build(cell, 3, 4, backend, num_layers=2).eval()
    x, lengths = inputs(5, 3, 3, torch.float64), [5, 0, 3]
    plain = layer(x, lengths=lengths)
    output, state, states = layer(x, lengths=lengths, return_states=True)
    assert_agree({"output": output}, {"output": plain[0]}, torch.float64)
    assert [list(own) for own in states] == [list(cell.states)] * 2
    for t in range(5):
        upto = flat(layer(x[: t + 1], lengths=[min(n, t + 1) for n in lengths])[1])
        for k, own in enumerate(states):
            for name, whole in zip(cell.states, upto, strict=True):
                rows = [whole[k, b] if t < n else torch.zeros_like(whole[k, b]) for b, n in enumerate(lengths)]
                meant = torch.stack(rows)
                assert_agree({name: own[name][t]}, {name: meant}, torch.float64)
    for found, meant in zip(flat(state), flat(plain[1]), strict=True):
        assert_agree({"state": found}, {"state": meant}, torch.float64)
    last, _, same = layer(x, lengths=lengths, return_states=True, return_sequences=False)
    assert_agree({"output": last}, {"output": layer(x, lengths=lengths, return_sequences=False)[0]}, torch.float64)
    assert_agree(same[1], states[1], torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_all_states(backend: str) -> None:
    """A loss on the memory cell of a layer below, at every step, reaches the weights."""
    layer = build(ostinato.cells.lstm, 3, 4, backend, num_layers=2)
    x = inputs(4, 2, 3, torch.float64).requires_grad_()
    states = layer(x, return_states=True)[2]
    weight = numbers("weight", 4, 2, 4)
    sources = [x, *layer.cell_parameters(0).values()]
    found = torch.autograd.grad((states[0]["c"] * weight).sum(), sources)
    loss = sum((layer(x[: t + 1])[1][1][0] * weight[t]).sum() for t in range(4))
    meant = torch.autograd.grad(loss, sources)
    assert_agree(
        {f"grad {k}": g for k, g in enumerate(found)}, {f"grad {k}": g for k, g in enumerate(meant)}, torch.float64
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cell_without_states_is_a_layer_too(backend: str) -> None:
    """Nothing is carried, learned, kept or given; its last output is that of the last step."""

    @cell
    def linear(p: Any, x: Any) -> Any:
        return emit(p.W @ x + p.b)

    layer = fill(RNN(linear, 3, 4, 2, backend=backend, dtype=torch.float64, initial_state="learned", stateful=True))
    first, second = (layer.cell_parameters(k) for k in (0, 1))
    x, lengths = inputs(4, 3, 3, torch.float64), [4, 0, 2]
    meant = (x @ first["W"].T + first["b"]) @ second["W"].T + second["b"]
    output, state, states = layer(x, return_states=True)
    assert state == () and states == [{}, {}]
    assert_agree({"output": output}, {"output": meant}, torch.float64)
    assert_agree({"output": layer(x, ())[0]}, {"output": meant}, torch.float64)
    assert_agree({"output": layer.step(x[1])[0]}, {"output": meant[1]}, torch.float64)
    last = layer(x, lengths=lengths, return_sequences=False)
    expected = torch.stack([meant[3, 0], torch.zeros(4, dtype=torch.float64), meant[1, 2]])
    assert_agree({"output": last[0]}, {"output": expected}, torch.float64)
    assert last[1] == ()


@pytest.mark.parametrize("merge", ["concat", None])
def test_what_comes_back_is_laid_out_as_what_went_in(merge: Any) -> None:
    """batch_first, one sequence without a batch, packed: the same numbers."""
    arguments: dict[str, Any] = {"bidirectional": True, "merge": merge, "backend": "eager", "dtype": torch.float64}
    layer = fill(RNN("lstm", 3, 4, 2, **arguments))
    first = fill(RNN("lstm", 3, 4, 2, batch_first=True, **arguments))
    x, lengths = inputs(5, 3, 3, torch.float64), [2, 5, 4]
    output, state, states = layer(x, lengths=lengths, return_states=True)
    names = ["h", "c", "h_reverse", "c_reverse"]
    assert [sorted(own) for own in states] == [sorted(names)] * 2
    last = layer(x, lengths=lengths, return_sequences=False)[0]
    turned = first(x.transpose(0, 1), lengths=lengths, return_states=True)
    for a, b in zip(flat(output), flat(turned[0]), strict=True):
        assert torch.equal(a, b.transpose(0, 1))
    assert all(torch.equal(states[k][n], turned[2][k][n].transpose(0, 1)) for k in (0, 1) for n in names)
    one = layer(x[:, 1], return_states=True)
    for a, b in zip(flat(output), flat(one[0]), strict=True):
        torch.testing.assert_close(a[:, 1], b)
    for k, own in enumerate(one[2]):
        assert all(own[n].shape == (5, 4) for n in names)
        torch.testing.assert_close(own["c_reverse"], states[k]["c_reverse"][:, 1])
    assert all(s.shape == (4, 4) for s in one[1])
    for a, b in zip(flat(last), flat(layer(x[:4, 2], return_sequences=False)[0]), strict=True):
        torch.testing.assert_close(a[2], b)
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    again, final, seen = layer(packed, return_states=True)
    for a, b in zip(flat(output), (again,) if isinstance(again, PackedSequence) else again, strict=True):
        torch.testing.assert_close(a, pad_packed_sequence(b)[0])
    assert all(torch.equal(pad_packed_sequence(seen[k][n])[0], states[k][n]) for k in (0, 1) for n in names)
    assert all(torch.equal(a, b) for a, b in zip(state, final, strict=True))
    for a, b in zip(flat(last), flat(layer(packed, return_sequences=False)[0]), strict=True):
        assert torch.equal(a, b)


# ---- in the house of torch


OPTIONS = [
    {"return_states": True},
    {"return_sequences": False},
    {"bidirectional": True, "merge": "mean", "connections": "dense"},
    {"initial_state": "learned", "lookahead": 1, "connections": "residual"},
]


@pytest.mark.parametrize(("options", "backend"), in_turn([pytest.param(o, id=str(o)) for o in OPTIONS], BACKENDS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_options_compile_into_one_graph(options: Any, backend: str) -> None:
    torch._dynamo.reset()
    layer = fill(RNN("lstm", 4, 4, 2, backend=backend, dtype=torch.float64, **options))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    x, lengths = inputs(4, 3, 4, torch.float64), torch.tensor([4, 1, 2])
    calls = [{}, {"lengths": lengths}, {"return_sequences": False, "return_states": True}]
    if not THOROUGH:  # one of the first two, in turn, and the last
        del calls[OPTIONS.index(options) % 2]
    for more in calls:
        for found, meant in zip(tensors(compiled(x, **more)), tensors(layer(x, **more)), strict=True):
            torch.testing.assert_close(found, meant)
    torch._dynamo.reset()


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in nested results, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in (value.values() if isinstance(value, dict) else value) for t in tensors(part)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_of_all_that_comes_back(backend: str) -> None:
    layer = fill(
        RNN(["gru", "lstm"], 2, [2, 3], backend=backend, initial_state="learned", lookahead=1, dtype=torch.float64)
    )
    x = inputs(3, 2, 2, torch.float64).requires_grad_()

    def run(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors(layer(x, lengths=[3, 2], return_states=True, return_sequences=False)))

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))
