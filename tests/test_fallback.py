"""A backend that refuses, cannot compile, or fails where a kernel runs: "auto" goes on with eager, others raise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor

import ostinato.runtime
from laws import needs_c
from measured import build, expected, inputs, measure, ragged, results, states_for
from ostinato import BackendError, CompileError, LaunchError, StalledError
from ostinato.backends.c import CBackend
from ostinato.errors import TooLargeError
from ostinato.named import named
from ostinato.runtime.operator import step_of
from tolerances import assert_agree

CHOOSE = sys.modules["ostinato.runtime.choose"]  # the package has a function of this name
pytestmark = [needs_c, pytest.mark.usefixtures("quickly_compiled")]


class Fails:
    """The C backend, but for where it is told to fail."""

    name, title = "c", "C"

    def __init__(self, at: str, error: Callable[[], Exception]) -> None:
        self.at, self.error, self.calls = at, error, 0
        self.own = CBackend()

    def here(self, at: str) -> None:
        if at == self.at:
            self.calls += 1
            raise self.error()

    def refuses(self, plan: Any, device: torch.device, dtype: torch.dtype) -> str | None:
        return "it does not like it" if self.at == "refuses" else self.own.refuses(plan, device, dtype)

    def compile(self, plan: Any, dtype: torch.dtype, sizes: Any) -> Any:
        self.here("compile")
        return FailingKernel(self, self.own.compile(plan, dtype, sizes))


class FailingKernel:
    def __init__(self, backend: Fails, kernel: Any) -> None:
        self.backend, self.kernel, self.narrow = backend, kernel, kernel.narrow

    def bind(self, params: Any) -> Any:
        return FailingBound(self.backend, self.kernel.bind(params))


class FailingBound:
    def __init__(self, backend: Fails, bound: Any) -> None:
        self.backend, self.bound = backend, bound

    def same(self, params: Any) -> bool:
        return self.bound.same(params)

    def again(self, params: Any) -> Any:
        return FailingBound(self.backend, self.bound.again(params))

    def forward(self, inputs: Any, training: bool) -> Any:
        found = self.bound.forward(inputs, training)
        self.backend.here("forward")  # behind all that it does: what it was given must be whole
        return found

    def backward(self, tape: Tensor, *rest: Any) -> Any:
        found = self.bound.backward(tape, *rest)
        self.backend.here("backward")
        return found


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fails]]:
    """A backend that fails, in the place of the C backend."""

    def use(at: str, error: Callable[[], Exception] = lambda: LaunchError("no room; take less")) -> Fails:
        backend = Fails(at, error)
        monkeypatch.setattr(CHOOSE, "_C", backend)
        return backend

    for name in ("_said", "_failed"):
        monkeypatch.setattr(CHOOSE, name, set())
    monkeypatch.delenv("OSTINATO_BACKEND", raising=False)
    step_of.cache_clear()  # the operator's steps have kernels of other tests
    yield use
    step_of.cache_clear()


def short() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "eager backend" in r.getMessage()]


@pytest.mark.filterwarnings("ignore:Ostinato runs on the slow eager backend")
@pytest.mark.parametrize("name", ["lstm", "gru", "recurrent_dropout(lstm, 0.3)", "batch_norm(elman, 9)"])
@pytest.mark.parametrize("at", ["refuses", "compile", "forward", "backward"])
def test_auto_gives_what_eager_gives(name: str, at: str, failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    """For the very call in which it fails, random masks and running statistics too; said once, tried once."""
    backend = failing(at)
    cell = named(name)
    layer = build(cell, 3, 4, "auto", bidirectional=True)
    twin = build(cell, 3, 4, "eager", bidirectional=True)
    x, state, lengths = inputs(5, 4, 3, torch.float64), states_for(layer, 4, torch.float64), ragged(5, 4)
    with caplog.at_level(logging.INFO, "ostinato"):
        for _ in range(2):
            assert_agree(measure(layer, x, state, lengths), measure(twin, x, state, lengths), torch.float64)
            assert all(torch.allclose(a, b) for a, b in zip(layer.buffers(), twin.buffers(), strict=True))
    if at != "compile":  # which warns
        assert len(said(caplog)) == 1
    assert backend.calls <= 2  # both directions ran forward before the first ran backward


@pytest.mark.parametrize("at", ["refuses", "compile", "forward", "backward"])
@pytest.mark.parametrize("error", [lambda: LaunchError("no room; take less"), short], ids=["launch", "memory"])
def test_a_backend_that_is_asked_for_says_why(at: str, error: Any, failing: Any) -> None:
    failing(at, error)
    layer = build(named("gru"), 3, 4, "c")
    with pytest.raises(BackendError, match=r"does not like it|no room; take less|out of memory.*; use smaller"):
        measure(layer, inputs(5, 4, 3, torch.float64))


@pytest.mark.parametrize("at", ["forward", "backward"])
def test_what_is_not_to_be_used_is_never_passed_over(at: str, failing: Any) -> None:
    """What an earlier call gave may be wrong: going on would hide it."""
    failing(at, lambda: StalledError("did not meet"))
    with pytest.raises(StalledError, match="did not meet"):
        measure(build(named("gru"), 3, 4, "auto"), inputs(5, 4, 3, torch.float64))


@pytest.mark.parametrize("error", [lambda: LaunchError("no room; take less"), short], ids=["launch", "memory"])
def test_what_fails_while_a_graph_is_recorded_is_said(error: Any, failing: Any, monkeypatch: Any) -> None:
    """It may only want a call before: eager would be recorded for good, and the kernel be taken no more."""
    backend = failing("forward", error)
    layer, x = build(named("gru"), 3, 4, "auto"), inputs(5, 4, 3, torch.float64)
    monkeypatch.setattr(CHOOSE, "captured", lambda device: True)
    with pytest.raises(LaunchError, match="no room|too little memory"):
        layer(x)
    backend.at = ""
    monkeypatch.setattr(CHOOSE, "captured", lambda device: False)
    layer(x)
    assert not CHOOSE._failed


def test_the_environment_asks_too(failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failing("forward")
    monkeypatch.setenv("OSTINATO_BACKEND", "c")
    with pytest.raises(LaunchError, match="no room"):
        build(named("gru"), 3, 4, "auto")(inputs(5, 4, 3, torch.float64))


def test_what_failed_is_not_tried_again_by_an_equal_layer(failing: Any) -> None:
    backend = failing("forward")
    for _ in range(3):
        layer = build(named("gru"), 3, 4, "auto")
        for _ in range(2):
            layer(inputs(5, 4, 3, torch.float64))
    assert backend.calls == 1


@pytest.mark.parametrize("error", [short, lambda: TooLargeError("too many")], ids=["memory", "size"])
def test_the_next_call_may_be_another(error: Any, failing: Any, caplog: pytest.LogCaptureFixture) -> None:
    """There may be memory, or it may be smaller."""
    backend = failing("forward", error)
    layer, x = build(named("gru"), 3, 4, "auto"), inputs(5, 4, 3, torch.float64)
    with caplog.at_level(logging.INFO, "ostinato"):
        for _ in range(3):
            assert_agree(measure(layer, x), expected(layer, x), torch.float64)
    assert backend.calls == 3 and len(said(caplog)) == 1
    backend.at = ""
    assert_agree(measure(layer, x), expected(layer, x), torch.float64)
    assert backend.calls == 3


@pytest.mark.parametrize("error", [lambda: LaunchError("no room; take less"), short], ids=["launch", "memory"])
def test_backward_twice(error: Any, failing: Any) -> None:
    """The tape may be half overwritten where backward fails; what it is computed from is not."""
    failing("backward", error)
    layer, x = build(named("lstm"), 3, 4, "auto"), inputs(5, 4, 3, torch.float64)
    loss = layer(x)[0].square().sum()
    sources = list(layer.parameters())
    found = [torch.autograd.grad(loss, sources, retain_graph=True) for _ in range(2)]
    layer.backend = "eager"
    meant = torch.autograd.grad(layer(x)[0].square().sum(), sources)
    for grads in found:
        by_name, wanted = ({str(k): g for k, g in enumerate(values)} for values in (grads, meant))
        assert_agree(by_name, wanted, torch.float64)


def test_a_stream_of_steps_goes_on(failing: Any) -> None:
    """The short way of a call like the last one."""
    backend = failing("")
    layer, x = build(named("gru"), 3, 4, "auto"), inputs(6, 2, 3, torch.float64)
    with torch.no_grad():
        meant = layer(x)[0]
        state, outputs = torch.zeros(1, 2, 4, dtype=torch.float64), list[Tensor]()
        for t in range(6):
            backend.at = "forward" if t == 3 else ""
            output, state = layer(x[t : t + 1], state)
            outputs.append(output)
    assert_agree({"output": torch.cat(outputs)}, {"output": meant}, torch.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_narrow_tensors(dtype: torch.dtype, failing: Any) -> None:
    failing("forward")
    layer = build(named("gru"), 3, 4, "auto", torch.float32).to(dtype)
    x = inputs(5, 2, 3, dtype)
    for _ in range(2):
        output, _ = layer(x)
        meant = expected(layer, x)["output"]
        assert output.dtype == dtype and meant is not None
        assert (output.double() - meant).abs().max() < 0.05


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("at", ["forward", "backward"])
@pytest.mark.parametrize("error", [lambda: LaunchError("no room; take less"), short], ids=["launch", "memory"])
def test_a_captured_graph_too(at: str, error: Any, failing: Any) -> None:
    """Its tape is none of a kernel's then, and no kernel reads it."""
    torch._dynamo.reset()
    backend = failing(at, error)
    layer, x = build(named("lstm"), 3, 4, "auto"), inputs(5, 4, 3, torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False)
    for _ in range(2):
        found = results(compiled, x)
        assert_agree(found, results(build(named("lstm"), 3, 4, "eager"), x), torch.float64)
    assert backend.calls == 1
    layer.backend = "c"
    torch._dynamo.reset()
    with pytest.raises(BackendError, match=r"no room|out of memory"):
        results(torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False), x)


