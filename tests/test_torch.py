"""What others in this ecosystem expect: autocast, torch.func, checkpointing, hooks, DDP."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from laws import BACKENDS, CELLS
from measured import build, flat, inputs, numbers, reference, results, states_for
from tolerances import assert_agree, differences, smooth

# ---- autocast


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("cell", CELLS)
def test_autocast_keeps_states_in_the_weights_dtype(cell: Any, dtype: torch.dtype, backend: str) -> None:
    """Half-precision activations come in; sums and states are float32, where a gate's small changes survive."""
    layer = build(cell, 5, 7, backend, torch.float32, bidirectional=True)
    x, state = inputs(4, 3, 5, torch.float32), states_for(layer, 3, torch.float32)
    below = nn.Linear(5, 5)
    with torch.autocast("cpu", dtype):
        narrow = below(x)
        assert narrow.dtype == dtype
        found = results(layer, x, state[0] if len(state) == 1 else state)
        output, _ = layer(narrow)
    twin = reference(layer)
    wide = tuple(s.double() for s in state)
    rounded = backend == "c" and dtype == torch.bfloat16  # what it multiplies, on a processor that has such products
    meant = results(twin, x.double(), wide[0] if len(wide) == 1 else wide)
    outputs = {"output": reference(layer)(narrow.double())[0]}
    for got, expected in ((found, meant), ({"output": output}, outputs)):
        assert {v.dtype for v in got.values()} == {torch.float32}
        if rounded:
            got, expected = smooth(got, cell.program()), smooth(expected, cell.program())
        lines = differences(got, expected, torch.bfloat16 if rounded else torch.float32)
        assert [line for line in lines if ": is torch.float32" not in line] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_through_autocast(backend: str) -> None:
    """They come back in the dtype of what they belong to."""
    layer = build(ostinato.cells.gru, 5, 7, backend, torch.float32)
    x = inputs(4, 3, 5, torch.float32).bfloat16().requires_grad_()
    state = states_for(layer, 3, torch.float32)[0].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output, final = layer(x, state)
    assert output.dtype == final.dtype == torch.float32
    gradients = torch.autograd.grad(output.sum() + final.sum(), [x, state, *layer.parameters()])
    assert [g.dtype for g in gradients] == [torch.bfloat16] * 2 + [torch.float32] * 9
    assert all(g.isfinite().all() and g.any() for g in gradients)


