"""What the Triton backend refuses, each with its reason, and what it takes when a form cannot be launched."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch

from ostinato import cells
from ostinato.backends.triton import Facts, Form, Layout, TritonBackend, TritonKernel, backend, candidates, choosing
from ostinato.backends.triton import measured as kept
from ostinato.backends.triton.launch import launch
from ostinato.errors import LaunchError, StalledError, TooLargeError
from ostinato.runtime.step import Step

CUDA = torch.device("cuda", 0)
H200 = Facts("NVIDIA H200", 132, 227 << 10, (9, 0))


@pytest.fixture
def plan():
    return Step.of(cells.lstm.program(), True, {"D": 4, "H": 8}).plan.anonymous()


@pytest.fixture
def machine(monkeypatch):
    """A machine with a GPU, as the backend sees it."""

    def make(card: Facts = H200, driver: bool = True, missing: str | None = None, hip: str | None = None):
        monkeypatch.setattr(backend, "facts", lambda device: card)
        monkeypatch.setattr(backend, "_missing", lambda: missing)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: driver)
        monkeypatch.setattr(torch.version, "hip", hip)

    return make


def test_an_h200_is_refused_nothing(plan, machine):
    machine()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert TritonBackend().refuses(plan, CUDA, dtype) is None


@pytest.mark.parametrize(
    ("told", "dtype", "words"),
    [
        ({"driver": False}, torch.float32, "torch finds no CUDA driver or no card"),
        ({"missing": "triton is not installed (pip install triton)"}, torch.float32, "triton is not installed"),
        (
            {"card": Facts("GTX 1080", 20, 48 << 10, (6, 1))},
            torch.float32,
            "GTX 1080 has compute capability 6.1, .* 7.0",
        ),
        ({"card": Facts("T4", 40, 64 << 10, (7, 5))}, torch.bfloat16, "T4 has compute capability 7.5, .* need 8.0"),
        ({"hip": "6.2"}, torch.float32, "built for ROCm"),
        ({}, torch.float64, "float64, and this backend takes float32, bfloat16 and float16"),
    ],
)
def test_the_reason_is_said(plan, machine, told, dtype, words):
    machine(**told)
    reason = TritonBackend().refuses(plan, CUDA, dtype)
    assert reason is not None
    assert re.search(words, reason), reason


def test_a_triton_that_does_not_import_is_a_reason(monkeypatch):
    backend._missing.cache_clear()
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "triton.language", None)
    try:
        assert "triton cannot be imported (ModuleNotFoundError" in str(backend._missing())
    finally:
        backend._missing.cache_clear()


def test_an_old_triton_is_a_reason(monkeypatch):
    triton = pytest.importorskip("triton")
    backend._missing.cache_clear()
    monkeypatch.setattr(triton, "__version__", "3.1.0+git12")
    try:
        assert "triton is of version 3.1.0+git12, and kernels need 3.6 or newer" in str(backend._missing())
        backend._missing.cache_clear()
        monkeypatch.setattr(triton, "__version__", "3.10.0")
        assert backend._missing() is None
    finally:
        backend._missing.cache_clear()


class Refusing:
    """A function of Triton's that cannot be launched."""

    def __init__(self, error):
        self.error = error

    def __getitem__(self, grid):
        def call(*given, **more):
            raise self.error

        return call


def of_triton(words):
    """An error as Triton's own are."""
    return type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})(words)


@pytest.mark.parametrize(
    "error",
    [
        of_triton("out of resource: shared memory, Required: 270336"),
        RuntimeError("Triton Error [CUDA]: too many blocks"),
    ],
)
def test_what_triton_cannot_launch_is_said(error):
    with pytest.raises(LaunchError, match=r"could not be launched: .*(shared memory|too many blocks).*backend='eager'"):
        launch(Refusing(error), (1,), [], {}, Form())


@pytest.mark.parametrize("module", ["triton.runtime.build", "triton.runtime.driver", "triton.backends.nvidia.driver"])
def test_what_stops_triton_before_a_launch_is_said(module):
    """No C compiler, no driver: errors that do not name Triton."""
    space = {"__name__": module}
    exec("def call(*given, **more): raise RuntimeError('Failed to find C compiler.')", space)
    function = type("Function", (), {"__getitem__": lambda self, grid: space["call"]})()
    with pytest.raises(LaunchError, match=r"could not be launched: Failed to find C compiler.; .*backend='eager'"):
        launch(function, (1,), [], {}, Form())


