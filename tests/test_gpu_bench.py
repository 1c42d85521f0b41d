"""The benchmark for a GPU and the check of one: their order, their arithmetic, and all of it rehearsed on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from ostinato import cells
from ostinato.bench.gpu.bounds import Need, floor_ms
from ostinato.bench.gpu.clock import ceilings, interleave, no_tf32
from ostinato.bench.gpu.grid import GRID, PUBLISHED, Case, stages
from ostinato.bench.gpu.table import page
from ostinato.bench.gpu.verdicts import verdicts
from ostinato.bench.task.shapes import Shape

ROOT = Path(__file__).resolve().parent.parent
TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")
# What a bare machine need not have; `sitecustomize` is run by every Python that finds it, those of the processes too.
ABSENT = (
    *("typer", "rich", "lightning", "lightning_fabric", "lightning_utilities", "pytest", "_pytest", "hypothesis"),
    *("matplotlib", "pandas", "scipy", "safetensors", "tokenizers", "torchmetrics", "tensorboard", "pooch", "jax"),
)
BLOCKER = f"""
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT!r} else found(name, path, target)
PathFinder.find_spec = find_spec
"""

# ---------------------------------------------------------------- the order


def test_the_whole_grid_is_measured_and_nothing_twice() -> None:
    order = stages()
    cases = [case for stage in order for case in stage.cases]
    assert max(Counter(case.key for case in cases).values()) == 1
    assert len({str(case) for case in cases}) == len(cases)
    for cell in ("lstm", "gru_reset_after"):
        assert sum(case.cell == cell and "cudnn" in case.peers for case in cases) == GRID.size == 4 * 7 * 2 * 2 * 2
    for at, dtype in GRID.others:
        there = [case for case in cases if (case.shape, case.dtype, case.pass_) == (at, dtype, "train")]
        assert {case.cell for case in there} == set(cells.catalogue())
        assert all({"lstm", "eager", "eager, graph"} <= set(case.peers) for case in there if case.cell != "lstm")


def test_what_figures_are_published_of_comes_first() -> None:
    first = stages()[0]
    assert [(str(c.shape), c.dtype, c.pass_) for c in first.cases] == [
        ("1024x16x768", "bfloat16", "infer"),
        ("1024x16x768", "bfloat16", "train"),
    ]
    assert PUBLISHED["cuDNN"] == {"infer": 2.01, "train": 5.19}


def test_cells_that_are_chosen_are_measured_alone() -> None:
    assert {case.cell for stage in stages(cells=["lstm", "mgu"]) for case in stage.cases} == {"lstm", "mgu"}


def test_forms_are_measured_where_it_matters_most() -> None:
    tuned = {stage.title: {case.tuned for case in stage.cases} for stage in stages()}
    assert tuned["where figures are published"] == tuned["lstm, first part"] == {True}
    assert tuned["every cell"] == tuned["lstm, the rest"] == {False}
    assert {case.tuned for stage in stages(tune="all") for case in stage.cases} == {True}
    assert {case.tuned for stage in stages(tune="none") for case in stage.cases} == {False}


def test_kernels_are_those_of_any_length() -> None:
    long, longer = (Case("", "lstm", Shape(T, 16, 64), "float32", "train", ()) for T in (128, 1024))
    assert long.kernels == longer.kernels and long.kernels.shape == Shape(16, 16, 64)


# ---------------------------------------------------------------- the arithmetic


def test_the_floor_is_the_longer_of_two_times() -> None:
    rates = {"copy": 4e12, "float32": 50e12, "bfloat16": 800e12}
    assert floor_ms(Need(0.0, operations=50e9, bytes=4e9), "float32", rates) == pytest.approx(1.0)
    assert floor_ms(Need(0.0, operations=50e9, bytes=8e9), "float32", rates) == pytest.approx(2.0)
    assert floor_ms(Need(0.0, operations=800e9, bytes=0.0), "bfloat16", rates) == pytest.approx(1.0)


def test_switches_are_set_back() -> None:
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32, cudnn.allow_tf32 = False, True
        with no_tf32() as were:
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)
        assert were == {"cuda.matmul.allow_tf32": False, "cudnn.allow_tf32": True}
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class Told:
    """A clock that says what a call takes."""

    name, cache = "told", "there is no cache"

    def __init__(self) -> None:
        self.order: list[str] = []

    def sample(self, call: Any, count: int) -> float:
        name, ms = call()
        self.order.append(name)
        return ms

    def inner(self, ms: float) -> int:
        return 2

    def settle(self) -> None: ...


def test_contestants_are_timed_in_turn_and_slow_ones_less_often() -> None:
    clock: Any = Told()
    samples = interleave({"a": lambda: ("a", 10.0), "b": lambda: ("b", 1e6)}, clock, part_ms=100.0, least=3)
    assert clock.order == ["a"] * 2 + ["b"] * 2 + ["a", "b"] * 3 + ["a"] * 2
    assert (samples["a"].median, len(samples["a"].values)) == (10.0, 5)
    assert (samples["b"].median, len(samples["b"].values)) == (1e6, 3)


def test_ceilings_are_rates() -> None:
    clock: Any = Told()
    clock.sample = lambda call, count: (call(), 2.0)[1]
    rates = ceilings(clock, torch.device("cpu"), small=True)
    assert rates == pytest.approx(
        {"copy": 4 * 2 * 2**16 / 2e-3, "float32": 2 * 64**3 / 2e-3, "bfloat16": 2 * 64**3 / 2e-3}
    )


# ---------------------------------------------------------------- the verdicts


def row(
    cell: str, case: str, error: str | None = None, flops: float = 1.0, by: str = "cuDNN", **ratios: float | None
) -> dict[str, Any]:
    peers = {
        name.replace("_", ", "): {"ms": ratio, "ratio": ratio, "error": None if ratio else "differs", "by": by}
        for name, ratio in ratios.items()
    }
    return {"cell": cell, "case": case, "ms": None if error else 1.0, "flops": flops, "peers": peers, "error": error}


def judged(rows: list[dict[str, Any]], rehearsal: bool = False) -> dict[str, tuple[bool | None, str]]:
    found = verdicts({"rows": rows, "of_a_cell": 224, "rehearsal": rehearsal})
    return {v["what"]: (v["met"], v["got"]) for v in found}


LEVEL = "lstm against nn.LSTM: level (within 3%) or ahead"
SLOWEST = "lstm against nn.LSTM: the slowest"
PER_FLOP = "every other cell: time for an operation over our lstm's"
LOOP = "every other cell against an eager loop"


def test_level_at_half_and_never_slower_than_one_and_a_half() -> None:
    rows = [row("lstm", "a", cudnn=2.0), row("lstm", "b", cudnn=0.98), row("lstm", "c", cudnn=0.7)]
    found = judged(rows)
    assert found[LEVEL] == (True, "67% of 3 of 224 cases")
    assert found[SLOWEST] == (True, "1.43 times as long, at c; 3 of 224 cases")
    found = judged([*rows, row("lstm", "d", cudnn=0.6), row("lstm", "e", cudnn=0.9)])
    assert found[LEVEL][0] is False and found[SLOWEST] == (False, "1.67 times as long, at d; 5 of 224 cases")


def test_a_case_that_failed_is_counted_against_us() -> None:
    met, got = judged([row("lstm", "a", cudnn=2.0), row("lstm", "b", error="hung", cudnn=None)])[SLOWEST]
    assert met is False and got.endswith("1 of 224 cases, 1 more without a time")


def test_kernels_that_are_not_cudnns_are_not_counted_as_such() -> None:
    found = judged([row("lstm", "a", cudnn=0.9), row("lstm", "b", by="torch's own kernels", cudnn=50.0)])
    assert found[LEVEL] == (False, "0% of 1 of 224 cases; 1 more that are not cuDNN's")
    assert found[SLOWEST] == (True, "1.11 times as long, at a; 1 of 224 cases; 1 more that are not cuDNN's")


def test_other_cells_by_their_operations_and_against_a_loop() -> None:
    rows = [
        row("gru", "a", lstm=0.8, eager=10.0, eager_graph=5.0),
        row("mgu", "b", lstm=0.5, eager=90.0),
        row("sru", "c", flops=0.0, lstm=None, eager=30.0),
    ]
    found = judged(rows)
    assert found[PER_FLOP] == (False, "at most 2.00, at b; 1 of 2 above 1.5; without products, so not compared: sru")
    assert found[LOOP] == (True, "30.0 over 3 cases, 10.0 to 90.0; recorded in a CUDA graph: 5.0 over 1")
    assert judged(rows[:1])[PER_FLOP][0] is True and judged(rows[:1])[LOOP][0] is False


def test_nothing_measured_and_a_rehearsal_judge_nothing() -> None:
    assert set(judged([]).values()) == {(None, "not measured")}
    assert {met for met, _ in judged([row("lstm", "a", cudnn=2.0)], rehearsal=True).values()} == {None}


def test_the_page_lists_what_was_left_out_and_what_failed() -> None:
    found = row("lstm", "lstm B=1", error="it was ended after 60 s", cudnn=None)
    found |= {"stage": "s", "B": 1, "H": 64, "T": 128, "dtype": "float32", "pass": "train"}
    record = {"rehearsal": False, "ceilings": None, "rows": [found], "of_a_cell": 224, "published": PUBLISHED}
    record |= {"order": [{"stage": "s", "cases": 2}], "compiled": [], "left_out": ["gru B=1"]}
    text = "\n".join(page(record))
    assert "### s: 1 of 2" in text and "- ours: it was ended after 60 s (1: lstm B=1)" in text
    assert "### Not measured: 1\n\ngru B=1." in text and "Published, not measured here" in text


# ---------------------------------------------------------------- on a machine that has torch and triton alone


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing else can be imported, nor an installed ostinato be found."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER, encoding="utf-8")
    left = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "PYTHON", "OSTINATO"))}
    return left | {"PYTHONPATH": str(tmp_path / "site"), "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}


def test_the_machine_is_bare(bare: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", "import typer"], env=bare, capture_output=True, text=True, check=False)
    assert "No module named 'typer'" in done.stderr


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@needs_triton
def test_the_benchmark_is_rehearsed(bare: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--rehearse", "--seconds", "40", "--jobs", "1"]
    done = run([*command, "--cells", "gru", "--out", str(tmp_path)], bare)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["rehearsal"] and record["complete"] and record["left_out"] == []
    (train, infer) = record["rows"]
    assert (train["cell"], train["pass"], train["error"]) == ("gru", "train", None)
    assert train["ms"] > 0 and 0 < train["share"] < 1 and "batch" in train["form"]
    assert train["peers"]["eager"]["ratio"] > 0 and train["peers"]["lstm"]["ratio"] > 0
    assert train["peers"]["eager, graph"]["error"] == "there are no CUDA graphs on a CPU"
    assert train["flops"] == 3 * infer["flops"] == 3 * (2 * 3 * 2 * 8 * 8 * 6)  # T, B, H, D and six matrices
    assert train["operations"] > train["flops"] and train["bytes"] > infer["bytes"] > 4 * 3 * 2 * (8 + 8)
    text = (tmp_path / "gpu.md").read_text()
    assert "A rehearsal on the CPU" in text and "| gru | 2 | 8 | 3 | float32 | forward and backward |" in text


def test_without_a_gpu_the_benchmark_says_so(bare: dict[str, str], tmp_path: Path) -> None:
    done = run([sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path)], bare)
    assert done.returncode == 1 and "torch finds no GPU here" in done.stderr


@needs_triton
def test_the_check_passes_on_a_bare_machine(bare: dict[str, str], tmp_path: Path) -> None:
    command = ["sh", "scripts/gpu-check", "--jobs", "1", "--cells", "elman", "--out", str(tmp_path)]
    done = run([*command, "--only", "the catalogue", "sm_90"], bare)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu-check.json").read_text())
    assert record["passed"] and record["complete"] and record["facts"]["device"] == "cpu"
    assert [law["how"] for law in record["laws"]] == ["held"]
    assert {row["kernel"] for row in record["compiled"]} == {"infer", "train", "backward"}
    assert [row["wrong"] for row in record["compiled"]] == [""] * len(record["compiled"])
    assert all(row["registers"] > 0 for row in record["compiled"])
    assert "**all passed**" in (tmp_path / "gpu-check.md").read_text()


@needs_triton
def test_what_was_not_checked_did_not_pass(bare: dict[str, str], tmp_path: Path) -> None:
    command = ["sh", "scripts/gpu-check", "--jobs", "1", "--seconds", "3", "--only", "packed", "--out", str(tmp_path)]
    done = run(command, bare)
    assert done.returncode == 1
    record = json.loads((tmp_path / "gpu-check.json").read_text())
    assert not record["passed"] and {law["law"] for law in record["laws"]} == {"packed sequences"}
    assert "not run" in {law["how"] for law in record["laws"]}
    assert "What did not pass" in (tmp_path / "gpu-check.md").read_text()


@needs_triton
def test_what_was_found_is_written_when_it_is_interrupted(bare: dict[str, str], tmp_path: Path) -> None:
    command = ["sh", "scripts/gpu-check", "--jobs", "1", "--out", str(tmp_path)]
    with subprocess.Popen(command, env=bare, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and "no GPU" in child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 1
    record = json.loads((tmp_path / "gpu-check.json").read_text())
    assert record["stopped"] == "it was interrupted" and not record["passed"] and record["facts"]


@pytest.mark.skipif(TRITON, reason="triton is installed here")
def test_without_triton_the_check_says_what_is_missing(bare: dict[str, str], tmp_path: Path) -> None:
    done = run(["sh", "scripts/gpu-check", "--out", str(tmp_path)], bare)
    assert done.returncode == 1 and "has no triton; install torch, triton==3.6.0" in done.stderr


# ---------------------------------------------------------------- kernels for sm_90


def test_a_kernel_that_spills_or_asks_for_too_much_is_wrong() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from sm90 import SHARED, fault
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    assert fault({"spilled": 0, "shared": SHARED}) == ""
    assert fault({"spilled": 8, "shared": 0}) == "8 B of registers are spilled"
    assert "232,449 B of shared memory, and there are 232,448" in fault({"spilled": 0, "shared": SHARED + 1})


@needs_triton
def test_a_kernel_that_does_not_compile_is_wrong(bare: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/sm90.py", "--cells", "no_such_cell", "--jobs", "1"]
    done = run([*command, "--json", str(tmp_path / "rows.json")], bare)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert done.returncode == 1 and {row["kernel"] for row in rows} == {"infer", "train", "backward"}
    assert all("no_such_cell" in row["wrong"] and row["registers"] is None for row in rows)
