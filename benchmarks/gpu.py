"""Times the Triton backend on a GPU: against cuDNN, an eager loop with and without CUDA graphs, and what bounds it.

    python benchmarks/gpu.py [--seconds 540] [--cells lstm gru] [--out DIR]
    python benchmarks/gpu.py --rehearse        tiny shapes on the CPU, to see that all of it runs

Needs torch and triton alone. Kernels are compiled ahead by many processes into Triton's own cache on the disk; then one
process measures alone. A case that hangs is ended, with its process, and the next one begins. The most important shapes
come first; what there was no time for is listed. Writes gpu.json and gpu.md every few seconds. The exit status is 1
where a measurement failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT / "src"),) if path not in sys.path]

from ostinato.bench.gpu.facts import describe, facts  # noqa: E402
from ostinato.bench.measure.crew import Crew  # noqa: E402
from ostinato.bench.report.record import check_writable, write_record, write_text  # noqa: E402
from ostinato.bench.task.cells import known_cell  # noqa: E402
from ostinato.errors import OstinatoError  # noqa: E402

SECONDS = 540.0
EVERY_S = 3.0  # between two writings of what was measured


def main() -> int:
    """Measure, and write down what was found as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--cells", nargs="*", type=known_cell, help="names of the catalogue; default: all")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes that compile; default: the cores")
    parser.add_argument("--tune", choices=("first", "all", "none"), default="first", help="whose forms are measured")
    parser.add_argument("--flush", action="store_true", help="empty the second-level cache before each sample")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json and gpu.md")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    head: dict[str, Any] = {"command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])}
    last: dict[str, Any] = {}
    written = 0.0

    def measure() -> None:
        from ostinato.bench.gpu.run import Options, run

        cells = tuple(asked.cells) if asked.cells else None
        run(Options(asked.seconds, cells, asked.jobs, asked.tune, asked.flush, asked.rehearse), note)

    def note(record: dict[str, Any]) -> None:
        nonlocal written
        last.update(record)
        if time.monotonic() - written > EVERY_S:
            write(record)
            written = time.monotonic()

    def write(record: dict[str, Any]) -> None:
        from ostinato.bench.gpu.table import page

        lines = ["# The Triton backend on a GPU", "", f"`{head['command']}`", "", describe(head["facts"]), ""]
        write_record(asked.out / "gpu.json", head | record)
        write_text(asked.out / "gpu.md", "\n".join([*lines, *page(record)]) + "\n")

    stopped = True
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        check_writable(asked.out / "gpu.json")
        head["facts"] = facts() if asked.rehearse else asked_in_time()
        if not asked.rehearse and (head["facts"] is None or head["facts"]["device"] != "cuda"):
            print("error: torch finds no GPU here; --rehearse goes through it on the CPU", file=sys.stderr)
            return 1
        measure()
        stopped = False
    except KeyboardInterrupt:
        print("interrupted; what was measured is written", file=sys.stderr)
    except (OSError, RuntimeError, OstinatoError) as error:
        print(f"error: {error}", file=sys.stderr)
    if not last:
        return 1
    write(last)
    wrong = [row for row in last["rows"] if row["error"]]
    print(f"{len(last['rows'])} cases, {len(wrong)} failed, {len(last['left_out'])} not measured")
    if asked.rehearse:
        print("a rehearsal, of which no figure means anything")
    for verdict in last["verdicts"]:
        print(f"{verdict['what']}: {verdict['got']}")
    return int(stopped or bool(wrong) or not last["rows"])


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def asked_in_time() -> dict[str, Any] | None:
    """The facts, from a process of its own: asking a driver can hang."""
    with Crew(f"{facts.__module__}:facts", 1) as crew:
        return next(iter(crew.run([None], 60.0))).value


if __name__ == "__main__":
    sys.exit(main())
