"""Law 5, packed: a PackedSequence means what its sequences mean padded, with lengths."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from laws import BACKENDS, CELLS, across, in_turn, needs_c
from measured import ThroughPacked, build, expected, fill, inputs, measure, states_for
from ostinato import RNN, ShapeError, cells
from ostinato.backends.base import Inputs
from ostinato.ir import Program, size_value
from ostinato.runtime import Runner, Step
from ostinato.transforms import batch_norm, variational_dropout, zoneout
from tolerances import assert_agree
from transformed import masks_of, sizes_of, values_of

# T, B, D, H: also with more rows than a chunk has, with one, and with fewer than pay for packing weights
SHAPES = [(6, 5, 3, 7), (40, 9, 4, 33), (1, 3, 2, 4), (3, 1, 2, 4), (1, 1, 1, 1)]
NAMED = [pytest.param(name, id=name) for name in ("lstm", "gru", "indrnn")]
UNSORTED = [4, 2, 6, 1, 3, 6, 6, 2, 5]


def lengths_for(steps: int, batch: int, sort: bool = False) -> list[int]:
    """Lengths from 1 to T, that of one sequence T."""
    found = [min(steps, max(1, n * steps // 6)) for n in UNSORTED[:batch]]
    found[batch // 2] = steps
    return sorted(found, reverse=True) if sort else found


def packed(x: Tensor, lengths: list[int], sort: bool = False) -> PackedSequence:
    return pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=sort)


def same(found: Any, meant: Any) -> None:
    """Packed and padded results, nested alike: equal to the bit, but for sums over the batch."""
    if isinstance(meant, Tensor):
        found = pad_packed_sequence(found)[0] if isinstance(found, PackedSequence) else found
        torch.testing.assert_close(found, meant)
        return
    for a, b in zip(*((t.values() if isinstance(t, dict) else t) for t in (found, meant)), strict=True):
        same(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "unsorted"])
@pytest.mark.parametrize(("cell", "dtype"), in_turn(CELLS))
def test_values_and_gradients_are_those_of_the_padded_batch(
    cell: Any, dtype: torch.dtype, sort: bool, backend: str
) -> None:
    """Of two layers in both directions; the reverse one walks the steps backward with the rows that are live."""
    layer = build(cell, 3, 7, backend, dtype, num_layers=2, bidirectional=True)
    x, state = inputs(6, 5, 3, dtype), states_for(layer, 5, dtype)
    lengths = lengths_for(6, 5, sort)
    assert_agree(measure(ThroughPacked(layer, sort), x, state, lengths), expected(layer, x, state, lengths), dtype)


@needs_c
@pytest.mark.parametrize(("name", "shape", "threads"), across(NAMED, SHAPES, [1, 2, 3]))
def test_shapes_and_threads(name: str, shape: tuple[int, ...], threads: int) -> None:
    steps, batch, width, hidden = shape
    layer = build(cells.catalogue()[name], width, hidden, "c", bidirectional=True)
    x, state, lengths = inputs(steps, batch, width, torch.float64), states_for(layer, batch, torch.float64), None
    lengths = lengths_for(steps, batch)
    meant = expected(layer, x, state, lengths)
    torch.set_num_threads(threads)
    try:
        assert_agree(measure(ThroughPacked(layer), x, state, lengths), meant, torch.float64)
        bare = measure(ThroughPacked(layer), x, state, lengths, wants=lambda n: False)
        assert_agree(bare, {n: meant[n] for n in bare}, torch.float64)
        weights = measure(ThroughPacked(layer), x, None, lengths, wants=lambda n: n != "x")
        assert_agree(weights, expected(layer, x, None, lengths, wants=lambda n: n != "x"), torch.float64)
    finally:
        torch.set_num_threads(1)


@needs_c
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
@pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
def test_bfloat16(training: bool, autocast: bool) -> None:
    """Each row is rounded as the padded batch's is."""
    layer = fill(RNN("lstm", 24, 40, 2, bidirectional=True, backend="c"))
    layer = layer if autocast else layer.to(torch.bfloat16)
    x = inputs(9, 6, 24, next(layer.parameters()).dtype).requires_grad_(training)
    lengths = [4, 2, 9, 1, 3, 9]
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output, states = layer(packed(x, lengths))
        meant, finals = layer(x, lengths=lengths)
    assert output.data.dtype == meant.dtype
    assert torch.equal(pad_packed_sequence(output)[0], meant)
    assert all(torch.equal(a, b) for a, b in zip(states, finals, strict=True))
    if training:
        weight = torch.randn(meant.shape).to(meant.dtype)
        (found,) = grad((pad_packed_sequence(output)[0] * weight).sum(), x)
        assert torch.equal(found, grad((meant * weight).sum(), x)[0])


