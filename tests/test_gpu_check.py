"""The check of a GPU, the benchmark's rehearsal and compiling for sm_90, on a machine with torch and triton alone."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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
    done = run([*command, "--cells", "elman", "--out", str(tmp_path)], bare)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a rehearsal, of which no figure means anything" in done.stdout
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["rehearsal"] and record["complete"] and record["left_out"] == []
    (train, infer) = record["rows"]
    assert (train["cell"], train["pass"], train["error"]) == ("elman", "train", None)
    assert train["ms"] > 0 and 0 < train["share"] < 1 and "batch" in train["form"]
    assert train["peers"]["eager"]["ratio"] > 0 and train["peers"]["lstm"]["ratio"] > 0
    assert train["peers"]["cudnn"]["ms"] > 0 and train["peers"]["cudnn"]["by"] == "torch's own kernels on the CPU"
    assert train["peers"]["eager, graph"]["error"] == "there are no CUDA graphs on a CPU"
    assert train["flops"] == 3 * infer["flops"] == 3 * (2 * 3 * 2 * 8 * 8 * 2)  # T, B, H, D and two matrices
    assert train["operations"] > train["flops"] and train["bytes"] > infer["bytes"] > 4 * 3 * 2 * (8 + 8)
    text = (tmp_path / "gpu.md").read_text()
    assert "A rehearsal on the CPU" in text and "| elman | 2 | 8 | 3 | float32 | forward and backward |" in text


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
    assert fault({"spilled": 0, "in_loops": 0, "shared": SHARED}) == ""
    assert fault({"spilled": 8, "in_loops": 2, "shared": 0}).startswith("8 B of registers are spilled; 2 instr")
    assert "232,449 B of shared memory, and there are 232,448" in fault(
        {"spilled": 0, "in_loops": 0, "shared": SHARED + 1}
    )


@needs_triton
@pytest.mark.parametrize(("cell", "factors"), [("lstm", "bfloat16"), ("full_peephole_lstm", "float32")])
def test_a_call_of_any_length_launches_what_was_compiled_once(cell: str, factors: str, bare: dict[str, str]) -> None:
    paths = os.pathsep.join([bare["PYTHONPATH"], str(ROOT / "src"), str(ROOT / "tests")])
    done = run([sys.executable, "tests/launched.py", cell, factors], bare | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    by_form = json.loads(done.stdout)
    assert len(by_form) == 3 and all(len(kernels) >= 3 for kernels in by_form.values())
    assert {count for kernels in by_form.values() for count in kernels.values()} == {1}, by_form


@needs_triton
def test_no_register_is_spilled_to_fit_more_programs_on_a_multiprocessor(bare: dict[str, str]) -> None:
    code = "import sys; sys.path.insert(0, 'benchmarks'); import sm90"
    done = run([sys.executable, "-c", f"{code}; print(sm90.measured(('jordan', 'backward', 64, 'meeting')))"], bare)
    assert "'spilled': 0" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["gpu", "gpu_check", "sm90"])
def test_a_cell_that_is_not_there_is_said(script: str, bare: dict[str, str]) -> None:
    done = run([sys.executable, f"benchmarks/{script}.py", "--cells", "lstn"], bare)
    assert done.returncode == 2 and "has no cell 'lstn'; did you mean 'lstm'?" in done.stderr


@needs_triton
def test_a_kernel_that_does_not_compile_is_wrong(bare: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/sm90.py", "--cells", "elman", "--jobs", "1"]
    assembler = tmp_path / "ptxas"
    assembler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "release 12.8"\n')  # and else it fails
    assembler.chmod(0o755)
    done = run([*command, "--json", str(tmp_path / "rows.json")], bare | {"TRITON_PTXAS_PATH": str(assembler)})
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert done.returncode == 1 and {row["kernel"] for row in rows} == {"infer", "train", "backward"}
    assert all(row["wrong"] and row["registers"] is None for row in rows)


# ---------------------------------------------------------------- forms


@needs_triton
def test_forms_that_would_be_measured_are_compiled_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_laws import quiet
    from ostinato.backends.triton import Form, TritonKernel
    from ostinato.backends.triton.choosing import Chooser
    from ostinato.bench.gpu import ours as asking
    from ostinato.bench.gpu.device import drawn
    from ostinato.bench.gpu.grid import Case
    from ostinato.bench.peers.ours import build_ours
    from ostinato.bench.task.shapes import Shape

    ran: list[tuple[str, Form]] = []
    run_one = TritonKernel._run

    def noted(self: TritonKernel, form: Form, name: str, *more: Any) -> Any:
        ran.append((name, form))
        return run_one(self, form, name, *more)

    case = Case("", "elman", Shape(3, 2, 8), "float32", "train", (), True)
    ours = build_ours(drawn(case, torch.device("cpu")), "triton", pass_="train")
    likely = Chooser().tried(asking.kernel_of(ours), "train", 16, torch.device("cpu"))
    assert 2 <= len(likely) <= asking.TRIED + 1 and any(form.stages for form in likely)
    some = [Form(batch=8), Form(batch=4)]
    monkeypatch.setattr(Chooser, "tried", lambda *_: some)
    monkeypatch.setattr(TritonKernel, "_run", noted)
    with quiet():
        asking.compile_form(ours, case, 1)
        assert ("train", some[1]) in ran and ("backward", some[1]) in ran
        asking.compile_form(ours, case, 2)
    assert not any(form == some[0] for _, form in ran)