def test_memory_that_the_driver_lacks_is_as_memory_that_torch_lacks():
    with pytest.raises(torch.OutOfMemoryError):
        launch(Refusing(RuntimeError("Triton Error [CUDA]: out of memory")), (1,), [], {}, Form())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), TypeError("a mistake of ours")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)):
        launch(Refusing(error), (1,), [], {}, Form())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The file of measurements in a folder of its own, nothing of it read yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept._entries.cache_clear()
    yield tmp_path / "ostinato" / "triton-forms.json"
    kept._entries.cache_clear()


@pytest.fixture
def kernel(plan, monkeypatch):
    """A kernel for an H200, for which forms are chosen as if it were there."""
    monkeypatch.setattr(choosing, "interpreted", lambda: False)
    monkeypatch.setattr(choosing, "_triton_version", lambda: "3.6.0")
    return TritonKernel(plan, [4, 8], "float32")


CPU = torch.device("cpu")  # whose facts are those of an H200


@pytest.mark.usefixtures("folder")
def test_a_form_that_cannot_be_launched_gives_way_to_the_next(kernel, monkeypatch):
    tried = []

    def run(form, name, call, bound, values):
        tried.append(form)
        if len(tried) < 3:
            raise LaunchError("too much")
        return {}

    monkeypatch.setattr(kernel, "_run", run)
    call = type("Call", (), {"batch": 5, "device": CPU})()
    assert kernel.run("infer", call, None, {}) == {}
    likely = [c.form for c in candidates(kernel.layout, "infer", 5, "float32", H200)]
    assert tried == likely[:3]
    assert kernel.run("infer", call, None, {}) == {} and tried[3] == likely[2]  # the others are not tried again


@pytest.mark.usefixtures("folder")
def test_a_call_that_is_too_large_for_a_form_says_nothing_of_smaller_ones(kernel, monkeypatch):
    """Neither a call, nor a form that is proved or measured by it."""
    likely = [c.form for c in candidates(kernel.layout, "infer", 5, "float32", H200)]
    large, taken = True, []

    def run(form, name, call, bound, values):
        if large:
            raise TooLargeError("too many")
        taken.append(form)
        return {}

    def timed(kernel, name, form, call, bound):
        raise TooLargeError("too many")

    def proved(*given):
        run(likely[0], *given[:4])
        return ""

    monkeypatch.setattr(kernel, "_run", run)
    monkeypatch.setattr(choosing, "_timed", timed)
    monkeypatch.setattr("ostinato.backends.triton.kernel.fault", proved)
    monkeypatch.setattr("ostinato.backends.triton.kernel.provable", lambda call: True)
    kernel.reference = object()
    call = type("Call", (), {"batch": 5, "device": CPU, "constants": lambda self: {}})()
    for _ in range(2):
        with pytest.raises(TooLargeError, match="too many"):
            kernel.run("infer", call, None, {})
    assert kernel.chooser.measure(kernel, "infer", call, None) == {}
    large = False
    assert kernel.run("infer", call, None, {}) == {} and taken == [likely[0]] * 2  # proved, and run


@pytest.mark.usefixtures("folder")
def test_a_kernel_that_can_be_launched_in_no_form_says_why(kernel, monkeypatch):
    def run(form, name, call, bound, values):
        raise LaunchError(f"no room for {form}")

    monkeypatch.setattr(kernel, "_run", run)
    call = type("Call", (), {"batch": 5, "device": CPU})()
    for _ in range(2):
        with pytest.raises(LaunchError):
            kernel.run("infer", call, None, {})


@pytest.mark.usefixtures("folder")
def test_a_launch_that_fails_within_a_graph_of_the_users_says_nothing_of_others(kernel, monkeypatch):
    """A kernel that was not loaded before cannot be loaded there."""

    def run(form, name, call, bound, values):
        raise LaunchError("the driver does not load it; use backend='eager'")

    monkeypatch.setattr(kernel, "_run", run)
    monkeypatch.setattr("ostinato.backends.triton.kernel.captured", lambda device: True)
    call = type("Call", (), {"batch": 5, "device": CPU})()
    with pytest.raises(
        LaunchError, match=r"while a CUDA graph is recorded the driver .*; or call the layer in the same"
    ):
        kernel.run("infer", call, None, {})
    assert not kernel.chooser._refused


