"""Random masks and fixed parameters of a layer: dropout between layers, a cell's own masks, buffers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from laws import BACKENDS
from measured import build, fill, inputs
from ostinato import RNN, Cell, cell, emit, tanh
from ostinato.ir import Mask, Node
from ostinato.nn.masks import draw
from tolerances import assert_agree

# ---- dropout


def test_dropout_repeats_with_a_generator() -> None:
    """The same seed gives the same numbers, another seed others; torch's own generator is left alone."""
    layer = fill(RNN("gru", 3, 8, 3, dropout=0.5, backend="eager", dtype=torch.float64))
    x = inputs(5, 4, 3, torch.float64)

    def run(seed: int) -> Tensor:
        return layer(x, generator=torch.Generator().manual_seed(seed))[0]

    before = torch.get_rng_state()
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert torch.equal(before, torch.get_rng_state())
    layer.eval()
    assert torch.equal(run(1), run(2))


@pytest.mark.parametrize("seeded", [False, True])
def test_dropout_drops_what_it_says(seeded: bool) -> None:
    """What the upper layer reads: zeros at the rate, the rest scaled; what is added to its output is not dropped."""

    @cell(sizes={"h": "D"})
    def copied(p: Any, x: Any, h: Any) -> Any:
        return x

    layer = RNN(copied, 50, 1, 2, dropout=0.25, backend="eager")
    x = torch.ones(40, 20, 50)
    generator = torch.Generator().manual_seed(0) if seeded else None
    torch.manual_seed(0)
    found = layer(x, generator=generator)[0]
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs((found == 0).double().mean() - 0.25) < 0.01
    residual = RNN(copied, 50, 1, 2, dropout=0.25, backend="eager", connections="residual")
    found = residual(x, generator=generator)[0]
    torch.testing.assert_close(found.unique(), torch.tensor([1.0, 1 + 1 / 0.75]))


@pytest.mark.parametrize("seeded", [False, True])
def test_locked_dropout_is_one_mask_for_all_steps(seeded: bool) -> None:
    """And another for each sequence and call; evaluation draws none."""

    @cell(sizes={"h": "D"})
    def copied(p: Any, x: Any, h: Any) -> Any:
        return x

    layer = RNN(copied, 50, 1, 2, dropout=0.25, locked=True, backend="eager")
    x = torch.ones(7, 400, 50)
    generator = torch.Generator().manual_seed(0) if seeded else None
    torch.manual_seed(0)
    found = layer(x, generator=generator)[0]
    assert torch.equal(found, found[:1].expand_as(found))
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs((found[0] == 0).double().mean() - 0.25) < 0.01
    assert len(found[0].unique(dim=0)) == 400
    assert not torch.equal(found, layer(x, generator=generator)[0])
    before = torch.get_rng_state()
    assert torch.equal(layer.eval()(x)[0], x) and torch.equal(before, torch.get_rng_state())


def test_locked_dropout_is_variational_dropout_of_what_the_upper_layer_reads() -> None:
    """The transform masks within the step, the layer before it: the same numbers for the same mask."""
    dropped = ostinato.transforms.variational_dropout(ostinato.cells.gru, input=0.5)
    inside = fill(RNN([ostinato.cells.gru, dropped], 3, [8, 8], backend="eager", dtype=torch.float64))
    outside = fill(RNN("gru", 3, 8, 2, dropout=0.5, locked=True, backend="eager", dtype=torch.float64))
    x = inputs(5, 4, 3, torch.float64)
    found = [layer(x, generator=torch.Generator().manual_seed(3))[0] for layer in (inside, outside)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_locked_dropout_of_packed_sequences_is_that_of_padded_ones(backend: str) -> None:
    """One mask for a sequence, whichever its rows are: sequences that fall in length are drawn in the same order."""
    layer = fill(RNN("gru", 3, 8, 3, dropout=0.5, locked=True, backend=backend, dtype=torch.float64))
    x, lengths = inputs(6, 4, 3, torch.float64), torch.tensor([6, 5, 5, 2])
    padded = layer(x, lengths=lengths, generator=torch.Generator().manual_seed(3))[0]
    rows = torch.nn.utils.rnn.pack_padded_sequence(x, lengths)
    packed = layer(rows, generator=torch.Generator().manual_seed(3))[0]
    torch.testing.assert_close(torch.nn.utils.rnn.pad_packed_sequence(packed)[0], padded)
    again = layer(rows, generator=torch.Generator().manual_seed(4))[0]
    assert not torch.equal(again.data, packed.data)


# ---- random masks of a cell


@cell
def masked(p: Any, x: Any, h: Any, c: Any) -> Any:
    """Dropout in every place: another at each step, and one locked in time."""
    c = 0.5 * c + ostinato.dropout(tanh(p.W @ x + p.U @ ostinato.dropout(h, 0.3, locked=True) + p.b), 0.4)
    return emit(ostinato.dropout(c, 0.2), tanh(c), c)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [{}, {"return_states": True}, {"return_sequences": False}])
