"""Truncated backpropagation through time: what comes out, where gradients end, and which masks a piece has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from laws import BACKENDS
from measured import build, fill, inputs, numbers
from ostinato import RNN, ShapeError, cells, transforms, truncate
from tolerances import assert_agree
from wired import same


def by_hand(layer: Any, x: Tensor, k1: int, k2: int, weights: Tensor) -> list[list[Tensor]]:
    """The gradients of every piece: a loss on its outputs, whose history is cut k2 steps before its end."""
    found = []
    for end in [*range(k1, len(x), k1), len(x)]:
        begin = end - (end - 1) % k1 - 1
        cut = max(0, end - k2)
        with torch.no_grad():
            state = layer(x[:cut])[1] if cut else None
        output = layer(x[cut:end], state)[0][begin - cut :]
        loss = (output * weights[begin:end]).sum()
        found.append(list(torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)))
    return found


@pytest.mark.parametrize(
    ("k1", "k2"), [(1, 1), (1, 4), (2, 2), (3, 4), (3, 5), (3, 7), (2, 11), (4, 40), (11, 11), (20, 30)]
)
@pytest.mark.parametrize("kind", ["torch", "eager", "learned"])
def test_truncated_gradients_reach_back_k2_steps(kind: str, k1: int, k2: int) -> None:
    """The same as a plain loop that runs all before the cut without a gradient; any module with states will do."""
    if kind == "torch":
        layer: Any = fill(nn.GRU(3, 4, 2, dtype=torch.float64))
    else:
        initial = "learned" if kind == "learned" else "zeros"
        layer = build(ostinato.cells.lstm, 3, 4, "eager", num_layers=2, initial_state=initial)
    x, weights = inputs(11, 2, 3, torch.float64), numbers("weights", 11, 2, 4)
    meant, outputs, at = by_hand(layer, x, k1, k2, weights), [], 0
    pieces = truncate(layer, x, k1, k2)
    for expected in meant:
        output, state = next(pieces)
        assert len(output) == min(k1, 11 - at)
        loss = (output * weights[at : at + len(output)]).sum()
        gradients = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)
        assert_agree(
            {f"grad {k}": g for k, g in enumerate(gradients)},
            {f"grad {k}": g for k, g in enumerate(expected)},
            torch.float64,
        )
        at += len(output)
        outputs.append(output)
        same(state, layer(x[:at])[1])
    assert next(pieces, None) is None
    same(torch.cat(outputs), layer(x)[0])


def test_steps_run_again_use_the_weights_as_they_are_then() -> None:
    """Weights change between the pieces, in place; backward still runs, from the state that was noted."""
    layer = build(ostinato.cells.gru, 3, 4, "eager")
    x = inputs(6, 2, 3, torch.float64)
    noted: Any = None
    for k, (output, _) in enumerate(truncate(layer, x, 2, 3)):
        cut, end = max(0, 2 * k - 1), 2 * k + 2
        meant = layer(x[cut:end], noted)[0][-2:]
        same(output, meant)
        loss = (output * numbers("loss", 2, 2, 4)).sum()
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
        # the next begins a step before this one's end
        noted = layer(x[cut : end - 1], noted)[1].detach()
        with torch.no_grad():
            for p, g in zip(layer.parameters(), gradients, strict=True):
                p -= 0.1 * g


def test_truncation_keeps_to_lengths_layout_and_options() -> None:
    """Ragged, batch_first, one sequence, and a layer that returns something else by default."""
    plain = build(ostinato.cells.lstm, 3, 4, "eager")
    other = build(
        ostinato.cells.lstm, 3, 4, "eager", batch_first=True, return_sequences=False, return_states=True, dropout=0.0
    )
    x, lengths = inputs(7, 3, 3, torch.float64), [7, 2, 4]
    whole, ended = plain(x, lengths=lengths)
    for layer, given, axis in ((plain, x, 0), (other, x.transpose(0, 1), 1)):
        pieces = list(truncate(layer, given, 2, 3, lengths=torch.tensor(lengths)))
        found, state = torch.cat([output for output, _ in pieces], axis), pieces[-1][1]
        same(found if axis == 0 else found.transpose(0, 1), whole)
        same(state, ended)
    found = torch.cat([output for output, _ in truncate(other, x[:, 0], 3, state=(torch.zeros(1, 4).double(),) * 2)])
    same(found, whole[:, 0])
    assert list(truncate(plain, x[:0], 3)) == []


def test_a_state_given_to_truncation_has_no_history() -> None:
    layer = build(ostinato.cells.gru, 3, 4, "eager")
    h = numbers("h", 1, 2, 4).requires_grad_()
    for output, _ in truncate(layer, inputs(4, 2, 3, torch.float64), 1, 4, state=h):
        assert torch.autograd.grad(output.sum(), h, allow_unused=True)[0] is None


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"k1": 3, "k2": 2}, r"k2 is 2, less than k1 = 3.*pass k2 >= k1"),
        ({}, {"k1": 0}, r"k1 is 0; give a whole number"),
        (
            {"bidirectional": True},
            {"k1": 2},
            r"truncate runs forwards, but the layer is bidirectional.*use bidirectional",
        ),
        ({"lookahead": 2}, {"k1": 2}, r"the layer has lookahead=2; use lookahead=0"),
        (
            {"stateful": True},
            {"k1": 2},
            r"carries the states itself, but the layer has stateful=True; build it without",
        ),
        ({}, {"k1": 2, "x": nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])}, r"got PackedSequence; unpack a"),
        (nn.LSTM(3, 4), {"k1": 2, "lengths": [4, 2]}, r"given lengths, but LSTM takes none; .*from_torch"),
        (nn.LSTM(3, 4), {"k1": 2, "generator": torch.Generator()}, r"given generator, but LSTM takes none"),
        (nn.Sequential(nn.LSTM(3, 4)), {"k1": 2}, r"Sequential does not take two arguments; give it the recurrent"),
    ],
)
def test_truncation_is_refused_at_once(options: Any, arguments: Any, message: str) -> None:
    layer = options if isinstance(options, nn.Module) else RNN("gru", 3, 4, **options)
    with pytest.raises(ShapeError, match=message):
        truncate(layer, **{"x": torch.zeros(4, 2, 3), **arguments})


def test_truncation_needs_a_pair() -> None:
    with pytest.raises(ShapeError, match="but Bilinear returned Tensor; give a module"):
        list(truncate(nn.Bilinear(3, 3, 3), torch.zeros(4, 2, 3), 2, state=torch.zeros(2, 2, 3)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (2, 5), (1, 3), (3, 4)])
def test_masks_that_are_one_for_all_steps_are_one_for_all_pieces(k1: int, k2: int, backend: str) -> None:
    """Each output is that of the sequence whole, under some draw; another call draws others."""
    locked = transforms.variational_dropout(transforms.weight_drop(cells.lstm, 0.5), input=0.5, state=0.5)
    layer = fill(RNN(locked, 3, 8, 2, backend=backend, dtype=torch.float64))
    x = inputs(8, 2, 3, torch.float64)

    def run(x: Tensor, seed: int, k1: int, k2: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([output for output, _ in truncate(layer, x, k1, k2, generator=generator)])

    whole = run(x, 1, len(x), len(x))
    torch.testing.assert_close(run(x, 1, k1, k2), whole)
    assert not torch.allclose(run(x, 2, k1, k2), whole)
    inside = nn.ModuleList([layer])
    inside.forward = layer.forward  # a module of one's own around it
    pieces = [out for out, _ in truncate(inside, x, k1, k2, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(torch.cat(pieces), whole)
    drawn = layer(x, generator=torch.Generator().manual_seed(1))[0]
    assert not torch.equal(drawn, layer(x)[0]), "a call of its own draws anew"


def test_masks_of_each_step_are_drawn_as_without_pieces() -> None:
    """Nothing is taken from the generator for masks that are not there."""
    layer = fill(RNN(transforms.zoneout(cells.gru, 0.5), 3, 4, backend="eager", dtype=torch.float64))
    x = inputs(6, 2, 3, torch.float64)
    generator, other = (torch.Generator().manual_seed(3) for _ in range(2))
    state: Any = None
    for k, (output, _) in enumerate(truncate(layer, x, 2, generator=generator)):
        meant, state = layer(x[2 * k : 2 * k + 2], state, generator=other)
        assert torch.equal(output, meant)
