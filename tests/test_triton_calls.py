"""What a call of the Triton backend leaves behind: in other modes, in other threads, and where it measures forms."""

from __future__ import annotations

import math
import shutil
import threading

import pytest
import torch

from device_laws import dealt, quiet
from measured import build, states_for
from ostinato import cells
from ostinato.backends.triton import Form, TritonKernel, choosing, proof
from ostinato.backends.triton import load as loading
from ostinato.backends.triton.call import Call
from ostinato.backends.triton.load import load
from ostinato.backends.triton.staged import Stages
from ostinato.errors import LaunchError
from ostinato.named import named
from ostinato.runtime.step import Step

pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")

FORMS = [Form(batch=8), Form(batch=8, stages=True)]
NAMES = ["whole", "stages"]


@pytest.fixture
def kernel():
    program = cells.lstm.program()
    step = Step.of(program, True, {"D": 4, "H": 6})
    return TritonKernel(step.plan.anonymous(), step.plan_sizes, "float32")


@pytest.fixture
def bound(kernel):
    of = kernel.layout.of
    params = [torch.randn(of(rows), of(columns)) for _, rows, columns in kernel.plan.matrices]
    return kernel.bind(params + [torch.randn(of(size)) for _, size in kernel.plan.vectors])


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_call_in_inference_mode_leaves_nothing_that_others_cannot_use(form):
    with dealt(form), quiet():
        layer, x = build(named("lstm"), 4, 6, "triton", torch.float32), torch.randn(3, 5, 4)
        with torch.inference_mode():
            first = layer(x)[0].clone()
        with torch.no_grad():
            assert torch.equal(layer(x)[0], first)
        layer(x)[0].sum().backward()


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_nan_behind_the_ends_of_sequences_stays_there(form, bidirectional):
    lengths, gradients = torch.tensor([4, 2, 1, 3]), []
    with dealt(form), quiet():
        layer = build(named("narx"), 5, 6, "triton", torch.float32, bidirectional=bidirectional)
        for behind in (0.0, float("nan")):
            x = torch.randn(4, 4, 5, generator=torch.Generator().manual_seed(0))
            for i, length in enumerate(lengths):
                x[length:, i] = behind
            gradients.append(torch.autograd.grad(layer(x, None, lengths)[0].sum(), list(layer.parameters())))
    for zeros, nan in zip(*gradients, strict=True):
        assert torch.equal(zeros, nan)