@pytest.mark.parametrize("error", [TooLargeError("too many"), StalledError("of an earlier call"), KeyboardInterrupt()])
def test_a_proof_that_is_cut_off_is_none(kernel, monkeypatch, error):
    def fault(*given):
        raise error

    monkeypatch.setattr("ostinato.backends.triton.kernel.provable", lambda call: True)
    monkeypatch.setattr("ostinato.backends.triton.kernel.fault", fault)
    kernel.reference = object()
    call = type("Call", (), {"device": CPU, "constants": lambda self: {}})()
    with pytest.raises(type(error)):
        kernel.prove(Form(), "infer", call, None)
    assert not kernel._proved


def test_the_fastest_form_is_taken_and_kept(kernel, folder, monkeypatch):
    likely = [c.form for c in candidates(kernel.layout, "train", 5, "float32", H200)]
    slowest_first = {form: float(len(likely) - i) for i, form in enumerate(likely)}
    monkeypatch.setattr(choosing, "_timed", lambda kernel, name, form, call, bound: slowest_first[form])
    call = type("Call", (), {"batch": 5, "device": CPU})()
    found = kernel.chooser.measure(kernel, "train", call, None)
    best = min(found, key=lambda form: found[form])
    assert best != likely[0] and kernel.form("train", 5, CPU) == best
    assert kernel.form("train", 8, CPU) == best  # to the next power of two
    again = TritonKernel(kernel.plan, kernel.sizes, "float32")
    kept._entries.cache_clear()
    assert again.form("train", 5, CPU) == best  # by another process, from the disk
    assert again.form("infer", 5, CPU) == next(c.form for c in candidates(kernel.layout, "infer", 5, "float32", H200))
    assert len(json.loads(folder.read_text())["forms"]) == 1


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"kind": 1, "forms": 3}',
        b'{"kind": 2, "forms": {"k": {"form": {"batch": 16}, "microseconds": 1}}}',
        b'{"kind": 1, "forms": {"k": 7}}',
        b'{"kind": 1, "forms": {"k": {"form": {"batch": 3}, "microseconds": 1}}}',
        b'{"kind": 1, "forms": {"k": {"form": {"batch": 16, "stages": "yes"}, "microseconds": 1}}}',
        b'{"kind": 1, "forms": {"k": {"form": {"batch": 16, "more": 1}, "microseconds": 1}}}',
        b'{"kind": 1, "forms": {"k": {"form": {"batch": 16}, "microseconds": "fast"}}}',
    ],
)
def test_a_damaged_file_of_measurements_is_none(folder, written):
    folder.parent.mkdir(parents=True)
    folder.write_bytes(written)
    assert kept.recall("k") is None
    kept.remember("k", Form(batch=32), 1.5)
    kept._entries.cache_clear()
    assert kept.recall("k") == (Form(batch=32), 1.5)


def test_measurements_are_bounded_and_those_of_others_stay(folder, monkeypatch):
    monkeypatch.setattr(kept, "LIMIT", 3)
    for i in range(3):
        kept.remember(f"own {i}", Form(), 1.0)
    others = json.loads(folder.read_text())
    others["forms"]["other"] = others["forms"].pop("own 1")
    folder.write_text(json.dumps(others))
    kept.remember("new", Form(slices=48), 2.0)
    assert set(json.loads(folder.read_text())["forms"]) >= {"new"}
    assert len(json.loads(folder.read_text())["forms"]) == 3


def test_measurements_that_cannot_be_written_are_known_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "ostinato").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept._entries.cache_clear()
    kept.remember("k", Form(slices=2), 1.0)
    assert kept.recall("k") == (Form(slices=2), 1.0)
    kept._entries.cache_clear()


@pytest.mark.parametrize("batch", [1, 3, 16, 100, 5000])
@pytest.mark.parametrize("name", sorted(cells.catalogue()))
def test_some_form_is_found_for_every_cell(name, batch):
    """And every form of the list has a program for every unit, and no more in a group than can meet."""
    program = getattr(cells, name).program()
    for hidden in (1, 700):
        step = Step.of(program, True, dict.fromkeys(("D", "H", *program.symbols), hidden))
        layout = Layout(step.plan.anonymous(), step.plan_sizes)
        for kernel in ("infer", "backward"):
            found = candidates(layout, kernel, batch, "float32", H200)
            assert any(c.form.stages for c in found)
            for cycles, form in found:
                assert cycles > 0 and (not form.meeting or form.slices <= H200.programs)
                assert all(form.lanes(size) * form.slices >= size for size in layout.state_sizes)