def test_masks_repeat_with_a_generator_and_vanish_in_evaluation(wanted: Any, backend: str) -> None:
    """The same seed gives the same numbers on every backend, whatever is asked for; evaluation has no dropout."""
    layer = build(masked, 3, 4, backend, num_layers=2, bidirectional=True)
    other = build(masked, 3, 4, "eager", num_layers=2, bidirectional=True)
    x, lengths = inputs(5, 3, 3, torch.float64), [5, 0, 3]

    def run(layer: RNN, seed: int, **more: Any) -> Tensor:
        return layer(x, lengths=lengths, generator=torch.Generator().manual_seed(seed), **more)[0]

    found = run(layer, 1, **wanted)
    assert_agree({"output": run(other, 1, **wanted)}, {"output": found}, torch.float64)
    assert torch.equal(found, run(layer, 1, **wanted)) and not torch.equal(found, run(layer, 2, **wanted))

    @cell
    def plain(p: Any, x: Any, h: Any, c: Any) -> Any:
        c = 0.5 * c + tanh(p.W @ x + p.U @ h + p.b)
        return emit(c, tanh(c), c)

    calm = build(plain, 3, 4, backend, num_layers=2, bidirectional=True)
    layer.eval()
    assert_agree({"output": run(layer, 1, **wanted)}, {"output": run(calm, 1, **wanted)}, torch.float64)
    assert torch.equal(run(layer, 1, **wanted), run(layer, 2, **wanted))


