"""What a kernel multiplies, and what comes in and goes out, on the CPU and on a GPU."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import ostinato.runtime
from interpreted import products_of_bfloat16
from laws import needs_c
from measured import build, expected, inputs, measure, ragged, results, states_for
from ostinato.backends.c import CBackend
from ostinato.backends.triton import TritonBackend
from ostinato.errors import BackendError
from ostinato.named import named
from ostinato.runtime.dtypes import factors_of, products_of
from tolerances import differences

CHOOSE = sys.modules["ostinato.runtime.choose"]  # the package has a function of this name
F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16

# ---- the table

# tensors, autocast: on a GPU, on the CPU
TABLE = {
    (F32, None): (F32, F32),
    (F32, BF16): (BF16, BF16),
    (F32, F16): (F16, F32),
    (BF16, None): (BF16, BF16),
    (BF16, BF16): (BF16, BF16),
    (BF16, F16): (BF16, BF16),
    (F16, None): (F16, F32),
    (F16, BF16): (F16, F32),
    (F16, F16): (F16, F32),
    (F64, None): (F64, F64),
    (F64, BF16): (F64, F64),
    (F64, F16): (F64, F64),
}


@pytest.mark.parametrize(("dtype", "autocast"), TABLE)
def test_what_is_multiplied(dtype: torch.dtype, autocast: torch.dtype | None) -> None:
    """Triton's interpreter, on the CPU, does as a GPU does."""
    gpu, cpu = TABLE[dtype, autocast]
    for backend in ("auto", "triton", "eager", "c"):
        assert factors_of("cuda", dtype, autocast, backend) == gpu
        assert factors_of("cpu", dtype, autocast, backend) == (gpu if backend == "triton" else cpu)


@pytest.mark.parametrize(("dtype", "autocast"), TABLE)
def test_what_is_multiplied_is_read_from_what_is_set(dtype: torch.dtype, autocast: torch.dtype | None) -> None:
    """Autocast of the tensors' own device, and none of another's."""
    x = torch.zeros(1, dtype=dtype)
    before = torch.get_autocast_dtype("cuda")
    for backend, kind in itertools.product(("auto", "triton"), ("cpu", "cuda")):
        try:  # torch.autocast("cuda") does nothing where there is no GPU
            torch.set_autocast_enabled(kind, autocast is not None)
            torch.set_autocast_dtype(kind, autocast or BF16)
            with FakeTensorMode():
                on = {"cpu": x, "cuda": torch.empty(1, dtype=dtype, device="cuda")}
                for device, tensor in on.items():
                    own = autocast if device == kind else None
                    assert products_of(tensor, backend) == factors_of(device, dtype, own, backend)
        finally:
            torch.set_autocast_enabled(kind, False)
            torch.set_autocast_dtype("cpu", BF16)
            torch.set_autocast_dtype("cuda", before)


# ---- the door


class Sees:
    """Stands in the place of the Triton backend: by the C backend's float32 kernels, and notes what they are given."""

    name, title = "triton", "Triton"

    def __init__(self) -> None:
        self.own, self.factors, self.given = CBackend(), list[torch.dtype](), set[torch.dtype]()

    def refuses(self, plan: Any, device: torch.device, dtype: torch.dtype) -> str | None:
        return None

    def compile(self, plan: Any, dtype: torch.dtype, sizes: Any) -> Any:
        self.factors.append(dtype)
        return SeesKernel(self, self.own.compile(plan, torch.float32, sizes))


class SeesKernel:
    narrow = False

    def __init__(self, backend: Sees, kernel: Any) -> None:
        self.backend, self.kernel = backend, kernel

    def bind(self, params: Any) -> Any:
        self.backend.given |= {p.dtype for p in params}
        return SeesBound(self.backend, self.kernel.bind(params))


class SeesBound:
    def __init__(self, backend: Sees, bound: Any) -> None:
        self.backend, self.bound = backend, bound
        self.same = bound.same

    def again(self, params: Any) -> Any:
        return SeesBound(self.backend, self.bound.again(params))

    def forward(self, given: Any, training: bool) -> Any:
        self.backend.given |= {t.dtype for t in (given.x, *(given.states or ()), *given.masks)}
        assert not torch.is_autocast_enabled("cpu")  # which would round what a kernel has torch compute
        return self.bound.forward(given, training)

    def backward(self, *given: Any) -> Any:
        assert not torch.is_autocast_enabled("cpu")
        return self.bound.backward(*given)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Sees:
    backend = Sees()
    monkeypatch.setattr(CHOOSE, "_TRITON", backend)
    return backend


@needs_c
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("captured", [False, True], ids=["called", "captured"])
@pytest.mark.parametrize("name", ["lstm", "recurrent_dropout(gru, 0.3)"])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=["bfloat16", "float16"])
def test_narrow_layers_on_a_gpu(dtype: torch.dtype, name: str, captured: bool, sees: Sees) -> None:
    """float32 goes into the kernel, factors are rounded to the layer's dtype, which comes out, gradients too."""
    torch._dynamo.reset()
    layer = build(named(name), 5, 7, "triton", F32, bidirectional=True).to(dtype)
    module = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=False) if captured else layer
    x, state = inputs(4, 3, 5, dtype), states_for(layer, 3, dtype)
    found = results(module, x, state[0] if len(state) == 1 else state)
    assert {v.dtype for v in found.values()} == {dtype}
    with torch.no_grad():
        assert layer(x)[0].dtype == dtype
    assert set(sees.factors) == {dtype} and sees.given == {F32}


