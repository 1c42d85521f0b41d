"""What stands between a layer and the kernels of a GPU, on one: backends, dtypes, streams, and that nobody waits.

The kernels themselves are held to `device_laws`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from measured import build, inputs, measure, ragged, states_for
from ostinato import parallel_apply
from ostinato.named import named
from tolerances import differences

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CELLS = ("lstm", "gru", "recurrent_dropout(lstm, 0.3)")


def layers(name: str, *backends: str, **options: Any) -> list[Any]:
    """The same layer on a GPU, by each of the backends."""
    made = [build(named(name), 5, 7, b, torch.float32, bidirectional=True, **options) for b in backends]
    return [layer.cuda() for layer in made]


def given(layer: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x and states."""
    return inputs(6, 4, 5, torch.float32).cuda(), tuple(s.cuda() for s in states_for(layer, 4, torch.float32))


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Within, it is an error to wait for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", CELLS)
def test_auto_is_triton(name: str) -> None:
    """Two layers in two directions: the same values and gradients as Triton's own, and as eager's to rounding."""
    auto, triton, eager = layers(name, "auto", "triton", "eager", num_layers=2)
    x, state = given(auto)
    found = measure(auto, x, state, ragged(6, 4))
    kernels = [v for place in auto._stack.places for v in place.step.kernels.values()]
    assert kernels and None not in kernels
    assert not differences(found, measure(triton, x, state, ragged(6, 4)), torch.float32)
    assert not differences(found, measure(eager, x, state, ragged(6, 4)), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", CELLS)
def test_autocast(name: str, dtype: torch.dtype) -> None:
    auto, eager = layers(name, "auto", "eager")
    x, state = given(auto)
    with torch.autocast("cuda", dtype):
        found = measure(auto, x, state)
    assert {key[2] for place in auto._stack.places for key in place.step.kernels} == {dtype}
    assert {v.dtype for v in found.values() if v is not None} == {torch.float32}
    lines = differences(found, measure(eager, x, state), dtype)
    assert [line for line in lines if ": is torch.float32" not in line] == []


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=["int64", "int32"])
def test_lengths_of_a_gpu(dtype: torch.dtype) -> None:
    (layer,) = layers("gru", "auto")
    x, state = given(layer)
    lengths = torch.tensor(ragged(6, 4), dtype=dtype, device="cuda")
    found, meant = measure(layer, x, state, lengths), measure(layer, x, state, ragged(6, 4))
    assert not differences(found, meant, torch.float32)


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", CELLS)
def test_nobody_waits_for_the_gpu(name: str, lengths: bool) -> None:
    """Forward and backward of a layer are told to the GPU, and the program goes on."""
    (layer,) = layers(name, "auto", num_layers=2)
    x, state = given(layer)
    ends = ragged(6, 4) if lengths else None
    for within in (None, nobody_waits()):  # the first call compiles
        with within or torch.enable_grad():
            output, _ = layer(x, state, ends)
            output.sum().backward()


@pytest.mark.parametrize("name", CELLS)
def test_independent_layers_at_the_same_time(name: str) -> None:
    first, second = layers(name, "auto", "auto")
    x, state = given(first)
    leaves = [*first.parameters(), *second.parameters()]
    found: list[list[Tensor]] = []
    for together in (False, True):
        torch.manual_seed(1)
        calls = [(x, state), (x.flip(0), state)]
        pairs = parallel_apply([first, second], calls) if together else [first(*calls[0]), second(*calls[1])]
        outputs = [output for output, _ in pairs]
        found.append([*outputs, *torch.autograd.grad([output.square().sum() for output in outputs], leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_in_a_cuda_graph() -> None:
    """The other stream is captured with the one that is, and joins it."""
    (layer,) = layers("lstm", "auto")
    x, state = given(layer)
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            meant = layer(x, state)[0].clone()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output, _ = layer(x, state)
        output.zero_()
        for _ in range(3):
            graph.replay()
    assert torch.equal(output, meant)


def test_on_the_users_own_streams() -> None:
    """What a layer gives is there for the stream that called it, and for no other that does not wait."""
    (layer,) = layers("gru", "auto")
    x, state = given(layer)
    meant = measure(layer, x, state[0:1])
    streams = [torch.cuda.Stream() for _ in range(3)]
    found = list[Any]()
    for stream in streams * 4:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found.append(measure(layer, x, state[0:1]))
    torch.cuda.synchronize()
    for one in found:
        assert not differences(one, meant, torch.float32)