def run_masked(program: Program, backend: str, reverse: bool, lengths: list[int], pack: bool) -> dict[str, Tensor]:
    """Values and gradients of a Program with given masks; x and masks packed or not, results padded."""
    sizes, steps, batch = sizes_of(program), max(lengths), len(lengths)
    step = Step.of(program, True, sizes)
    x = inputs(steps, batch, size_value(step.program.input_size, sizes), torch.float64).requires_grad_()
    masks = masks_of(step, steps, batch)
    params = values_of(step, torch.float64)
    for value in params.values():
        value.requires_grad_()

    def lay(value: Tensor) -> Tensor:
        return packed(value, lengths, True).data if pack and value.dim() == 3 and value.shape[0] == steps else value

    given = Inputs(lay(x), None, torch.tensor(lengths), reverse, [lay(mask) for mask in masks])
    output, finals, _ = Runner(step)(given, list(params.values()), backend)
    if pack:
        output = pad_packed_sequence(packed(x, lengths, True)._replace(data=output))[0]
    loss = sum((v * torch.linspace(-1, 1, v.numel(), dtype=v.dtype).view_as(v)).sum() for v in (output, *finals))
    assert isinstance(loss, Tensor)
    gradients = grad(loss, [x, *params.values()])
    found = {"output": output, **{f"state {k}": s for k, s in enumerate(finals)}}
    return {**found, **{f"grad {k}": g for k, g in enumerate(gradients)}}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_masks_are_packed_too(reverse: bool, backend: str) -> None:
    """One of each step has a row for each of x, one that is locked a row for each sequence."""
    for made in (zoneout(cells.lstm, 0.3), variational_dropout(cells.gru, input=0.2, state=0.3)):
        program = made.program()
        meant = run_masked(program, "eager", reverse, [6, 5, 5, 2, 1], False)
        assert_agree(run_masked(program, backend, reverse, [6, 5, 5, 2, 1], True), meant, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [
    {"lookahead": 2},
    {"connections": "residual", "return_sequences": False},
    {"connections": "dense", "merge": None, "bidirectional": True, "lookahead": 1},
    {"initial_state": "learned", "stateful": True, "batch_first": True},
], ids=str)  # fmt: skip
def test_whatever_the_layer_is(options: dict[str, Any], backend: str) -> None:
    sizes = {"input_size": 4, "hidden_size": 4, "num_layers": 3, "return_states": True, "backend": backend}
    layer, twin = (fill(RNN("lstm", **sizes, **options, dtype=torch.float64)) for _ in range(2))
    lengths = lengths_for(6, 5)
    for k in range(2):  # a stateful one goes on from its own states
        x = inputs(6, 5, 4, torch.float64) + k
        output, *rest = layer(packed(x, lengths))
        padded = twin(x.transpose(0, 1) if layer.batch_first else x, lengths=lengths)
        steps = (lambda t: t.transpose(0, 1)) if layer.batch_first else (lambda t: t)
        meant = [steps(padded[0]) if isinstance(padded[0], Tensor) else padded[0], padded[1]]
        same([output, *rest], [*meant, [{n: steps(t) for n, t in own.items()} for own in padded[2]]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
def test_batch_norm_counts_the_sequences_that_run(training: bool, backend: str) -> None:
    layer, twin = (
        fill(RNN(batch_norm(cells.gru, max_length=8), 4, 5, bidirectional=True, backend=backend, dtype=torch.float64))
        for _ in range(2)
    )
    lengths, x = lengths_for(6, 5), inputs(6, 5, 4, torch.float64)
    for module in (layer, twin):
        module.train(training)
    same(layer(packed(x, lengths)), twin(x, lengths=lengths))
    same(list(layer.buffers()), list(twin.buffers()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_repeats_with_its_generator(backend: str) -> None:
    layer = fill(RNN(zoneout(cells.gru, 0.4), 4, 5, 2, dropout=0.5, backend=backend))
    x = packed(inputs(6, 5, 4, torch.float32), lengths_for(6, 5))
    first, again, other = (layer(x, generator=torch.Generator().manual_seed(s))[0].data for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_and_transforms(backend: str) -> None:
    layer = fill(RNN("gru", 3, 4, bidirectional=True, backend=backend, dtype=torch.float64))
    lengths, x = lengths_for(6, 5), inputs(6, 5, 3, torch.float64).requires_grad_()
    like = packed(x, lengths)

    def run(data: Tensor) -> Tensor:
        return layer(like._replace(data=data))[0].data

    (first,) = grad(run(packed(x, lengths).data).square().sum(), x, create_graph=True)
    (meant,) = grad(layer(x, lengths=lengths)[0].square().sum(), x, create_graph=True)
    torch.testing.assert_close(first, meant)
    torch.testing.assert_close(grad(first.square().sum(), x)[0], grad(meant.square().sum(), x)[0])
    data = like.data.detach()
    both = torch.func.vmap(run)(torch.stack([data, data + 1]))
    torch.testing.assert_close(both, torch.stack([run(data), run(data + 1)]))
    whole = torch.autograd.functional.jacobian(run, data, vectorize=True)
    torch.testing.assert_close(torch.func.jacrev(run)(data), whole)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks for it where a graph is broken
def test_compiled_graphs_take_it() -> None:
    layer = fill(RNN("lstm", 3, 4))
    like = packed(inputs(6, 5, 3, torch.float32), lengths_for(6, 5))
    found = torch.compile(layer, backend="eager")(like)[0]
    torch.testing.assert_close(found.data, layer(like)[0].data)


@pytest.mark.parametrize(
    ("rows", "sizes"), [((5, 3), [2, 1, 1]), ((5, 3), [2, 1, 2]), ((4, 1, 3), [2, 1, 1]), ((1, 3), [])], ids=str
)
def test_rows_that_do_not_fit_are_refused(rows: tuple[int, ...], sizes: list[int]) -> None:
    """A kernel takes them by address."""
    wrong = PackedSequence(torch.zeros(rows), torch.tensor(sizes, dtype=torch.int64))
    with pytest.raises(ShapeError, match="as pack_padded_sequence makes them") as caught:
        RNN("gru", 3, 4)(wrong)
    assert str(list(rows)) in str(caught.value)


@needs_c
def test_random_lengths() -> None:
    """However they are dealt to threads, ties and all."""
    drawn = random.Random(0)
    layer = fill(RNN("gru", 3, 5, bidirectional=True, backend="c", dtype=torch.float64))
    for _ in range(20):
        batch, steps, threads = (drawn.randint(1, most) for most in (20, 12, 4))
        lengths = [drawn.randint(1, steps) for _ in range(batch)]
        x = inputs(max(lengths), batch, 3, torch.float64)
        torch.set_num_threads(threads)
        try:
            found = measure(ThroughPacked(layer), x, None, lengths)
            assert_agree(found, measure(layer, x, None, lengths), torch.float64)
        finally:
            torch.set_num_threads(1)
        assert_agree(found, expected(layer, x, None, lengths), torch.float64)