@pytest.mark.parametrize(
    ("backend", "environment", "device", "taken"),
    [
        ("auto", None, "cpu", "c"),
        ("auto", None, "cuda", "triton"),
        ("auto", "auto", "cuda", "triton"),
        ("auto", "triton", "cpu", "triton"),
        ("auto", "eager", "cuda", "eager"),
        ("c", None, "cpu", "c"),
        ("triton", None, "cpu", "triton"),
        ("triton", "eager", "cuda", "triton"),
        ("eager", "c", "cpu", "eager"),
    ],
)
def test_which_backend_is_taken(
    backend: str, environment: str | None, device: str, taken: str, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "auto" takes Triton on a GPU and never C, C on the CPU and never Triton, its interpreter or not."""
    kernels = {name: object() for name in ("c", "triton")}

    class Takes:
        title = "T"

        def __init__(self, name: str) -> None:
            self.name = name

        def refuses(self, plan: Any, device: torch.device, dtype: torch.dtype) -> None:
            assert (device.type == "cuda") <= (self.name == "triton")

        def compile(self, plan: Any, dtype: torch.dtype, sizes: Any) -> Any:
            return kernels[self.name]

    monkeypatch.setattr(CHOOSE, "_C", Takes("c"))
    monkeypatch.setattr(CHOOSE, "_TRITON", Takes("triton"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if environment:
        monkeypatch.setenv("OSTINATO_BACKEND", environment)
    step = build(named("gru"), 3, 4, "auto")._stack.places[0].step
    found = ostinato.runtime.choose(step, backend, torch.device(device), torch.float32)
    assert found is kernels.get(taken)


@pytest.mark.parametrize("error", [CompileError("ptxas is missing; install it"), short()], ids=["compile", "memory"])
def test_auto_on_a_gpu_without_a_kernel(
    error: Exception, failing: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing("")
    backend = Fails("compile", lambda: error)
    monkeypatch.setattr(CHOOSE, "_TRITON", backend)
    monkeypatch.setattr(backend, "refuses", lambda *_: None)
    step = build(named("gru"), 3, 4, "auto")._stack.places[0].step
    with caplog.at_level(logging.INFO, "ostinato"):
        for _ in range(2):
            assert ostinato.runtime.choose(step, "auto", torch.device("cuda"), torch.float32) is None
    assert len(said(caplog)) == 1 and str(error) in said(caplog)[0] and backend.calls == 1
    with pytest.raises(BackendError, match=str(error)[:12]):
        ostinato.runtime.choose(step, "triton", torch.device("cuda"), torch.float32)
