"""A compiled kernel and its layer's parameters, which it takes by address; the memory of its tapes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ostinato
from laws import needs_c
from measured import build, expected, inputs, measure, reference
from ostinato import RNN, ShapeError
from ostinato.backends.c import CBackend
from ostinato.backends.c.memory import Memory
from tolerances import assert_agree

pytestmark = needs_c
X = inputs(5, 3, 4, torch.float64)


def layer_after_a_call() -> RNN:
    """Its kernel is bound to where its parameters lie."""
    layer = build(ostinato.cells.lstm, 4, 4, "c")
    layer(X)
    return layer


def in_place(p: Tensor) -> None:
    p.data.mul_(-0.7)


def elsewhere(p: Tensor) -> None:
    p.data = p.data * 0.5


def transposed(p: Tensor) -> None:
    p.data = p.data.t()


def every_other_column(p: Tensor) -> None:
    p.data = torch.arange(32, dtype=torch.float64).view(4, 8)[:, ::2] / 32


@pytest.mark.parametrize("change", [in_place, elsewhere, transposed, every_other_column])
def test_it_sees_what_parameters_become(change: Callable[[Tensor], None]) -> None:
    layer = layer_after_a_call()
    for _ in range(2):
        change(layer.W_i_l0)
        change(layer.U_o_l0)
        assert_agree(measure(layer, X), expected(layer, X), torch.float64)
        layer.U_o_l0.data.add_(0.1)
        assert_agree(measure(layer, X), expected(layer, X), torch.float64)


@pytest.mark.parametrize(
    "other", [torch.zeros(3, 4).double(), torch.zeros(4, 4), torch.zeros(16).double()], ids=["rows", "dtype", "vector"]
)
def test_it_refuses_what_does_not_fit(other: Tensor) -> None:
    layer = layer_after_a_call()
    layer.U_f_l0.data = other
    with pytest.raises(ShapeError, match="parameter U_f"):
        layer(X)


def test_it_follows_conversions_and_copies() -> None:
    layer = layer_after_a_call()
    want = layer(X)[0].detach()
    copied = copy.deepcopy(layer)
    loaded = pickle.loads(pickle.dumps(layer))
    for other in (copied, loaded):
        assert torch.equal(other(X)[0], want)
        with torch.no_grad():
            other.b_i_l0.add_(1.0)
        assert not torch.equal(other(X)[0], want)
    assert torch.equal(layer(X)[0], want)
    for _ in range(3):
        single = layer.float()(X.float())[0]
        assert_agree({"output": single}, {"output": want}, torch.float32)
        layer.double()
    assert_agree(measure(layer, X), expected(layer, X), torch.float64)


def test_a_column_turned_into_a_row_is_refused() -> None:
    layer = build(ostinato.cells.gru, 1, 4, "c")
    layer(X[..., :1])
    layer.W_r_l0.data = layer.W_r_l0.data.t()
    with pytest.raises(ShapeError, match="parameter W_r"):
        layer(X[..., :1])


def test_it_lets_go_of_weights_that_are_gone() -> None:
    layer = build(ostinato.cells.lstm, 4, 4, "auto")
    layer(X)
    gone = weakref.ref(layer.W_i_l0.untyped_storage())
    layer.to(torch.bfloat16)(X.to(torch.bfloat16))
    gc.collect()
    assert gone() is None


def test_what_depends_on_parameters_only_is_not_rounded_by_autocast() -> None:
    @ostinato.cell(sizes={"A": ("H", "K"), "v": "K"})
    def own(p, x, h):
        return ostinato.tanh(p.W @ x + p.U @ h + p.A @ p.v)

    layer = build(own, 4, 4, "c", torch.float32)
    want, _ = layer(X.float())
    with torch.autocast("cpu", torch.float16):  # which leaves the kernel's own products alone
        found, _ = layer(X.float())
    assert torch.equal(found, want)


def test_parameters_may_move_between_forward_and_backward() -> None:
    """As torch does: backward reads what is there by then."""
    layer = layer_after_a_call()
    (want,) = torch.autograd.grad(layer(X)[0].sum(), [layer.W_g_l0])
    loss = layer(X)[0].sum()
    for p in layer.parameters():
        p.data = p.data.clone()
    (found,) = torch.autograd.grad(loss, [layer.W_g_l0])
    assert torch.equal(found, want)
    loss = layer(X)[0].sum()
    layer.U_g_l0.data = torch.zeros(2, 4, dtype=torch.float64)
    with pytest.raises((ShapeError, RuntimeError), match="forward"):
        loss.backward()


def test_a_tapes_memory_is_used_again() -> None:
    memory = Memory(limit=3 << 20)
    first = memory.empty(1 << 18, torch.float32)
    place, view = first.data_ptr(), first[5:]
    assert place % 64 == 0
    assert memory.waiting() == 0
    del first
    assert memory.waiting() == 0, "a view still needs it"
    del view
    assert memory.waiting() == 1 << 20
    again = memory.empty((1 << 17) - 100, torch.float64)
    assert again.data_ptr() == place
    assert again.shape == ((1 << 17) - 100,)
    other = memory.empty(1 << 18, torch.float32)
    assert other.data_ptr() != place
    other.fill_(1.0)
    again.fill_(2.0)
    assert float(other.sum()) == 1 << 18


def test_memory_that_waits_is_bounded() -> None:
    memory = Memory(limit=3 << 20)
    kept = [memory.empty(1 << 18, torch.float32) for _ in range(5)]
    del kept
    assert memory.waiting() == 3 << 20
    too_large = memory.empty(1 << 21, torch.float32)
    del too_large
    assert memory.waiting() == 3 << 20, "what cannot wait drives nothing out"
    small = memory.empty(10, torch.float32)
    del small
    assert memory.waiting() == 3 << 20, "C's allocator has that"


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm", "fastgrnn"])
def test_fixed_parameters_change_no_other_gradient(cell: str, threads: int) -> None:
    """Each parameter trained alone gets the gradient that it gets together with all others, which then get none."""
    torch.set_num_threads(threads)
    layer = build(ostinato.cells.catalogue()[cell], 9, 20, "c")
    layer(inputs(6, 5, 9, torch.float64))[0].square().sum().backward()
    whole = {name: p.grad for name, p in layer.named_parameters()}
    for name, alone in layer.named_parameters():
        for p in layer.parameters():
            p.grad = None
            p.requires_grad_(p is alone)
        layer(inputs(6, 5, 9, torch.float64))[0].square().sum().backward()
        found = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
        assert_agree(found, {name: whole[name]}, torch.float64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_compiles_although_its_parent_was_compiling_when_it_forked() -> None:
    """A thread that is gone in the child held the lock."""
    backend = CBackend()
    with backend._lock:
        child = os.fork()
        if not child:
            os._exit(0 if backend._lock.acquire(timeout=1) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17, 31, 33, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_rows_without_gradients(dtype: torch.dtype, width: int) -> None:
    """They are multiplied straight from the weights, whose rows may end within a vector; inf stays in its row."""
    layer = build(ostinato.cells.linear, width, width, "c", dtype=dtype)
    x = inputs(1, 2, width, dtype)
    with torch.no_grad():
        assert_agree({"output": layer(x)[0]}, {"output": reference(layer)(x.double())[0]}, dtype)
        layer.cell_parameters()["B"][-1, width // 2] = float("inf")
        x[0, 1, width // 2] = 0.5
        output, _ = layer(x)
    assert output[0, 1, -1] == float("inf")
    assert output[0, :, :-1].isfinite().all()
