"""What others in this ecosystem expect: torch.compile and torch.export pass through without a break."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.export import Dim

import ostinato
from laws import BACKENDS, CELLS, THOROUGH, backend_param
from measured import build, flat, inputs, numbers, results, states_for
from ostinato import ShapeError
from ostinato.runtime import Step
from tolerances import assert_agree

# torch's own tracing warns about its own code
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
# capturing takes seconds: every cell through C, one through eager
EVERY = [
    pytest.param(*c.values, *backend_param("c").values, marks=backend_param("c").marks, id=f"{c.id}-c") for c in CELLS
]
EVERY += [pytest.param(ostinato.cells.peephole_lstm, "eager", id="peephole_lstm-eager")]
HALF = EVERY[:: 1 if THOROUGH else 2]  # every cell's operator is tried below


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Graphs of one test are not those of another."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Model(nn.Module):
    """A layer in a model, as one meets it: an embedding below, a head above."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.below = nn.Linear(3, layer.input_size, dtype=torch.float64)
        self.layer = layer
        self.above = nn.Linear(layer.output_size, 2, dtype=torch.float64)

    def forward(self, x: Tensor, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        output, state = self.layer(torch.relu(self.below(x)), state, lengths)
        return self.above(output), state


def model(cell: Any, backend: str, **arguments: Any) -> Model:
    """The same numbers for every backend."""
    found = Model(build(cell, 5, 7, backend, **arguments))
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            parameter.copy_(numbers(name, *parameter.shape, scale=0.4))
    return found


# ---- torch.compile


@pytest.mark.parametrize(("cell", "backend"), HALF)
def test_compiled_without_a_break(cell: Any, backend: str) -> None:
    """fullgraph=True, in training: one graph, the same numbers, every gradient; states and lengths too."""
    plain = model(cell, backend, bidirectional=True)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager", dynamic=False)
    x, state = inputs(4, 3, 3, torch.float64), states_for(plain.layer, 3, torch.float64)
    given = state[0] if len(state) == 1 else state
    full = (given, torch.tensor([1, 4, 0]))
    for more in ((), full) if THOROUGH or cell is ostinato.cells.lstm else (full,):
        assert_agree(results(compiled, x, *more), results(plain, x, *more), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_for_inference(backend: str) -> None:
    plain = model(ostinato.cells.lstm, backend)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager", dynamic=False)
    x = inputs(4, 3, 3, torch.float64)
    with torch.no_grad():
        assert_agree({"output": compiled(x)[0]}, {"output": plain(x)[0]}, torch.float64)
    with torch.inference_mode():
        assert_agree({"output": compiled(x)[0].clone()}, {"output": plain(x)[0].clone()}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_once_for_any_batch_and_time(backend: str) -> None:
    """dynamic=True: other sizes compile nothing anew."""
    plain = model(ostinato.cells.gru, backend)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(plain, fullgraph=True, backend=count, dynamic=True)
    first = 0
    for steps, batch in ((4, 6), (7, 2), (2, 9)):  # no two sizes alike: torch takes equal ones for the same
        x = inputs(steps, batch, 3, torch.float64)
        assert_agree(results(compiled, x), results(plain, x), torch.float64)
        first = first or count.frame_count
    assert count.frame_count == first


def test_compiled_by_inductor() -> None:
    """The default backend of torch.compile, with code generated around the layer."""
    plain = model(ostinato.cells.gru_reset_after, "auto")
    compiled = torch.compile(plain, fullgraph=True)
    x = inputs(4, 3, 3, torch.float64)
    assert_agree(results(compiled, x), results(plain, x), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_are_checked_in_a_compiled_graph_as_well(backend: str) -> None:
    """A graph meets their values when it runs: an error then, never a read past the end."""
    compiled = torch.compile(model(ostinato.cells.gru, backend), fullgraph=True, backend="aot_eager")
    x = inputs(4, 3, 3, torch.float64)
    compiled(x, None, torch.tensor([4, 1, 2]))
    for wrong in ([4, 5, 1], [4, -1, 1], [10**12, 1, 1]):
        with pytest.raises(ShapeError, match="0 <= lengths <= T = 4"):
            compiled(x, None, torch.tensor(wrong))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_compiled_whole(backend: str) -> None:
    """The loss goes down as it does without torch.compile."""
    losses = []
    for compile_it in (False, True):
        plain = model(ostinato.cells.lstm, backend)
        module = torch.compile(plain, fullgraph=True, backend="aot_eager", dynamic=False) if compile_it else plain
        optimizer = torch.optim.SGD(plain.parameters(), 0.1)
        x, y = inputs(4, 3, 3, torch.float64), numbers("target", 4, 3, 2)
        losses.append([])
        for _ in range(5):
            loss = (module(x)[0] - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss.detach()))
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)


# ---- torch.export


@pytest.mark.parametrize(("cell", "backend"), EVERY)
def test_exported(cell: Any, backend: str) -> None:
    plain = model(cell, backend, bidirectional=True)
    x, state = inputs(4, 3, 3, torch.float64), states_for(plain.layer, 3, torch.float64)
    given = state[0] if len(state) == 1 else state
    for more in ((), (given, torch.tensor([4, 0, 2]))):
        program = torch.export.export(plain, (x, *more))
        output, final = program.module()(x, *more)
        meant, last = plain(x, *more)
        assert_agree({"output": output}, {"output": meant}, torch.float64)
        for a, b in zip(flat(final), flat(last), strict=True):
            assert_agree({"state": a}, {"state": b}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exported_for_any_batch_and_time(backend: str) -> None:
    plain = model(ostinato.cells.lstm, backend)
    x = inputs(4, 3, 3, torch.float64)
    program = torch.export.export(plain, (x,), dynamic_shapes={"x": {0: Dim("T"), 1: Dim("B")}})
    for steps, batch in ((4, 3), (9, 2), (2, 7)):
        x = inputs(steps, batch, 3, torch.float64)
        assert_agree({"output": program.module()(x)[0]}, {"output": plain(x)[0]}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exported_program_survives_a_file(backend: str, tmp_path: Any) -> None:
    """It holds the equations itself."""

    @ostinato.cell
    def own(p, x, h):
        return ostinato.tanh(p.W @ x + p.U @ h) * 0.9

    plain = model(own, backend)
    x = inputs(4, 3, 3, torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(plain, (x,)), tmp_path / "model.pt2")
        program = torch.export.load(tmp_path / "model.pt2")
    assert_agree({"output": program.module()(x)[0]}, {"output": plain(x)[0]}, torch.float64)


# ---- the registered operator


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize(("cell", "backend"), EVERY)
def test_the_operator_keeps_torchs_contract(cell: Any, lengths: bool, backend: str) -> None:
    """torch.library.opcheck: schema, fake tensors, autograd. Not its comparison of values: a tape has gaps."""
    layer = build(cell, 3, 4, backend)
    step = Step.of(layer.cell.program(), True, {"D": 3, "H": 4, **layer.sizes})
    masks = [torch.ones(4, 2, *shape, dtype=torch.float64) for shape in step.mask_shapes]
    x = inputs(4, 2, 3, torch.float64).requires_grad_()
    states = [s[:1].clone().requires_grad_() for s in states_for(layer, 2, torch.float64)]
    named = {**layer.cell_parameters(), **layer.cell_buffers()}
    given = step.derived([named[n].detach() for n in step.program.params])  # the operator takes what the core does
    weights = [p.clone().requires_grad_() for p in given]
    ends = torch.tensor([4, 2]) if lengths else None
    core = (step.core_text, step.core_sizes)
    arguments = (x, states, weights, masks, ends, *core, True, backend, "float64", step.tape_values(4, 2))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.ostinato.recurrence.default, arguments, test_utils=checks)


def test_the_operator_refuses_a_program_that_is_no_core() -> None:
    """A kernel reads its parameters by address: those of another program would lead astray."""

    @ostinato.cell
    def own(p, x, h):
        return ostinato.tanh(p.W @ x + (p.U * p.V) @ h)

    step = Step.of(own.program(), True, {"D": 3, "H": 4})
    x, weights = torch.zeros(2, 1, 3), [torch.zeros(shape) for shape in step.param_shapes]
    rest = (step.program.dumps(), [3, 4], False, "auto", "float32", 0)
    with pytest.raises(ShapeError, match="core of a step"):
        torch.ops.ostinato.recurrence(x, [torch.zeros(1, 1, 4)], weights, [], None, *rest)


def test_graphs_that_torch_compile_records_go_around_the_operator():
    """Kernels on a GPU keep buffers, which must not lie in such a graph's memory."""
    for operator in (torch.ops.ostinato.recurrence, torch.ops.ostinato.recurrence_backward):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags
