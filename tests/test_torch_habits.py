"""What torch users do with any module, and what it may not do to them: crash, cut gradients off, give other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.rnn import pack_padded_sequence

from laws import BACKENDS, in_turn
from measured import build, inputs, numbers
from ostinato import RNN, CellError, ShapeError, cells

DOUBLE = torch.float64
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    # torch itself, where it traces a derivative, and where it sees the eager backend through
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),
    pytest.mark.filterwarnings("ignore:.*lru_cache"),
]


def negated(*shape: int) -> Tensor:
    """Numbers whose sign torch has not applied yet; rows of one value lie in one piece all the same."""
    found = torch.complex(numbers("real", *shape), numbers("imaginary", *shape)).conj().imag
    assert found.is_neg()
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_negation_that_is_put_off_is_done(backend: str) -> None:
    """In x, a state, a parameter, and the gradient that backward is given."""
    layer = build(cells.elman, 1, 1, backend)
    x, h, g = negated(5, 3, 1), negated(1, 3, 1), negated(5, 3, 1)

    def run(layer: RNN, x: Tensor, h: Tensor, g: Tensor) -> list[Tensor]:
        output, _ = layer(x, h)
        return [output, *grad(output, list(layer.parameters()), g)]

    bias = negated(1)
    layer.b_l0 = nn.Parameter(bias)
    found = run(layer, x, h, g)
    layer.b_l0 = nn.Parameter(bias.resolve_neg())
    for ours, meant in zip(found, run(layer, x.resolve_neg(), h.resolve_neg(), g.resolve_neg()), strict=True):
        assert torch.equal(ours, meant)


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_tensors_may_be_kept_rounded(backend: str) -> None:
    """Half the memory by torch.autograd.graph.saved_tensors_hooks, at half the precision."""
    layer = build(cells.lstm, 5, 7, backend, dtype=torch.float32)
    x = inputs(6, 20, 5, torch.float32).requires_grad_()
    meant = grad(layer(x)[0].sum(), [x, *layer.parameters()])
    for kind, apart in ((torch.float16, 1e-2), (torch.bfloat16, 6e-2)):
        with saved_tensors_hooks(lambda t, kind=kind: (t.to(kind), t.dtype), lambda kept: kept[0].to(kept[1])):
            output, _ = layer(x)
        for ours, other in zip(grad(output.sum(), [x, *layer.parameters()]), meant, strict=True):
            assert (ours - other).norm() < apart * other.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_tensors_that_were_spoiled_crash_nothing(backend: str) -> None:
    layer = build(cells.lstm, 5, 7, backend)
    x = inputs(6, 20, 5, DOUBLE).requires_grad_()
    for value in (float("nan"), float("inf"), -3.0, 1e300):
        with saved_tensors_hooks(lambda t: t, lambda t, value=value: torch.full_like(t, value)):
            grad(layer(x)[0].sum(), x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_gradients_at_once(backend: str) -> None:
    """``is_grads_batched=True``, vmap over backward, and the vectorized Jacobian of torch.autograd.functional."""
    layer = build(cells.lstm, 5, 7, backend, num_layers=2, bidirectional=True)
    x = inputs(4, 3, 5, DOUBLE).requires_grad_()
    wanted = [x, *layer.parameters()]
    output, (_, c) = layer(x, lengths=[4, 0, 2])
    for value in (output, c):
        many = numbers("many", 3, *value.shape)
        one_by_one = [grad(value, wanted, g, retain_graph=True, materialize_grads=True) for g in many]
        meant = [torch.stack(column) for column in zip(*one_by_one, strict=True)]
        batched = grad(value, wanted, many, retain_graph=True, is_grads_batched=True, materialize_grads=True)
        mapped = torch.vmap(lambda g, value=value: grad(value, wanted, g, retain_graph=True, materialize_grads=True))(
            many
        )
        for ours, other, each in zip(batched, mapped, meant, strict=True):
            torch.testing.assert_close(ours, each, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(other, each, rtol=1e-10, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian
    small = inputs(2, 1, 5, DOUBLE)
    torch.testing.assert_close(*(jacobian(lambda v: layer(v)[0], small, vectorize=v) for v in (True, False)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_a_trace_has_gradients_and_takes_other_shapes(with_gradients: bool, backend: str) -> None:
    layer = build(cells.lstm, 5, 7, backend, num_layers=2, bidirectional=True)
    with torch.set_grad_enabled(with_gradients):
        traced: Any = torch.jit.trace(layer, (inputs(4, 3, 5, DOUBLE),))
    x = inputs(7, 2, 5, DOUBLE).requires_grad_()

    def run(layer: Any) -> list[Tensor]:
        output, _ = layer(x)
        return [output, *grad(output.square().sum(), [x, layer.U_f_l1_reverse])]

    for ours, other in zip(run(traced), run(layer), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


TRANSFORMS = [pytest.param(name, id=name) for name in ("vmap", "grad", "jvp", "vmap of grad")]


@pytest.mark.parametrize(("transform", "backend"), in_turn(TRANSFORMS, BACKENDS))
def test_a_transform_within_a_compiled_function(transform: str, backend: str) -> None:
    layer = build(cells.lstm, 5, 7, backend)

    def total(x: Tensor) -> Tensor:
        return layer(x)[0].square().sum()

    transforms: dict[str, Callable[[Tensor], Any]] = {
        "vmap": lambda x: torch.vmap(lambda v: layer(v)[0])(torch.stack((x, 2 * x))),
        "grad": torch.func.grad(total),
        "jvp": lambda x: torch.func.jvp(lambda v: layer(v)[0], (x,), (x,))[1],
        "vmap of grad": lambda x: torch.vmap(torch.func.grad(total))(torch.stack((x, 2 * x))),
    }
    torch._dynamo.reset()
    compiled = torch.compile(transforms[transform], backend="aot_eager", fullgraph=True)
    x = inputs(2, 3, 5, DOUBLE)
    found = compiled(x)
    assert found.any()
    torch.testing.assert_close(found, transforms[transform](x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_linearize(backend: str) -> None:
    layer, x = build(cells.lstm, 5, 7, backend), inputs(4, 3, 5, DOUBLE)
    _, pushed = torch.func.linearize(lambda v: layer(v)[0], x)
    torch.testing.assert_close(pushed(x), torch.func.jvp(lambda v: layer(v)[0], (x,), (x,))[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}, {"return_sequences": False}])
def test_an_output_may_be_changed_in_place(options: dict[str, Any], backend: str) -> None:
    """As by nn.ReLU(inplace=True) behind the layer. The states stay what they are."""
    layer = build(cells.gru, 5, 7, backend, **options)
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            output, h = layer(inputs(4, 3, 5, DOUBLE))
            before, rectified = h.detach().clone(), output.relu()
            output.relu_()
        assert torch.equal(output, rectified) and torch.equal(h, before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_state_that_was_returned_may_be_changed_in_place(layers: int, backend: str) -> None:
    """What a stateful layer keeps is its own."""
    layer = build(cells.lstm, 5, 7, backend, num_layers=layers, stateful=True)
    x = inputs(6, 3, 5, DOUBLE)
    meant, _ = layer(x)
    layer.reset_state()
    first, state = layer(x[:2])
    with torch.no_grad():
        for part in state:
            part.zero_()
    torch.testing.assert_close(torch.cat((first, layer(x[2:])[0])), meant)


SPARSE = torch.eye(3).to_sparse()
WRONG: list[tuple[str, Callable[[RNN, Tensor], Any], list[str]]] = [
    ("sparse", lambda layer, x: layer(x.to_sparse()), ["sparse_coo", "to_dense()"]),
    (
        "nested",
        lambda layer, x: layer(torch.nested.as_nested_tensor(list(x))),
        ["nested", "to_padded_tensor", "lengths"],
    ),
    (
        "jagged",
        lambda layer, x: layer(torch.nested.as_nested_tensor(list(x), layout=torch.jagged)),
        ["nested", "to_padded_tensor", "lengths"],
    ),
    ("sparse state", lambda layer, x: layer(x, torch.zeros(1, 3, 7, dtype=DOUBLE).to_sparse()), ["state h", "sparse"]),
    ("huge length", lambda layer, x: layer(x, lengths=[2**70, 1, 1]), ["lengths[0] = 1180591", "T = 4"]),
    ("sparse lengths", lambda layer, x: layer(x, lengths=torch.tensor([1, 2, 3]).to_sparse()), ["sparse_coo", "dense"]),
    ("meta lengths", lambda layer, x: layer(x, lengths=torch.tensor([1, 2, 3]).to("meta")), ["meta", "numbers"]),
    (
        "vmap over lengths",
        lambda layer, x: torch.vmap(lambda n: layer(x, lengths=n)[0])(torch.ones(2, 3, dtype=torch.int64)),
        ["vmap runs over lengths", "one batch"],
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("what", "call", "words"), WRONG, ids=[w[0] for w in WRONG])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_another_kind_are_refused(what: str, call: Any, words: list[str], backend: str) -> None:
    layer, x = build(cells.gru, 5, 7, backend), inputs(4, 3, 5, DOUBLE)
    with pytest.raises(ShapeError) as caught:
        call(layer, x)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_parameters_that_a_parametrization_makes_cannot_be_drawn() -> None:
    """Drawn into what it gives, they would be gone at the next call, and nothing said."""
    layer = RNN("gru", 3, 4)
    nn.utils.parametrizations.orthogonal(layer, "U_n_l0")
    before = layer.U_z_l0.clone()
    with pytest.raises(CellError, match="U_n_l0 is made by a parametrization.*remove it first"):
        layer.reset_parameters()
    assert torch.equal(layer.U_z_l0, before)
    nn.utils.parametrize.remove_parametrizations(layer, "U_n_l0")
    layer.reset_parameters()
    assert not torch.equal(layer.U_z_l0, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_stay_on_the_cpu_whatever_the_default_device_is(backend: str) -> None:
    """As under torch.set_default_device("cuda"), for which "meta" stands here; rows are packed where states differ."""
    x, lengths = torch.randn(4, 3, 5), [4, 2, 1]
    layer = RNN("gru", 5, 6, 2, bidirectional=True, backend=backend)
    rows = pack_padded_sequence(x, torch.tensor(lengths))
    expected, packed = layer(x, lengths=lengths)[0], layer(rows)[0]
    last = layer(x, lengths=lengths, return_sequences=False)[0]
    with torch.device("meta"):
        assert torch.equal(layer(x, lengths=lengths)[0], expected)
        assert torch.equal(layer(rows)[0].data, packed.data)
        assert torch.equal(layer(x, lengths=lengths, return_sequences=False)[0], last)
