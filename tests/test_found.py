"""Bugs that were found by reading, each a law that failed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, grad
from torch.nn.utils.rnn import pack_padded_sequence

from measured import fill
from ostinato import RNN, ShapeError, cell, log, sigmoid, tanh


@pytest.mark.parametrize("backend", ["eager", "c"])
def test_a_layer_used_twice_has_the_same_gradient_under_create_graph(backend: str) -> None:
    """The path through the first use belongs to the engine, not to the second use's recomputation."""
    layer = fill(RNN("gru", 4, 4, backend=backend, dtype=torch.float64))
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    found = [grad(layer(layer(x)[0])[0].sum(), layer.W_r_l0, create_graph=again)[0] for again in (False, True)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_lengths_with_strides_and_lengths_changed_later() -> None:
    layer = fill(RNN("lstm", 4, 4, backend="c"))
    x = torch.randn(5, 3, 4, requires_grad=True)
    spread = torch.tensor([5, 0, 4, 0, 3, 0])[::2]
    meant = layer(x, lengths=[5, 4, 3])[0]
    output = layer(x, lengths=spread)[0]
    assert torch.equal(output, meant)
    (expected,) = grad(meant.sum(), x)
    spread.fill_(100000)
    (found,) = grad(output.sum(), x)
    assert torch.equal(found, expected)
    assert torch.equal(layer(x, lengths=torch.tensor(3).expand(3))[0], layer(x, lengths=[3, 3, 3])[0])


@pytest.mark.parametrize("batch", [4, 17, 40])
@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "unsorted"])
def test_a_packed_sequence_keeps_its_order_whatever_ties_it_has(batch: int, sort: bool) -> None:
    from ostinato import LSTM

    ours, theirs = LSTM(4, 5), nn.LSTM(4, 5)
    ours.load_state_dict(theirs.state_dict())
    lengths = sorted(torch.randint(1, 5, (batch,)).tolist(), reverse=True) if sort else [1, 3, 2, 3] * 10
    packed = pack_padded_sequence(torch.randn(6, batch, 4), lengths[:batch], enforce_sorted=sort)
    (a, (h, _)), (b, (k, _)) = ours(packed), theirs(packed)
    torch.testing.assert_close(a.data, b.data)
    torch.testing.assert_close(h, k)


def test_backward_through_a_graph_that_was_captured_for_inference() -> None:
    layer = fill(RNN("lstm", 8, 32, backend="c"))
    x = torch.randn(6, 2, 8, requires_grad=True)
    with torch.no_grad():
        captured = torch.export.export(layer, (x,)).module()
    (found,) = grad(captured(x)[0].sum(), x)
    torch.testing.assert_close(found, grad(layer(x)[0].sum(), x)[0])


def test_cells_that_share_a_kernel_may_name_their_parameters_in_another_order() -> None:
    @cell
    def late(p, x, h):
        return tanh(p.W @ x + p.b + p.U @ h)

    @cell
    def last(p, x, h):
        return tanh(p.W @ x + p.U @ h + p.b)

    x = torch.randn(3, 2, 4)
    for drawn in (late, last):
        layer = fill(RNN(drawn, 4, 4, backend="c"))
        meant = RNN.from_spec({**layer.spec(), "backend": "eager"})
        meant.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(x)[0], meant(x)[0])


def test_a_parameter_replaced_by_one_that_does_not_fit_is_refused() -> None:
    layer = RNN("elman", 4, 4, backend="c")
    layer.b_l0 = nn.Parameter(torch.zeros(1))
    with pytest.raises(ShapeError, match=r"parameter b .*\[1\].*\[4\]"):
        layer(torch.zeros(2, 2, 4))


def test_forward_mode_carries_its_tangent() -> None:
    layer = fill(RNN("elman", 3, 4, backend="c")).requires_grad_(False)
    x = torch.randn(5, 2, 3)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, torch.ones_like(x)))[0]).tangent
    meant = torch.func.jvp(lambda v: layer(v)[0], (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(found, meant)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_arguments_reach_zero(dtype: torch.dtype) -> None:
    @cell(sizes={"x": "H"})
    def far(p, x, h):
        return log(sigmoid(x)) + 0 * h

    x = torch.tensor([[[-float("inf"), -1000.0, -50.0, 3.0]]], dtype=dtype)
    found, meant = (RNN(far, 4, 4, dtype=dtype, backend=b)(x)[0] for b in ("c", "eager"))
    torch.testing.assert_close(found, meant)
