"""The Triton backend through Triton's interpreter: values and gradients over the catalogue, in every form of kernel."""

from __future__ import annotations

import sys

import pytest
import torch

import ostinato.runtime  # noqa: F401  (its `choose` is a function beside the module)
from interpreted import Interpreted
from laws import ThroughPacked, build, doubled, inputs, measure, ragged, reference, states_for
from ostinato import RNN, BackendError, Cell, cells
from ostinato.backends.triton import Form
from ostinato.named import named
from tolerances import differences, is_gradient

pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")
pytestmark = [  # what the interpreter makes numpy say: of lanes that are masked, and of its own scalars
    pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
]

CATALOGUE = sorted(name for name, value in vars(cells).items() if isinstance(value, Cell))
TRANSFORMED = (
    "layer_norm(lstm)",
    "batch_norm(gru, 6)",
    "zoneout(gru, 0.1)",
    "variational_dropout(lstm, 0.3)",
    "recurrent_dropout(lstm, 0.2)",
    "multiplicative_integration(gru)",
    "residual(gru)",
    "skip_in_time(lstm, 2)",
    "deep_transition(elman, 2)",
)
# products that wait for one another, peepholes, sums over a vector, states of several sizes, numbers as vectors
FEW = ("lstm", "gru", "full_peephole_lstm", "layer_norm(lstm)", "projected_lstm", "lmu")


@pytest.fixture
def interpret(monkeypatch):
    """Kernels of a form, interpreted (see conftest.py)."""

    def use(form: Form) -> None:
        monkeypatch.setattr(sys.modules["ostinato.runtime.choose"], "_TRITON", Interpreted(form))

    return use


def agrees(name: str, steps: int, batch: int, width: int, hidden: int, packed: bool = False) -> None:
    """Values and every gradient, both directions, states given, sequences of unequal lengths."""
    cell = named(name)
    width = width if cell.program().input_size == "D" else hidden
    layer = build(cell, width, hidden, "triton", torch.float32, bidirectional=True)
    x, state = inputs(steps, batch, layer.input_size, torch.float32), states_for(layer, batch, torch.float32)
    lengths = ragged(steps, batch)
    if packed:
        lengths = [max(1, n) for n in lengths]
    laid = ThroughPacked(layer) if packed else layer
    twin = reference(layer)  # masks are drawn for the rows there are: then eager is packed too
    meant = measure(ThroughPacked(twin) if packed else twin, x.double(), doubled(state), lengths)
    assert not differences(measure(laid, x, state, lengths), meant, torch.float32)
    with torch.no_grad():
        bare = measure(laid, x, state, lengths, wants=lambda _: False)
    assert not differences(bare, {n: v for n, v in meant.items() if not is_gradient(n)}, torch.float32)


@pytest.mark.parametrize("name", [*CATALOGUE, *TRANSFORMED])
def test_the_catalogue_and_transforms(name, interpret):
    interpret(Form(batch=32))
    agrees(name, 3, 18, 5, 7)


@pytest.mark.parametrize("name", FEW)
def test_products_in_parts_side_by_side(name, interpret):
    interpret(Form(batch=32, splits=2))
    agrees(name, 2, 17, 18, 33)


@pytest.mark.parametrize("name", FEW)
def test_programs_that_meet(name, interpret):
    """Two groups of two programs, each with its part of the units."""
    interpret(Form(slices=2, splits=2))
    agrees(name, 3, 18, 5, 36)


@pytest.mark.parametrize("name", [*CATALOGUE, *TRANSFORMED])
def test_products_by_the_library(name, interpret):
    interpret(Form(batch=32, stages=True))
    agrees(name, 3, 18, 5, 7)


@pytest.mark.parametrize("name", [name for name in FEW if name != "layer_norm(lstm)"])
def test_products_by_the_library_and_units_dealt_out(name, interpret):
    """Sums over a vector are left out: programs that do not meet have no part in them."""
    interpret(Form(batch=4, slices=2, stages=True))
    agrees(name, 3, 18, 5, 36)


class Replayed:
    """A graph of so many steps, which are done without one."""

    def __init__(self, desk, steps):
        self.replay = lambda: desk._steps(steps)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", ["lstm", "gru", "batch_norm(lstm, 7)", "skip_in_time(lstm, 2)"])
def test_steps_of_a_graph_beyond_the_end_do_nothing(name, packed, interpret, monkeypatch):
    monkeypatch.setattr("ostinato.backends.triton.staged.STEPS", (4, 2))
    monkeypatch.setattr("ostinato.backends.triton.staged._Desk._may_record", lambda *_: True)
    monkeypatch.setattr("ostinato.backends.triton.staged._Desk._graph", lambda desk, _, steps: Replayed(desk, steps))
    interpret(Form(batch=8, stages=True))
    agrees(name, 7, 8, 4, 6, packed=packed)


@pytest.mark.parametrize("form", [Form(batch=8), Form(batch=8, stages=True)], ids=["whole", "stages"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_calls_one_after_the_other(name, form, interpret):
    """Buffers that are kept from one call to the next hold nothing of it."""
    interpret(form)
    for steps, batch in ((3, 5), (2, 5), (4, 3), (3, 5)):
        agrees(name, steps, batch, 4, 6)


@pytest.mark.parametrize("name", ["lstm", "time_skip", "zoneout(gru, 0.1)"])
def test_packed_sequences(name, interpret):
    interpret(Form(batch=32))
    agrees(name, 4, 7, 5, 6, packed=True)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (1, 1, 1, 1)])
def test_nothing_and_almost_nothing(shape, interpret):
    interpret(Form())
    agrees("lstm", *shape)


def test_programs_that_never_meet_are_an_error(interpret, monkeypatch):
    """One program alone waits for the other as long as its patience lasts."""
    interpret(Form(batch=32, slices=2))
    monkeypatch.setattr("interpreted.AtOnce.__getitem__", lambda self, grid: self.function[(grid[0], 1)])
    monkeypatch.setattr("ostinato.backends.triton.whole.PATIENCE", 20)
    with pytest.raises(BackendError, match="did not meet in time"):
        agrees("elman", 2, 3, 4, 20)


def test_a_mean_over_more_sequences_than_a_program_has_is_refused(interpret):
    interpret(Form(batch=16))
    with pytest.raises(BackendError, match="a mean over a batch of 17 sequences"):
        agrees("batch_norm(lstm, 4)", 2, 17, 4, 5)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [(torch.float32, "on cpu, and this backend runs on a GPU"), (torch.float64, "runs on a GPU")],
)
def test_without_a_gpu_it_is_refused(dtype, words, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    layer = RNN("lstm", 3, 4, backend="triton", dtype=dtype)
    with pytest.raises(BackendError, match=words):
        layer(torch.zeros(2, 1, 3, dtype=dtype))


def test_float64_is_refused(interpret):
    interpret(Form())
    with pytest.raises(BackendError, match=r"float64, and this backend takes float32"):
        RNN("lstm", 3, 4, backend="triton", dtype=torch.float64)(torch.zeros(2, 1, 3, dtype=torch.float64))
