"""Recurrent batch normalisation in a layer: running statistics for each step, and what becomes of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import ostinato
from laws import BACKENDS, needs_c
from measured import fill, numbers
from ostinato import RNN, ShapeError, cells, transforms, truncate
from ostinato.ir import evaluation, simplify
from tolerances import TOLERANCES, assert_agree, is_gradient

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LENGTHS = [4, 6, 6, 0, 6]  # where few sequences run, what rounding left is divided by √(0 + eps)
CLOSE = 1e-12


def layer(backend: str = "eager", momentum: float = 1.0, cell: Any = cells.lstm, length: int = 10, **more: Any) -> RNN:
    normed = transforms.batch_norm(cell, length, momentum=momentum)
    return fill(RNN(normed, 3, 4, backend=backend, dtype=torch.float64, **more))


def x(steps: int = 6, batch: int = 5, name: str = "x") -> Tensor:
    return numbers(name, steps, batch, 3)


def running(rnn: RNN) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in rnn.named_buffers()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.tensor([2, 5, 5, 5, 1])], ids=str)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}, {"lookahead": 2}], ids=str)
def test_evaluation_gives_what_training_gave(options: dict[str, Any], lengths: Any, backend: str) -> None:
    """With momentum 1 the running statistics are those of the last batch, at the same steps of the same directions."""
    rnn = layer(backend, **options)
    trained, state = rnn(x(), lengths=lengths)
    rnn.eval()
    output, final = rnn(x(), lengths=lengths)
    assert torch.allclose(output, trained, rtol=0, atol=CLOSE)
    for one, other in zip(final, state, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("states", [True, False])
def test_what_comes_back_does_not_depend_on_what_else_is_asked_for(
    states: bool, sequence: bool, training: bool, backend: str
) -> None:
    rnn = layer(backend).train(training)
    whole, final = rnn(x(), lengths=LENGTHS)
    kept = running(rnn)
    found = rnn(x(), lengths=LENGTHS, return_sequences=sequence, return_states=states)
    ends = torch.stack([whole[n - 1, b] if n else torch.zeros_like(whole[0, b]) for b, n in enumerate(LENGTHS)])
    assert torch.allclose(found[0], whole if sequence else ends, rtol=0, atol=CLOSE)
    assert all(torch.allclose(a, b, rtol=0, atol=CLOSE) for a, b in zip(found[1], final, strict=True))
    if states:
        assert torch.allclose(found[2][0]["h"], whole, rtol=0, atol=CLOSE)
    assert all(torch.allclose(running(rnn)[name], value, rtol=0, atol=CLOSE) for name, value in kept.items())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_the_statistics_are_those_of_the_sequences_that_run(backend: str, reverse: bool) -> None:
    """Of W x at step s: over the sequences with more than s steps, whose step s is counted from where they begin."""
    rnn = layer(backend, bidirectional=True)
    suffix = "_l0_reverse" if reverse else "_l0"
    rnn(x(), lengths=LENGTHS)
    products = x() @ rnn.cell_parameters(0, reverse)["W_i"].T
    mean, var = (rnn.get_buffer(f"{name}_W_i{suffix}") for name in ("mean", "var"))
    assert mean.shape == (10, 4)
    for s in range(max(LENGTHS)):
        rows = [products[n - 1 - s if reverse else s, b] for b, n in enumerate(LENGTHS) if n > s]
        now = torch.stack(rows)
        assert torch.allclose(mean[s], now.mean(0), rtol=0, atol=CLOSE)
        assert torch.allclose(var[s], now.var(0, unbiased=False), rtol=0, atol=CLOSE)
    assert torch.equal(mean[6:], torch.zeros(4, 4, dtype=torch.float64))
    assert torch.equal(var[6:], torch.ones(4, 4, dtype=torch.float64))
    assert int(rnn.get_buffer(f"trained_length{suffix}")) == 6


@ostinato.cell(sizes={"x": "H"})
def by_units(p: Any, x: Any, h: Any) -> Any:
    """x goes to the units as it is, so that its gradient is one of the columns that threads share."""
    return ostinato.tanh(p.w * x * x + p.U @ h)


@needs_c
@pytest.mark.parametrize("lengths", [None, [4, 6, 6, 0, 6, 6, 5, 6, 6]], ids=str)
@pytest.mark.parametrize("hidden", [1, 33, 63])
@pytest.mark.parametrize("cell", [cells.elman, cells.gru, cells.lstm, by_units], ids=lambda cell: cell.name)
def test_threads_share_a_step_by_columns(cell: Any, hidden: int, lengths: Any) -> None:
    """What they give is what the eager backend gives; values and statistics are the same to the bit for any number.

    Nine sequences: of the last three, the variance can be so small that eager's own gradients move by 5e-13 when x
    moves by one rounding.
    """

    def measured(backend: str) -> dict[str, Tensor]:
        width = hidden if cell is by_units else 3
        rnn = fill(RNN(transforms.batch_norm(cell, 10), width, hidden, backend=backend, dtype=torch.float64))
        source = numbers("x", 6, 9, width).requires_grad_()
        output, _ = rnn(source, lengths=lengths)
        sources = {"x": source, **dict(rnn.named_parameters())}
        weighted = (output * numbers("weights", *output.shape)).sum()
        gradients = torch.autograd.grad(weighted, list(sources.values()))
        found = dict(zip([f"grad {name}" for name in sources], gradients, strict=True))
        kept = {name: value.double() for name, value in running(rnn).items()}
        return {"output": output.detach(), **kept, **found}

    expected = measured("eager")
    try:
        torch.set_num_threads(1)
        alone = measured("c")
        assert_agree(alone, expected, torch.float64)
        for threads in (2, 3, 5):
            torch.set_num_threads(threads)
            together = measured("c")
            assert_agree(together, expected, torch.float64)
            values = {name: value for name, value in together.items() if not is_gradient(name)}
            assert [name for name, value in values.items() if not torch.equal(value, alone[name])] == []
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_momentum_is_the_share_of_what_is_new(momentum: float) -> None:
    rnn = layer(momentum=momentum)
    means: list[Tensor] = []
    for name in ("first", "second"):
        rnn(x(name=name))
        means.append((x(name=name) @ rnn.cell_parameters()["W_f"].T).mean(1))
    expected = (1 - momentum) * momentum * means[0] + momentum * means[1]
    assert torch.allclose(rnn.get_buffer("mean_W_f_l0")[:6], expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_past_the_longest_trained_length_the_last_statistics_are_used(backend: str) -> None:
    rnn = layer(backend)
    rnn(x(4))
    long = layer(backend, length=30)
    rnn.eval()
    for name in list(running(rnn)):
        if name != "trained_length_l0":  # the last row stands for all that follow
            rows = rnn.get_buffer(name)
            long.get_buffer(name).copy_(torch.cat([rows[:4], rows[3:4].expand(26, -1)]))
    long.get_buffer("trained_length_l0").fill_(30)
    long.eval()
    assert torch.equal(rnn(x(25))[0], long(x(25))[0])


def test_a_layer_that_was_never_trained_takes_mean_0_and_variance_1() -> None:
    rnn = layer(cell=cells.elman).eval()
    p = rnn.cell_parameters()
    scale = (1 + 1e-5) ** -0.5
    h = torch.zeros(5, 4, dtype=torch.float64)
    for now, output in zip(x(), rnn(x())[0], strict=True):
        h = torch.tanh(p["gamma_W"] * scale * (now @ p["W"].T) + p["gamma_U"] * scale * (h @ p["U"].T) + p["b"])
        assert torch.allclose(output, h, rtol=0, atol=CLOSE)


def test_training_past_max_length_is_refused() -> None:
    rnn = layer(length=5)
    with pytest.raises(ShapeError, match="keeps statistics for 5 steps, got sequences of T = 6 in training; make"):
        rnn(x())
    assert rnn.eval()(x())[0].shape == (6, 5, 4)


def test_statistics_move_rest_and_are_saved() -> None:
    rnn = layer()
    rnn(x())
    rnn.eval()
    kept, output = running(rnn), rnn(x())[0]
    assert running(rnn).keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in running(rnn).items())
    other = layer(momentum=0.3).eval()
    other.load_state_dict(rnn.state_dict())
    for twin in (other, copy.deepcopy(rnn), RNN.from_spec(rnn.spec()).double().eval()):
        twin.load_state_dict(rnn.state_dict())
        assert torch.equal(twin(x())[0], output)
    narrow = copy.deepcopy(rnn).float()
    assert narrow.get_buffer("trained_length_l0").dtype == torch.long
    difference = (narrow(x().float())[0] - output).abs().max()
    assert difference <= 100 * TOLERANCES[torch.float32].value
    rnn.reset_parameters()
    assert int(rnn.get_buffer("trained_length_l0")) == 0
    assert torch.equal(rnn.get_buffer("var_c_l0"), torch.ones(10, 4, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("steps", "batch", "lengths"), [(0, 5, None), (6, 0, None), (6, 2, [0, 0]), (1, 1, None)])
def test_little_or_nothing(steps: int, batch: int, lengths: Sequence[int] | None, backend: str) -> None:
    rnn = layer(backend)
    before = running(rnn)
    output, _ = rnn(x(steps, batch), lengths=lengths)
    assert output.shape == (steps, batch, 4)
    assert bool(torch.isfinite(output).all())
    unchanged = all(torch.equal(value, before[name]) for name, value in running(rnn).items())
    assert unchanged == (steps * batch == 0 or lengths == [0, 0])


def test_the_compiled_graph_keeps_them_too() -> None:
    torch._dynamo.reset()
    plain, compiled = layer(), layer()
    run = torch.compile(compiled, backend="eager", fullgraph=True)
    for _ in range(2):
        assert torch.allclose(run(x())[0], plain(x())[0], rtol=0, atol=CLOSE)
    for name, value in running(plain).items():
        assert torch.allclose(running(compiled)[name].double(), value.double(), rtol=0, atol=CLOSE), name


def test_the_variants_of_the_program() -> None:
    program = transforms.batch_norm(cells.elman, 7, momentum=0.2).program()
    names = [s.name for s in program.statistics]
    assert names == ["mean_W", "var_W", "mean_U", "var_U"]
    assert [s.start for s in program.statistics] == [0.0, 1.0, 0.0, 1.0]
    assert list(program.measured) == names and all(program.nodes[i].attr == n for n, i in program.measured.items())
    given = simplify(evaluation(program))
    assert [mask.name for mask in given.masks] == names
    assert list(given.statistic_shapes) == names and not given.measured
    assert simplify(evaluation(given)) == given
    assert not any(node.op == "batch_mean" for node in given.nodes)
    plain = cells.elman.program()
    assert evaluation(plain) is plain and not plain.measured


class Around(nn.Module):
    """A module of one's own around a layer."""

    def __init__(self, rnn: RNN) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, state: Any = None) -> Any:
        return self.rnn(x, state)


def test_a_sequence_is_not_cut_where_each_piece_would_be_taken_for_the_beginning() -> None:
    """In a stack where one layer of two has statistics, in training and in evaluation, and inside another module."""
    mixed = RNN(["gru", transforms.batch_norm(cells.lstm, 10)], 3, 4, backend="eager")
    for rnn in (layer(), layer().eval(), mixed):
        for what, run in {
            "step": lambda rnn=rnn: rnn.step(x()[0]),
            "truncate": lambda rnn=rnn: truncate(rnn, x(), 3),
        }.items():
            with pytest.raises(ShapeError, match=f"^{what} runs .* count from the first step of a call.* whole, or"):
                run()
    with pytest.raises(ShapeError, match="^truncate runs piece by piece, but the statistics"):
        truncate(Around(layer()), x(), 3)
    with pytest.raises(ShapeError, match="^stateful=True runs piece by piece, but the statistics of batch_norm"):
        layer(stateful=True)


def test_under_vmap_statistics_need_buffers_of_their_own() -> None:
    rnn = layer()
    both = torch.stack([x(name="first"), x(name="second")])
    with pytest.raises(ShapeError, match=r"shares them between its inputs; call layer.eval\(\) first, or give each"):
        vmap(lambda one: rnn(one)[0])(both)
    rnn.eval()
    apart = torch.stack([rnn(one)[0] for one in both])
    assert torch.allclose(vmap(lambda one: rnn(one)[0])(both), apart, rtol=0, atol=CLOSE)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_layers_of_an_ensemble_keep_statistics_each_of_its_own() -> None:
    alone = [layer(momentum=0.5), layer(momentum=0.5)]
    both = torch.stack([x(name="first"), x(name="second")])
    params, buffers = stack_module_state(alone)
    output = vmap(lambda p, b, one: functional_call(alone[0], (p, b), (one,))[0])(params, buffers, both)
    for k, rnn in enumerate(alone):
        assert torch.allclose(output[k], rnn(both[k])[0], rtol=0, atol=CLOSE)
        for name, value in running(rnn).items():
            assert torch.allclose(buffers[name][k].double(), value.double(), rtol=0, atol=CLOSE), name