def test_threads_on_one_stream_have_its_buffers_one_after_the_other(monkeypatch):
    inside, most = [], []

    class Desk:
        def __init__(self, *given):
            pass

        def run(self, *given):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.02)
            inside.pop()

    monkeypatch.setattr("ostinato.backends.triton.staged._Desk", Desk)
    step = Step.of(cells.lstm.program(), True, {"D": 4, "H": 6})
    kernel = TritonKernel(step.plan.anonymous(), step.plan_sizes, "float32")
    stages = kernel.made("infer", Form(batch=8, stages=True))
    call = Call(kernel.layout, choosing.Inputs(torch.zeros(2, 3, 4)))
    threads = [threading.Thread(target=stages.run, args=(call, {}, {})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_graph_of_the_users_has_buffers_of_its_own(kernel, bound, monkeypatch):
    """They go when its memory does, not when other extents need the room."""
    stages = kernel.made("infer", Form(batch=8, stages=True))
    assert isinstance(stages, Stages)
    monkeypatch.setattr(kernel, "made", lambda name, form: stages)
    monkeypatch.setattr("ostinato.backends.triton.staged.captured", lambda device: True)
    x = torch.randn(2, 3, 4)
    with quiet(), kernel.taking("infer", Form(batch=8, stages=True)):
        captured = bound.forward(choosing.Inputs(x), False)[0].output
        assert not stages._desks
        monkeypatch.setattr("ostinato.backends.triton.staged.captured", lambda device: False)
        assert torch.equal(bound.forward(choosing.Inputs(x), False)[0].output, captured)
        assert len(stages._desks) == 1


def test_only_the_thread_that_measures_has_the_form_that_is_measured(kernel, monkeypatch):
    taken = []
    monkeypatch.setattr(kernel, "_run", lambda form, *_: taken.append(form) or {})
    call = Call(kernel.layout, choosing.Inputs(torch.zeros(2, 3, 4)))
    with kernel.taking("infer", Form(batch=64)):
        thread = threading.Thread(target=kernel.run, args=("infer", call, None, {}))
        thread.start()
        thread.join()
        kernel.run("infer", call, None, {})
    kernel.run("infer", call, None, {})
    assert taken == [Form(batch=4), Form(batch=64), Form(batch=4)]


@pytest.mark.parametrize("name", ["infer", "train", "backward"])
def test_measuring_leaves_the_random_numbers_alone(kernel, bound, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    call = Call(kernel.layout, choosing.Inputs(torch.zeros(2, 3, 4)))
    before = torch.get_rng_state()
    with quiet():
        choosing._timed(kernel, name, Form(batch=8), call, bound)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_little_memory_to_measure_is_no_reason_to_refuse_a_form(kernel, monkeypatch):
    def timed(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(choosing, "_timed", timed)
    call = Call(kernel.layout, choosing.Inputs(torch.zeros(2, 3, 4)))
    assert kernel.chooser.measure(kernel, "infer", call, None) == {}
    assert not kernel.chooser._refused


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_more_numbers_than_kernels_count_are_refused(kernel, form, monkeypatch):
    monkeypatch.setattr("ostinato.backends.triton.call.MOST", 100)
    call = Call(kernel.layout, choosing.Inputs(torch.zeros(2, 30, 4)))
    with pytest.raises(LaunchError, match=r"30 sequences with \d+ numbers each are more than the 100"):
        kernel.made("infer", form).run(call, {}, {})


POWERS = """
import triton
import triton.language as tl

from ostinato.backends.triton import functions as f


@triton.jit
def powers(x, y, E: tl.constexpr):
    i = tl.arange(0, 8)
    tl.store(y + i, f.power(tl.load(x + i), E))
"""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, for log(0)
@pytest.mark.parametrize("exponent", [0.0, 1.5, 5.0, -0.25, -2.0, -3.0])
def test_powers_of_all_kinds_of_numbers(exponent):
    x = torch.tensor([0.0, 1.0, -1.0, 2.5, -2.5, -math.inf, math.inf, math.nan])
    found = torch.zeros(8)
    load(POWERS).powers[1,](x, found, exponent)
    torch.testing.assert_close(found, x**exponent, equal_nan=True)


def test_kernels_are_loaded_after_their_folder_was_taken_away():
    """Old files are cleaned away, and a forked process that ends takes along what it thinks is its own."""
    load(POWERS)
    shutil.rmtree(loading._folder())
    assert load(f"{POWERS}# again").powers is not None


@pytest.fixture
def proved(monkeypatch):
    """Forms are compared with eager, as on a GPU."""
    monkeypatch.setattr("ostinato.backends.triton.kernel.provable", lambda call: True)


@pytest.mark.usefixtures("proved")
def test_a_first_call_in_inference_mode_is_proved_too():
    with quiet():
        for dtype in (torch.float32, torch.float16):
            with torch.inference_mode():  # parameters and all
                layer = build(named("lstm"), 4, 6, "triton", dtype)
                assert layer(torch.randn(3, 5, 4, dtype=dtype))[0].isfinite().all()
        layer = build(named("lstm"), 4, 7, "triton", torch.float32)
        with torch.inference_mode():
            layer(torch.randn(3, 5, 4))
        layer(torch.randn(3, 5, 4))[0].sum().backward()


@pytest.mark.usefixtures("proved")
def test_too_little_memory_to_prove_a_form_is_no_reason_to_refuse_it(monkeypatch):
    def fault(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("ostinato.backends.triton.kernel.fault", fault)
    with quiet():
        build(named("lstm"), 4, 6, "triton", torch.float32)(torch.randn(3, 5, 4))[0].sum().backward()


def test_rounding_that_crosses_a_threshold_is_no_fault_and_wrong_lanes_are():
    wants = torch.randn(4, 17, 256, generator=torch.Generator().manual_seed(0))
    few, nothing, lanes, nan = wants.clone(), wants * 0, wants.clone(), wants.clone()
    few[0, 3, 5] = 0.0  # a relu on the other side
    lanes[..., 64:72] = 0.0
    nan[0, 0, 0] = math.nan
    noise = nothing + 1e-6
    assert proof._difference([few, noise, None], [wants, nothing, wants], "backward", proof.MOST["float32"]) == ""
    for wrong in (lanes, nan):
        said = proof._difference([wants, wrong], [wants, wants], "backward", proof.MOST["bfloat16"])
        assert said.startswith("result 1 of backward is off by ")
    assert proof._difference([wants], [wants / 0.0], "infer", 1e-2) == ""  # nothing can be said


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_parameters_in_any_order_of_memory_may_be_changed(form):
    """What is copied because of its order is copied again."""
    with dealt(form), quiet(), torch.no_grad():
        layer, x = build(named("lstm"), 6, 6, "triton", torch.float32), torch.randn(3, 5, 6)
        for name, value in list(layer.named_parameters()):
            if value.dim() == 2:
                setattr(layer, name, torch.nn.Parameter(value.t().contiguous().t()))
        layer(x)
        for value in layer.parameters():
            value.mul_(0.3)
        found = layer(x)[0]
        layer.backend = "eager"
        torch.testing.assert_close(found, layer(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["lstm", "skip_in_time(lstm, 3)"])
def test_backward_without_lengths_takes_no_numbers_of_the_cpu(name, reverse, monkeypatch):
    """A CUDA graph of the user's could not have them."""

    def sent(values, device):
        raise AssertionError("numbers of the CPU are sent to the device")

    monkeypatch.setattr("ostinato.backends.triton.outside.on_device", sent)
    with dealt(Form(batch=8)), quiet():
        layer = build(named(name), 4, 6, "triton", torch.float32, bidirectional=reverse)
        layer(torch.randn(3, 5, 4), states_for(layer, 5, torch.float32))[0].sum().backward()
