"""Checks the Triton backend on this machine: one JSON, one table. `scripts/gpu-check` runs this.

With a GPU: the laws of tests/device_laws.py on the device, then benchmarks/gpu.py in the time that is left. Without
one: the same laws through Triton's interpreter, and the kernels of every catalogue cell compiled for sm_90
(benchmarks/sm90.py). Needs Python, torch, triton and numpy alone, and no network. All of it is done in child processes
that are ended when they take too long; what was found so far is written every few seconds, and when it is interrupted.

The exit status is 0 where every law holds, every kernel compiles without spills, and no measurement failed; else 1.
Whether the speeds are those that are asked for stands in the table, and is no part of the exit status.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(path) for path in (ROOT / "src", ROOT / "benchmarks", ROOT / "tests") if str(path) not in sys.path]

from ostinato.bench.gpu.facts import describe  # noqa: E402
from ostinato.bench.measure.crew import Crew, Ended  # noqa: E402
from ostinato.bench.report.record import check_writable, write_record, write_text  # noqa: E402
from ostinato.bench.task.cells import known_cell  # noqa: E402
from ostinato.errors import RunError  # noqa: E402

REMEDY = "install torch, triton==3.6.0 and 'numpy<2.4', or name a Python that has them: PYTHON=/path/to/python"
SECONDS = 460.0
LAWS_SHARE = 0.5  # of the time, on a GPU; the rest is the benchmark's
CASE_S = {"cpu": 90.0, "cuda": 120.0}  # a case of the laws; on a GPU it compiles six kernels
MOST = 14  # processes that share a GPU
SHOWN = 20  # failures that are printed; the files have all
LAST_S = 5.0  # for writing
EVERY_S = 5.0  # between two writings of what was found
# what kernels take for themselves is filled with NaN; no form is measured, while other processes use the GPU
BOTH = {"OMP_NUM_THREADS": "1", "OSTINATO_POISON": "1", "OSTINATO_TUNE": "0"}
INTERPRETED = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", **BOTH}
ON_DEVICE = {"TRITON_INTERPRET": None, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **BOTH}


def main() -> int:
    """Check, and write down what was found."""
    asked = options()
    missing = [name for name in ("torch", "triton", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: {sys.executable} has no {', '.join(missing)}; {REMEDY}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        paths = [asked.json or asked.out / "gpu-check.json", asked.table or asked.out / "gpu-check.md"]
        for path in paths:
            check_writable(path)
    except (OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    check = Check(asked, *paths)
    try:
        check.all()
    except KeyboardInterrupt:
        check.stopped("it was interrupted")
    except Exception as error:  # noqa: BLE001  (what was found before it is written all the same)
        check.stopped(f"{type(error).__name__}: {error}")
    check.write()
    print("\n".join([*list(check.failures())[:SHOWN], check.verdict(), *map(str, paths)]))
    return 0 if check.record["passed"] else 1


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the two files; default: the current one")
    parser.add_argument("--json", type=Path, help="default: gpu-check.json in the folder")
    parser.add_argument("--table", type=Path, help="default: gpu-check.md in the folder")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for all of it; default: {SECONDS:g}")
    parser.add_argument("--jobs", type=int, help="processes; default: the cores that this one may use")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="cpu: the interpreter")
    parser.add_argument("--only", nargs="*", help="laws whose names begin so, or sm_90, or benchmark")
    parser.add_argument("--cells", nargs="*", type=known_cell, help="these cells of the catalogue alone")
    return parser.parse_args()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Check:
    """One run, and what it has found."""

    def __init__(self, asked: argparse.Namespace, json: Path, table: Path) -> None:
        self.asked, self.json, self.table = asked, json, table
        self.begin = self._written = time.monotonic()
        self.until = self.begin + asked.seconds
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.jobs = asked.jobs or cores
        command = shlex.join(["scripts/gpu-check", *sys.argv[1:]])
        self.record: dict[str, Any] = {"kind": "gpu-check", "command": command, "passed": False, "complete": False}
        self.record |= {"stopped": None, "facts": None, "seconds": {}, "laws": [], "compiled": [], "benchmark": None}

    def all(self) -> None:
        """Every part that this machine can do."""
        self.part("facts", self.facts)
        device = self.record["facts"]["device"]
        self.part("laws", lambda: self.laws(device))
        if device == "cpu":
            self.part("compiled", self.compiled)
        else:
            self.part("benchmark", self.benchmark)
        self.record["complete"] = True

    def part(self, name: str, work: Callable[[], None]) -> None:
        """A part, and how long it takes."""
        begin = time.monotonic()
        try:
            work()
        finally:
            self.record["seconds"][name] = round(time.monotonic() - begin, 1)

    def wanted(self, name: str) -> bool:
        """Whether a law or a part was asked for."""
        return not self.asked.only or any(name.startswith(each) for each in self.asked.only)

    def facts(self) -> None:
        """In a process of its own: asking a driver can hang, too."""
        device = {"CUDA_VISIBLE_DEVICES": ""} if self.asked.device == "cpu" else {}
        with Crew("ostinato.bench.gpu.facts:facts", 1, device) as crew:
            for end in crew.run([None], 60.0, self.until):
                if end.how != "done":
                    raise RunError(f"the machine could not be asked what it is: {end.said}")
                self.record["facts"] = end.value
        if self.asked.device == "cuda" and end.value["device"] != "cuda":
            raise RunError("torch finds no GPU here; leave out --device, or pass --device cpu")
        self.say(describe(self.record["facts"]))

    def laws(self, device: str) -> None:
        """Values and gradients of every case."""
        from device_laws import cases

        chosen = [case for case in cases(device) if self.wanted(case.law)]
        chosen = [case for case in chosen if not self.asked.cells or case.cell in self.asked.cells]
        on_gpu = device == "cuda"
        until = self.begin + self.asked.seconds * LAWS_SHARE if on_gpu else self.until
        jobs = min(self.jobs, MOST) if on_gpu else self.jobs
        with Crew("gpu_check:checked", jobs, ON_DEVICE if on_gpu else INTERPRETED) as crew:
            for end in crew.run([(case, device) for case in chosen], CASE_S[device], until):
                self.record["laws"].append(_law(end))
                self.note(f"laws: {len(self.record['laws'])} of {len(chosen)}")

    def compiled(self) -> None:
        """Every kernel of the catalogue for sm_90."""
        if not self.wanted("sm_90"):
            return
        import sm90

        names = self.asked.cells or sm90.catalogue()
        for row in sm90.compiled(names, jobs=self.jobs, until=self.until):
            self.record["compiled"].append(row)
            every = len(names) * len(sm90.KERNELS) * len(sm90.SHAPES)
            self.note(f"sm_90: {len(self.record['compiled'])} of {every} kernels")

    def benchmark(self) -> None:
        """On a GPU, in the time that is left."""
        if not self.wanted("benchmark"):
            return
        from ostinato.bench.gpu.run import Options, run

        def note(record: dict[str, Any]) -> None:
            self.record["benchmark"] = record
            self.note(f"benchmark: {len(record['rows'])} measured, {len(record['left_out'])} to come")

        cells = tuple(self.asked.cells) if self.asked.cells else None
        run(Options(self.until - time.monotonic() - LAST_S, cells, self.jobs), note)

    # ---------------------------------------------------------------- what was found

    def note(self, line: str) -> None:
        """Write what was found so far, now and then."""
        if time.monotonic() - self._written > EVERY_S:
            self.say(line)
            self.write()
            self._written = time.monotonic()

    def say(self, line: str) -> None:
        """Where it stands."""
        print(f"{time.monotonic() - self.begin:5.0f} s  {line}", flush=True)

    def stopped(self, why: str) -> None:
        """It ends before all is done."""
        self.record["stopped"] = why

    def failures(self) -> Iterator[str]:
        """What did not pass, a line each."""
        record = self.record
        if record["stopped"]:
            yield f"stopped: {record['stopped']}"
        for law in record["laws"]:
            if law["how"] != "held":
                yield f"{law['case']}: {law['how']}: {'; '.join(law['said'][:3])}"
        for row in record["compiled"]:
            if row["wrong"]:
                yield f"sm_90: {row['cell']} {row['kernel']} {row['shape']}: {row['wrong']}"
        for row in (record["benchmark"] or {}).get("rows", ()):
            if row["error"]:
                yield f"benchmark: {row['case']}: {row['error']}"

    def looked(self) -> bool:
        """Whether anything was looked at."""
        return any(self.record[part] for part in ("laws", "compiled", "benchmark"))

    def write(self) -> None:
        """Both files, each whole or not at all."""
        passed = self.record["complete"] and not any(True for _ in self.failures())
        self.record["passed"] = passed and self.looked()
        self.record["seconds"]["all"] = round(time.monotonic() - self.begin, 1)
        write_record(self.json, self.record)
        write_text(self.table, "\n".join(self.page()) + "\n")

    def verdict(self) -> str:
        """In a line."""
        failures = list(self.failures())
        if self.record["passed"]:
            return "all passed"
        return f"not passed: {len(failures)} failed" if failures else "not passed: nothing was checked to its end"

    def page(self) -> Iterator[str]:
        """The table."""
        from ostinato.bench.gpu.table import page, table

        record = self.record
        yield from ("# gpu-check", "", f"`{record['command']}`", "", f"**{self.verdict()}**", "")
        if record["facts"]:
            yield from (describe(record["facts"]), "")
        spent = ", ".join(f"{name} {seconds:g}" for name, seconds in record["seconds"].items())
        yield from (f"Seconds: {spent}.", "")
        where = "on the device" if (record["facts"] or {}).get("device") == "cuda" else "in the interpreter"
        yield from table(["law", f"cases {where}", "held", "did not", "s"], _by_law(record["laws"]))
        if record["compiled"]:
            yield from table(
                ["kernels for sm_90", "count", "wrong", "most registers", "most B shared"], _by_kernel(record)
            )
        if record["benchmark"]:
            yield from ("## Benchmark", "", *page(record["benchmark"]))
        failures = list(self.failures())
        if failures:
            yield from ("## What did not pass", "", *(f"- {line}" for line in failures), "")


def _law(end: Ended) -> dict[str, Any]:
    case, _ = end.task
    lines = end.value if end.how == "done" else [end.said]
    how = end.how if end.how != "done" else "differs" if lines else "held"
    return {"law": case.law, "case": str(case), "how": how, "said": lines, "seconds": round(end.seconds, 2)}


def _by_law(laws: list[dict[str, Any]]) -> Iterator[list[str]]:
    for name in dict.fromkeys(law["law"] for law in laws):
        own = [law for law in laws if law["law"] == name]
        ends = Counter(law["how"] for law in own)
        held = ends.pop("held", 0)
        rest = ", ".join(f"{count} {how}" for how, count in ends.items())
        yield [name, str(len(own)), str(held), rest or "0", f"{sum(law['seconds'] for law in own):.0f}"]


def _by_kernel(record: dict[str, Any]) -> Iterator[list[str]]:
    rows = record["compiled"]
    for kernel, shape in dict.fromkeys((row["kernel"], row["shape"]) for row in rows):
        own = [row for row in rows if (row["kernel"], row["shape"]) == (kernel, shape)]
        most = [max((row[what] or 0 for row in own), default=0) for what in ("registers", "shared")]
        yield [
            f"{kernel}, {shape}",
            str(len(own)),
            str(sum(bool(row["wrong"]) for row in own)),
            *(f"{value:,}" for value in most),
        ]


# ---------------------------------------------------------------- in a child process


def checked(task: tuple[Any, str]) -> list[str]:
    """What is off in a case; nothing where the law holds."""
    from device_laws import check

    case, device = task
    return check(case, device)


if __name__ == "__main__":
    sys.exit(main())
