"""Backends: which one runs and what is said about it; many processes, workers and threads at once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import ostinato
from laws import CELLS, THOROUGH, needs_c
from measured import build, inputs, measure, ragged, states_for
from ostinato import BackendError, CacheError, CompileError
from tolerances import assert_agree

SOURCE = Path(ostinato.__file__).resolve().parent.parent
pytestmark = needs_c


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own, with a kernel cache of its own."""
    settings = {**os.environ, "PYTHONPATH": str(SOURCE), "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=settings,
        check=False,
    )


RUN = """
    import torch, ostinato
    torch.manual_seed(0)
    layer = ostinato.RNN("elman", 3, 4, backend="c")
    print(layer(torch.ones(5, 2, 3))[0].sum().item())
"""


def kernels(folder: Path) -> list[Path]:
    """The compiled kernels in a cache."""
    made = sorted((folder / "ostinato").glob("*.so"))
    return [path for path in made if b"ostinato_forward" in path.read_bytes()]  # not what they are linked with


# ---- which backend runs


def test_c_runs_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """backend="c" and "auto" never touch the eager loop; backend="eager" never a kernel."""
    import ostinato.backends.eager.run as eager

    calls: list[int] = []
    own = eager._loop
    monkeypatch.setattr(eager, "_loop", lambda *a, **k: calls.append(1) or own(*a, **k))
    monkeypatch.delenv("OSTINATO_BACKEND", raising=False)
    x = torch.randn(4, 2, 3)
    for backend, touched in (("c", False), ("auto", False), ("eager", True)):
        calls.clear()
        build(ostinato.cells.lstm, 3, 5, backend, torch.float32)(x)[0].sum().backward()
        assert bool(calls) == touched, backend


@pytest.mark.parametrize(("variable", "touched"), [("eager", True), ("c", False), ("auto", False)])
def test_the_environment_decides_for_auto_alone(variable: str, touched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import ostinato.backends.eager.run as eager

    calls: list[int] = []
    own = eager._loop
    monkeypatch.setattr(eager, "_loop", lambda *a, **k: calls.append(1) or own(*a, **k))
    monkeypatch.setenv("OSTINATO_BACKEND", variable)
    x = torch.randn(4, 2, 3)
    build(ostinato.cells.lstm, 3, 5, "auto", torch.float32)(x)
    assert bool(calls) == touched
    calls.clear()
    build(ostinato.cells.lstm, 3, 5, "c", torch.float32)(x)
    assert not calls


def test_a_refusal_names_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment asked, "auto" in the code would ask the same again."""
    x = torch.zeros(4, 2, 3, device="meta")
    with pytest.raises(BackendError, match="tensors are on meta, .*; use backend='auto'$"):
        ostinato.RNN("elman", 3, 5, backend="c", device="meta")(x)
    monkeypatch.setenv("OSTINATO_BACKEND", "c")
    with pytest.raises(BackendError, match="tensors are on meta, .*; set OSTINATO_BACKEND to auto$"):
        ostinato.RNN("elman", 3, 5, device="meta")(x)


def test_what_c_refuses_runs_eagerly_under_auto_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing falls back in silence."""
    x = torch.zeros(4, 2, 3, device="meta")
    with caplog.at_level(logging.INFO, "ostinato"):
        for _ in range(2):
            layer = ostinato.RNN("elman", 3, 5, device="meta")
            assert layer(x)[0].device == x.device
    said = [r.getMessage() for r in caplog.records if "meta" in r.getMessage()]
    assert len(said) == 1 and "eager" in said[0]
    layer = ostinato.RNN("elman", 3, 5, backend="c", device="meta")
    with pytest.raises(BackendError, match=r"tensors are on meta.*runs on the CPU"):
        layer(x)


# ---- many at once


@pytest.mark.usefixtures("quickly_compiled")
def test_many_processes_compile_the_same_kernel_at_once(tmp_path: Path) -> None:
    """Into an empty cache: all give the same numbers, and one kernel is left."""
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: python(RUN, tmp_path), range(2)))
    assert {f.returncode for f in found} == {0}, [f.stderr for f in found]
    assert len({f.stdout for f in found}) == 1
    assert len(kernels(tmp_path)) == 1 and len(list((tmp_path / "ostinato").iterdir())) == 2


@pytest.mark.usefixtures("quickly_compiled")
def test_many_python_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of one layer and of many, the first call included, give what one thread gives."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    some = list(ostinato.cells.catalogue().items())[:: 1 if THOROUGH else 5]
    layers = {name: build(c, 5, 17, "c", bidirectional=True) for name, c in some}
    x = inputs(6, 7, 5, torch.float64)
    gate = threading.Barrier(6)

    def work(number: int) -> dict[str, Any]:
        gate.wait()
        found = {}
        for name in list(layers)[number % 3 :] + list(layers)[: number % 3]:
            layer = build(layers[name].cell, 5, 17, "c", bidirectional=True)
            found[name] = measure(layer, x, states_for(layer, 7, torch.float64), ragged(6, 7))
        return found

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(work, range(6)))
    for name, layer in layers.items():
        meant = measure(layer, x, states_for(layer, 7, torch.float64), ragged(6, 7))
        for result in results:
            assert all(torch.equal(result[name][key], value) for key, value in meant.items()), name