@needs_c
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("dtype", [BF16, F16], ids=["bfloat16", "float16"])
def test_float32_layers_under_autocast_on_a_gpu(dtype: torch.dtype, sees: Sees) -> None:
    layer, below = build(named("gru"), 5, 7, "triton", F32), nn.Linear(5, 5)
    x = inputs(4, 3, 5, F32).requires_grad_()
    with torch.autocast("cpu", dtype):
        output, _ = layer(below(x))
        output.sum().backward()  # as some do: autocast is off again where a kernel's backward runs
    assert sees.factors == [dtype] and sees.given == {F32} and output.dtype == F32
    assert x.grad is not None and x.grad.dtype == F32
    layer(x)
    assert sees.factors == [dtype, F32]


class Arguments(TorchDispatchMode):
    """Notes what the registered operator is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "ostinato.recurrence" in str(func):
            self.seen.append((args[0].dtype, args[9]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=["float32", "bfloat16", "float16"])
def test_a_graph_captured_on_a_gpu(dtype: torch.dtype) -> None:
    """Tensors of a GPU that is not here have no numbers, but a graph of them can be captured."""
    layer = ostinato.RNN("gru", 5, 7, bidirectional=True)
    arguments = Arguments()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), arguments:
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, device="cuda", dtype=dtype)))
        output, state = layer(torch.empty(4, 3, 5, device="cuda", dtype=dtype))
    assert output.dtype == state.dtype == dtype and output.device.type == "cuda"
    assert arguments.seen == [(F32, str(dtype).removeprefix("torch."))] * 2


# ---- through Triton's interpreter


@pytest.mark.filterwarnings(
    "ignore:.*encountered in.*:RuntimeWarning", "ignore:Conversion of an array:DeprecationWarning"
)
@pytest.mark.parametrize("autocast", [False, True], ids=["layer", "autocast"])
@pytest.mark.parametrize("name", ["lstm", "gru", "full_peephole_lstm", "layer_norm(lstm)"])
@pytest.mark.parametrize("dtype", [BF16, F16], ids=["bfloat16", "float16"])
def test_narrow_numbers_in_triton(dtype: torch.dtype, name: str, autocast: bool) -> None:
    """Values and every gradient, to the dtype's rounding."""
    pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")
    own = F32 if autocast else dtype
    layer = build(named(name), 5, 7, "triton", F32, bidirectional=True).to(own)
    with products_of_bfloat16():
        reason = TritonBackend().refuses(layer._stack.places[0].step.plan, torch.device("cpu"), dtype)
    if reason is not None:
        pytest.skip(reason)
    x, state, lengths = inputs(4, 3, 5, own), states_for(layer, 3, own), ragged(4, 3)
    with torch.autocast("cpu", dtype, enabled=autocast), products_of_bfloat16():
        found = measure(layer, x, state, lengths)
    meant = expected(layer, x, state, lengths)
    assert {v.dtype for v in found.values() if v is not None} == {own}
    lines = differences(found, meant, dtype)
    assert [line for line in lines if ": is torch.float32" not in line] == []


def test_the_interpreters_own_products_of_bfloat16_are_refused() -> None:
    pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")
    layer = build(named("lstm"), 3, 4, "triton", torch.bfloat16)
    with pytest.raises(BackendError, match="interpreter multiplies bfloat16 numbers as the integers"):
        layer(torch.zeros(2, 1, 3, dtype=torch.bfloat16))


# ---- TF32

SWITCHES = """
import os, sys, warnings
import torch
from ostinato.backends.triton.precision import tf32_allowed
matmul = torch.backends.cuda.matmul
for code in sys.argv[1:]:  # each in a process of its own: some switches cannot be set back
    if not (child := os.fork()):
        before = tf32_allowed()
        exec(code)
        print(before, tf32_allowed(), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def switched(codes: list[str]) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", SWITCHES, *codes], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(codes, done.stdout.splitlines(), strict=True))


SWITCHED = {
    "pass": "False False",
    "matmul.allow_tf32 = True": "False True",
    "torch.set_float32_matmul_precision('high')": "False True",
    "torch.set_float32_matmul_precision('medium')": "False True",
    "matmul.allow_tf32 = True; torch.set_float32_matmul_precision('highest')": "False False",
    "matmul.fp32_precision = 'tf32'": "False True",
    "matmul.fp32_precision = 'ieee'": "False False",
    "torch.backends.fp32_precision = 'tf32'": "False True",
    "torch.backends.fp32_precision = 'tf32'; matmul.fp32_precision = 'ieee'": "False False",
    "matmul.allow_tf32 = True; matmul.fp32_precision = 'ieee'": "False False",
}


def test_tf32_only_where_torch_is_told_so() -> None:
    """Both of torch's ways of saying it, and both at once."""
    assert switched(list(SWITCHED)) == SWITCHED
