"""One run of the benchmark: stage by stage, compiled by many processes first, then measured by one alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..measure.crew import Crew, Ended
from .bounds import Need, floor_ms
from .device import CEILINGS, FLUSH
from .grid import GRID, PUBLISHED, REHEARSAL, Case, Stage, stages
from .ours import TRIED
from .verdicts import verdicts

__all__ = ["Options", "run"]

COMPILE_S = 90.0  # for the kernels of a case
CASE_S = 60.0  # for measuring one
LAST_S = 2.0  # with less than that left no case is begun
MOST = 14  # processes that compile, each with a context on the GPU

Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        seconds: for all of it.
        cells: names of the catalogue; None: all.
        jobs: processes that compile.
        tune: for which cases forms of our kernels are measured before one is chosen, see `stages`.
        flush: empty the second-level cache before each sample.
        rehearse: tiny shapes on the CPU through Triton's interpreter, to see that everything runs.
    """

    seconds: float
    cells: tuple[str, ...] | None = None
    jobs: int = 1
    tune: str = "first"
    flush: bool = False
    rehearse: bool = False

    @property
    def environment(self) -> dict[str, str | None]:
        """Of the processes."""
        if self.rehearse:
            return {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return {"TRITON_INTERPRET": None, FLUSH: "1" if self.flush else None}


def run(options: Options, on_change: Callable[[Record], None] = lambda _: None) -> Record:
    """Measure what there is time for, and say what was left out.

    Args:
        on_change: is given the record whenever it has grown.
    """
    until = time.monotonic() + options.seconds
    order = stages(REHEARSAL if options.rehearse else GRID, options.cells, options.tune)
    record = _head(options, order)
    left = dict.fromkeys(record["left_out"])
    target = "ostinato.bench.gpu.device"
    compiling = min(options.jobs, MOST)
    with (
        Crew(f"{target}:compiled", compiling, options.environment | {"OMP_NUM_THREADS": "1"}) as compilers,
        Crew(f"{target}:measured", 1, options.environment) as device,
    ):
        for end in device.run([(CEILINGS, options.rehearse)], CASE_S, until):
            if end.how != "done":
                raise RuntimeError(f"the device could not be measured: {end.said}")
            record |= end.value
        for stage in order:
            if time.monotonic() > until - LAST_S:
                break
            for found in _compile(stage, compilers, options, until, record):
                record["compiled"].append(found)
                on_change(record)
            if time.monotonic() > until - LAST_S:
                break
            for row in _measure(stage, device, options, until, record):
                left.pop(row["case"])
                record["rows"].append(row)
                record |= {"left_out": list(left), "verdicts": verdicts(record)}
                on_change(record)
    record["complete"] = not left
    on_change(record)
    return record


def _head(options: Options, order: list[Stage]) -> Record:
    return {
        "kind": "gpu",
        "rehearsal": options.rehearse,
        "of_a_cell": (REHEARSAL if options.rehearse else GRID).size,
        "seconds": options.seconds,
        "order": [{"stage": stage.title, "cases": len(stage.cases)} for stage in order],
        "published": PUBLISHED,
        "ceilings": None,
        "method": None,
        "compiled": [],
        "rows": [],
        "verdicts": [],
        "left_out": [str(case) for stage in order for case in stage.cases],
        "complete": False,
    }


def _compile(stage: Stage, crew: Crew, options: Options, until: float, record: Record) -> Iterator[dict[str, Any]]:
    """The kernels of a stage that are not compiled yet; nothing is measured meanwhile.

    First those in the forms that the model chooses, which other forms stand beside when they are run.
    """
    known = {found["case"] for found in record["compiled"]}
    fresh = {str(case.kernels): case.kernels for case in stage.cases if str(case.kernels) not in known}
    numbers = range(1 if options.rehearse else TRIED + 1)  # and one with products by the library
    tasks = [(case, options.rehearse, n) for n in numbers for case in fresh.values() if n == 0 or case.tuned]
    for end in crew.run(tasks, COMPILE_S, until - LAST_S):
        case, _, number = end.task
        said = {"how": end.how, "said": end.said, "seconds": round(end.seconds, 2)}
        yield {"case": str(case), "form": number, **said}


def _measure(stage: Stage, crew: Crew, options: Options, until: float, record: Record) -> Iterator[dict[str, Any]]:
    chosen = [found for found in record["compiled"] if found["form"] == 0]
    failed = {found["case"]: found for found in chosen if found["how"] not in ("done", "not run")}
    sound = [case for case in stage.cases if str(case.kernels) not in failed]
    for case in stage.cases:
        if (found := failed.get(str(case.kernels))) is not None:
            yield _row(case, None, f"its kernels were not compiled: {found['said']}", record)
    for end in crew.run([(case, options.rehearse) for case in sound], CASE_S, until):
        if end.how == "not run" or (end.how == "late" and time.monotonic() >= until):
            continue
        yield _row(end.task[0], end, end.said or None, record)


def _row(case: Case, end: Ended | None, error: str | None, record: Record) -> dict[str, Any]:
    shape = case.shape
    row: dict[str, Any] = {"case": str(case), "stage": case.stage, "cell": case.cell, "dtype": case.dtype}
    row |= {"pass": case.pass_, "T": shape.T, "B": shape.B, "D": shape.D, "H": shape.H}
    row |= {"ms": None, "form": None, "flops": None, "operations": None, "bytes": None, "peers": {}, "error": error}
    row |= {"seconds": round(end.seconds, 2) if end else None}
    if end is not None and end.how == "done":
        row |= end.value
    row["floor_ms"] = row["share"] = None
    if row["ms"] is not None and math.isfinite(row["ms"]):
        row["floor_ms"] = floor_ms(Need(row["flops"], row["operations"], row["bytes"]), case.dtype, record["ceilings"])
        row["share"] = row["floor_ms"] / row["ms"]
    return row