def test_one_layer_in_many_threads() -> None:
    layer = build(ostinato.cells.lstm, 5, 33, "c")
    batches = [inputs(8, n, 5, torch.float64) for n in range(1, 13)]
    meant = [layer(x)[0] for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, one in zip(pool.map(lambda x: layer(x)[0], batches), meant, strict=True):
                assert torch.equal(found, one)


class Rows(Dataset[torch.Tensor]):
    """Items that a layer computes, as an encoder in a data pipeline would."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.layer(inputs(9, 5, 3, torch.float32) + index)[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create 2 worker")
@pytest.mark.parametrize(
    ("method", "used"),
    [("fork", False), ("fork", True), ("spawn", True)],
    ids=["fork, before its first call", "fork, after a call", "spawn, after a call"],
)
def test_workers_of_a_data_loader(method: str, used: bool) -> None:
    """In forked workers too, where the parent's threads are gone."""
    torch.set_num_threads(2)
    workers = 2 if method == "fork" else 1  # one that is spawned imports torch again
    try:
        layer = build(ostinato.cells.gru, 3, 64, "c", torch.float32)
        meant = torch.stack([Rows(layer)[k] for k in range(12)]) if used else None
        loader = DataLoader(Rows(layer), batch_size=4, num_workers=workers, multiprocessing_context=method, timeout=120)
        found = torch.cat(list(loader))
        if meant is None:
            meant = torch.stack([Rows(layer)[k] for k in range(12)])
    finally:
        torch.set_num_threads(1)
    assert_agree({"output": found}, {"output": meant}, torch.float32)


def _train_in_child(queue: Any, layer: Any) -> None:
    x = inputs(20, 8, 5, torch.float64)
    # a sum for each: little enough for the pipe's buffer
    queue.put([float(v.sum()) for v in torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_trains() -> None:
    """Backward in a forked child of a parent that has trained with several threads.

    Small on purpose: torch's own operations hang in such a child once they use several threads.
    """
    torch.set_num_threads(2)
    try:
        layer = build(ostinato.cells.lstm, 5, 64, "c")
        x = inputs(20, 8, 5, torch.float64)
        meant = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=_train_in_child, args=(queue, layer))
        child.start()
        child.join(60)
        hung = child.is_alive()
        if hung:
            child.kill()
        assert not hung and child.exitcode == 0
        for ours, one in zip(queue.get(), meant, strict=True):
            assert ours == pytest.approx(float(one.sum()), rel=1e-11)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("cell", CELLS)
def test_any_number_of_threads_gives_the_same(cell: Any) -> None:
    """Threads split the batch; values are the same to the bit, sums over the batch to rounding."""
    layer = build(cell, 17, 33, "c", bidirectional=True)
    x, state = inputs(7, 19, 17, torch.float64), states_for(layer, 19, torch.float64)
    try:
        for lengths in (None, ragged(7, 19)):
            torch.set_num_threads(1)
            meant = measure(layer, x, state, lengths)
            for count in (2, 3, 40):
                torch.set_num_threads(count)
                found = measure(layer, x, state, lengths)
                for name in ("output", *(f"state {s}" for s in cell.states)):
                    assert torch.equal(found[name], meant[name]), (name, count)  # type: ignore[arg-type]
                assert_agree(found, meant, torch.float64)
                again = measure(layer, x, state, lengths)
                assert all(torch.equal(again[n], found[n]) for n in found), count  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(1)


ON_ALL_CORES = """
    import os, sys
    os.sched_setaffinity(0, [int(core) for core in sys.argv[2].split(",")])
    sys.path.insert(0, sys.argv[1])
    import torch
    from laws import CELLS
    from measured import build, inputs, measure, ragged, states_for
    from tolerances import assert_agree

    for param in CELLS[::3]:
        cell = param.values[0]
        layer = build(cell, 17, 33, "c", bidirectional=True)
        x, state, lengths = inputs(20, 19, 17, torch.float64), states_for(layer, 19, torch.float64), ragged(20, 19)
        torch.set_num_threads(1)
        meant = measure(layer, x, state, lengths)
        torch.set_num_threads(2)
        for _ in range(5):
            found = measure(layer, x, state, lengths)
            assert torch.equal(found["output"], meant["output"]), cell.name
            assert_agree(found, meant, torch.float64)
"""


@pytest.mark.skipif("OSTINATO_TEST_CORES" not in os.environ, reason="this process has all cores: the other tests do it")
def test_threads_on_cores_of_their_own() -> None:
    """The processes of a run keep to one core each (conftest.py), where threads take turns; here they do not."""
    folder = Path(os.environ["XDG_CACHE_HOME"])
    done = python(ON_ALL_CORES, folder, str(Path(__file__).parent), os.environ["OSTINATO_TEST_CORES"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_threads_may_change_between_forward_and_backward(before: int, after: int) -> None:
    """The tape's rows lie in the order forward gave them."""
    layer = build(ostinato.cells.lstm, 5, 9, "c")
    x = inputs(6, 7, 5, torch.float64).requires_grad_()
    sources = [x, *layer.parameters()]
    try:
        for lengths in (None, ragged(6, 7)):
            torch.set_num_threads(before)
            meant = torch.autograd.grad(layer(x, lengths=lengths)[0].square().sum(), sources)
            loss = layer(x, lengths=lengths)[0].square().sum()
            torch.set_num_threads(after)
            found = torch.autograd.grad(loss, sources)
            pairs = [{str(k): g for k, g in enumerate(grads)} for grads in (found, meant)]
            assert_agree(*pairs, torch.float64)
    finally:
        torch.set_num_threads(1)


def test_errors_are_of_one_family() -> None:
    assert issubclass(CompileError, BackendError) and issubclass(CacheError, OSError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(ostinato.cells.gru, 3, 4, "auto", torch.float32)(torch.zeros(2, 1, 3))