def test_masks_are_drawn_as_they_are_declared() -> None:
    """A locked mask holds for all steps of a sequence, another differs at each; both at their rates."""

    @cell(sizes={"a": "D", "b": "D"})
    def seen(p: Any, x: Any, a: Any, b: Any) -> Any:
        return ostinato.dropout(x, 0.25), ostinato.dropout(x, 0.5, locked=True)

    layer = RNN(seen, 40, 1, backend="eager")
    torch.manual_seed(0)
    states = layer(torch.ones(30, 50, 40), return_states=True)[2][0]
    free, locked = states["a"], states["b"]
    assert abs((free == 0).double().mean() - 0.25) < 0.01 and abs((locked == 0).double().mean() - 0.5) < 0.05
    assert set(locked.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(locked, locked[:1].expand_as(locked)) and not torch.equal(locked[:, 0], locked[:, 1])
    assert not torch.equal(free[0], free[1])


def weights_dropped(rate: float) -> Cell:
    """An Elman network some of whose recurrent weights are 0 for a call (Wan et al. 2013)."""
    program = ostinato.cells.elman.program()
    place, matrix = next((i, n) for i, n in enumerate(program.nodes) if n.attr == "U")
    random = Node("mask", (), matrix.shape, "drop")
    masked = Node("mul", (place, place + 1), matrix.shape)
    moved = [replace(n, args=tuple(a + 2 * (a >= place) for a in n.args)) for n in program.nodes[place + 1 :]]
    nodes = (*program.nodes[: place + 1], random, masked, *moved)
    nexts = tuple(i + 2 * (i >= place) for i in program.next_states)
    mask = Mask("drop", 1 - rate, 1 / (1 - rate))
    return Cell.from_program(replace(program, nodes=nodes, next_states=nexts, output=nexts[0], masks=(mask,)).check())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_of_a_matrix_is_drawn_once_for_a_call(backend: str) -> None:
    layer = build(weights_dropped(0.25), 3, 8, backend)
    plain = build(ostinato.cells.elman, 3, 8, backend)
    x = inputs(5, 3, 3, torch.float64)
    found = layer(x, generator=torch.Generator().manual_seed(3))[0]
    assert not torch.allclose(found, plain(x)[0])
    assert_agree({"output": layer.eval()(x)[0]}, {"output": plain(x)[0]}, torch.float64)
    kept = draw(layer.programs[0].masks[0], (8, 8), x, torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain.cell_parameters()["U"].mul_(kept)
    assert_agree({"output": found}, {"output": plain(x)[0]}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_draws_masks_as_it_is_told(backend: str) -> None:
    layer = build(masked, 3, 4, backend, num_layers=2, dropout=0.5)
    x = inputs(5, 3, 3, torch.float64).expand(2, 5, 3, 3)
    found = {r: torch.vmap(lambda x: layer(x)[0], randomness=r)(x) for r in ("same", "different")}
    assert torch.equal(*found["same"]) and not torch.equal(*found["different"])
    layer.eval()
    torch.testing.assert_close(torch.vmap(lambda x: layer(x)[0])(x)[1], layer(x[0])[0])


# ---- parameters that are not trained


@cell(fixed=("A",), init={"A": 0.5})
def memory(p: Any, x: Any, h: Any) -> Any:
    return tanh(p.A * h + p.W @ x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_fixed_is_a_buffer(backend: str) -> None:
    layer = RNN(memory, 3, 4, 2, backend=backend)
    assert {n for n, _ in layer.named_parameters()} == {"W_l0", "W_l1"}
    assert {n for n, _ in layer.named_buffers()} == {"A_l0", "A_l1"} and "A_l1" in layer.state_dict()
    assert set(layer.cell_parameters(1)) == {"W"} and set(layer.cell_buffers(1)) == {"A"}
    assert torch.equal(layer.cell_buffers()["A"], torch.full((4,), 0.5))
    x = inputs(4, 2, 3, torch.float32)
    before = layer(x)[0]
    before.sum().backward()
    h = torch.zeros(2, 4)
    own = layer.cell_parameters()["W"]
    for t in range(4):
        h = torch.tanh(0.5 * h + x[t] @ own.T)
    torch.testing.assert_close(layer(x, return_states=True)[2][0]["h"][-1], h)
    layer.cell_buffers()["A"].fill_(-0.5)
    assert not torch.allclose(layer(x)[0], before)
    assert layer.double()(x.double())[0].dtype == torch.float64


# ---- how they are drawn


@pytest.mark.parametrize("probability", [0.001, 0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_mask_has_its_probability(probability: float) -> None:
    """To four standard deviations, over a million draws; neighbours and the whole are independent."""
    count = 1_000_003
    drawn = draw(Mask("m", probability, 1.0), (count,), torch.zeros(()), torch.Generator().manual_seed(0))
    spread = (probability * (1 - probability) / count) ** 0.5
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - probability) < 4 * spread + 2**-17
    for lag in (1, 2, 3, 4):  # several come of one number
        both = float((drawn[lag:] * drawn[:-lag]).mean())
        assert abs(both - probability**2) < 5 * max(spread, (probability**2 / count) ** 0.5)


def test_a_mask_is_the_same_for_every_dtype() -> None:
    drawn = [
        draw(Mask("m", 0.3, 2.0), (5, 3), torch.zeros((), dtype=d), torch.Generator().manual_seed(1)).double()
        for d in (torch.float32, torch.float64, torch.bfloat16)
    ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