# ---- torch.func


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_functional_call_and_grad(cell: Any, backend: str) -> None:
    layer = build(cell, 3, 4, backend)
    x = inputs(5, 2, 3, torch.float64)
    weights = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, values, (x,))[0].square().sum()

    found = torch.func.grad(loss)(weights)
    meant = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    assert_agree(
        {f"grad {n}": g for n, g in found.items()},
        {f"grad {n}": g for n, g in zip(weights, meant, strict=True)},
        torch.float64,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_each_example(backend: str) -> None:
    """vmap over grad: what opacus and the like do."""
    layer = build(ostinato.cells.gru, 3, 4, backend)
    x = inputs(5, 6, 3, torch.float64)
    weights = {n: p.detach() for n, p in layer.named_parameters()}

    def loss(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(layer, values, (one[:, None],))[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    for b in range(6):
        meant = torch.autograd.grad(layer(x[:, b : b + 1])[0].square().sum(), list(layer.parameters()))
        for g, one in zip(found.values(), meant, strict=True):
            torch.testing.assert_close(g[b], one)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ensemble_by_vmap(backend: str) -> None:
    """Many sets of weights at once."""
    layers = [build(ostinato.cells.elman, 3, 4, backend) for _ in range(3)]
    for k, layer in enumerate(layers):
        with torch.no_grad():
            for p in layer.parameters():
                p.mul_(1 + 0.1 * k)
    weights, buffers = torch.func.stack_module_state(layers)
    x = inputs(5, 2, 3, torch.float64)

    def call(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layers[0], (values, buffers), (x,))[0]

    found = torch.func.vmap(call)(weights)
    for k, layer in enumerate(layers):
        torch.testing.assert_close(found[k], layer(x)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_jacobians_and_forward_mode(backend: str) -> None:
    """jacrev, jacfwd and jvp of a step agree with autograd's Jacobian."""
    layer = build(ostinato.cells.gru, 3, 4, backend)
    x = inputs(1, 1, 3, torch.float64)
    h = states_for(layer, 1, torch.float64)[0]

    def step(state: Tensor) -> Tensor:
        return layer(x, state)[1]

    meant = torch.autograd.functional.jacobian(step, h)
    torch.testing.assert_close(torch.func.jacrev(step)(h), meant)
    torch.testing.assert_close(torch.func.jacfwd(step)(h), meant)
    direction = numbers("direction", *h.shape)
    along = torch.func.jvp(step, (h,), (direction,))[1]
    torch.testing.assert_close(along, (meant * direction).sum((3, 4, 5)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_of_autograd_works_or_says_why_not(backend: str) -> None:
    """torch.autograd.forward_ad: the right tangent, or an error; never a tangent that is lost."""
    import torch.autograd.forward_ad as forward

    layer = build(ostinato.cells.gru, 3, 4, backend)
    x = inputs(3, 2, 3, torch.float64)
    direction = numbers("direction", 3, 2, 3)
    meant = torch.func.jvp(lambda v: build(ostinato.cells.gru, 3, 4, "eager")(v)[0], (x,), (direction,))[1]
    with forward.dual_level():
        try:
            _, found = forward.unpack_dual(layer(forward.make_dual(x, direction))[0])
        except RuntimeError as refusal:
            assert "forward" in str(refusal).lower() or "jvp" in str(refusal).lower()
        else:
            assert found is not None
            torch.testing.assert_close(found, meant)


# ---- the rest of the ecosystem


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpointing_gives_the_same_gradients(backend: str) -> None:
    from torch.utils.checkpoint import checkpoint

    layer = build(ostinato.cells.lstm, 5, 7, backend)
    for again in (True, False):
        layer.zero_grad()
        x = inputs(4, 3, 5, torch.float64).requires_grad_()
        output, _ = checkpoint(layer, x, use_reentrant=again)
        output.square().sum().backward()
        gradients = [x.grad, *(p.grad for p in layer.parameters())]
        meant = torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])
        for ours, one in zip(gradients, meant, strict=True):
            torch.testing.assert_close(ours, one)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_see_the_gradients(backend: str) -> None:
    """On tensors and on modules, as gradient clipping and DDP use them."""
    layer = build(ostinato.cells.gru, 3, 4, backend)
    seen: list[str] = []
    for name, p in layer.named_parameters():
        p.register_post_accumulate_grad_hook(lambda _, n=name: seen.append(n))
    layer.register_full_backward_hook(lambda *_: seen.append("module"))
    x = inputs(3, 2, 3, torch.float64).requires_grad_()
    output, _ = layer(x)
    output.register_hook(lambda g: g * 2)
    output.sum().backward()
    assert sorted(seen) == sorted([*(n for n, _ in layer.named_parameters()), "module"])
    assert x.grad is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_add_up(backend: str) -> None:
    """Over calls of one layer in one graph, and over backward passes."""
    layer = build(ostinato.cells.lstm, 3, 4, backend)
    a, b = inputs(3, 2, 3, torch.float64), numbers("other", 4, 5, 3)
    first = torch.autograd.grad(layer(a)[0].sum(), list(layer.parameters()))
    second = torch.autograd.grad(layer(b)[0].sum(), list(layer.parameters()))
    (layer(a)[0].sum() + layer(b)[0].sum()).backward()
    layer(a)[0].sum().backward()
    for p, one, other in zip(layer.parameters(), first, second, strict=True):
        torch.testing.assert_close(p.grad, 2 * one + other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_anomaly_detection_and_deepcopy_of_outputs(backend: str) -> None:
    layer = build(ostinato.cells.gru, 3, 4, backend)
    x = inputs(3, 2, 3, torch.float64)
    with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is slow
        layer(x)[0].sum().backward()
    assert copy.deepcopy(layer(x)[0].detach()).shape == (3, 2, 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_given_back(backend: str) -> None:
    """Nothing holds a tape once its output is gone, nor a graph once it is walked."""
    import gc
    import weakref

    layer = build(ostinato.cells.lstm, 3, 4, backend)
    x = inputs(3, 2, 3, torch.float64).requires_grad_()
    output, state = layer(x)
    watch = [weakref.ref(output), *(weakref.ref(s) for s in flat(state))]
    output.sum().backward()
    del output, state
    gc.collect()
    assert [w() for w in watch] == [None] * 3


def test_distributed_data_parallel(tmp_path: Any, monkeypatch: Any) -> None:
    """One process is enough to meet what DDP asks of a module."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # the machine's own name may not be known to any server
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        plain = build(ostinato.cells.gru, 3, 4, "auto")
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
        x = inputs(3, 2, 3, torch.float64)
        wrapped(x)[0].sum().backward()
        meant = torch.autograd.grad(plain(x)[0].sum(), list(plain.parameters()))
        for p, one in zip(wrapped.parameters(), meant, strict=True):
            torch.testing.assert_close(p.grad, one)
    finally:
        torch.distributed.destroy_process_group()
