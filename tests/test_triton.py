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
@pytest.mark.parametrize("form", [Form(batch=32, depth=16), Form(depth=16, resident=False)], ids=["kept", "read"])
def test_products_in_pieces(name, form, interpret):
    interpret(form)
    agrees(name, 2, 17, 18, 33)


@pytest.mark.parametrize("name", FEW)
def test_programs_that_meet(name, interpret):
    """Two groups of two programs, each with its part of the units."""
    interpret(Form(slices=2, depth=16))
    agrees(name, 3, 18, 5, 20)


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
    monkeypatch.setattr("ostinato.backends.triton.kernel._PATIENCE", 20)
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
