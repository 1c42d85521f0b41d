"""Compiles the Triton kernels of every catalogue cell for sm_90, and says what each takes: no GPU is needed.

    python benchmarks/sm90.py [--cells lstm gru] [--hidden-size 64] [--jobs 2] [--limit 60] [--json FILE]

Needs triton (3.6). Registers and spills are what ptxas says, shared memory what Triton asks for. Every kernel is
compiled in a child process, which is ended if it takes longer than `--limit` seconds. The exit status is 1 where a
kernel does not compile in time, spills registers (of which it says how many instructions within loops move them),
or asks for more shared memory than a program of the card may have.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(ROOT / "src"), str(ROOT / "benchmarks")) if path not in sys.path]

import torch  # noqa: E402

from ostinato import cells  # noqa: E402
from ostinato.bench.measure.crew import Crew  # noqa: E402
from ostinato.bench.task.cells import extra_sizes, known_cell  # noqa: E402

SHARED = 227 * 1024  # bytes that one program may have
KERNELS = ("infer", "train", "backward")
SHAPES = ("whole", "stages", "meeting")
WIDE = 256  # units, at least, of kernels whose programs meet
BATCH = 16
LIMIT_S = 60.0

Row = dict[str, Any]


def main() -> int:
    """Compile, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", type=known_cell, help="names; default: the catalogue")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes; default: the cores")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for a kernel")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = []
    for row in compiled(asked.cells or catalogue(), asked.hidden_size, asked.jobs, asked.limit):
        rows.append(row)
        print(line(row), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    wrong = [row for row in rows if row["wrong"]]
    most = max((row["shared"] or 0 for row in rows), default=0)
    print(f"{len(rows)} kernels, {len(wrong)} of them wrong, at most {most:,} B shared")
    for row in wrong:
        print(f"{row['cell']} {row['kernel']} {row['shape']}: {row['wrong']}")
    return int(bool(wrong))


def catalogue() -> list[str]:
    """The names of all cells."""
    return list(cells.catalogue())


def compiled(
    names: Sequence[str],
    hidden: int = 64,
    jobs: int = 1,
    limit: float = LIMIT_S,
    until: float = math.inf,
) -> Iterator[Row]:
    """A row for each kernel of the cells, as each is done.

    Args:
        names: of the catalogue; hidden: D and H.
        jobs: processes; limit: seconds that a kernel may take; until: when all must end, of `time.monotonic`.
    """
    tasks = [(name, kernel, hidden, shape) for name in names for kernel in KERNELS for shape in SHAPES]
    with tempfile.TemporaryDirectory(prefix="ostinato-sm90-") as cache:  # empty, so that the seconds are of compiling
        environment = {"TRITON_INTERPRET": None, "OMP_NUM_THREADS": "1", "TRITON_CACHE_DIR": cache}
        yield from _rows(Crew("sm90:measured", jobs, environment), tasks, hidden, limit, until)


def _rows(crew: Crew, tasks: Sequence[Any], hidden: int, limit: float, until: float) -> Iterator[Row]:
    with crew:
        for end in crew.run(tasks, limit, until):
            name, kernel, _, shape = end.task
            row: Row = {"cell": name, "hidden_size": hidden, "kernel": kernel, "shape": shape}
            row |= {"registers": None, "spilled": None, "in_loops": None}
            row |= {"shared": None, "seconds": round(end.seconds, 2)} | (end.value or {})
            yield row | {"wrong": end.said if end.how != "done" else fault(row)}


def fault(row: Row) -> str:
    """What is wrong with a kernel that did compile; nothing: ""."""
    where = f"{row['in_loops']} instructions within loops move them"
    faults = [f"{row['spilled']} B of registers are spilled; {where}"] if row["spilled"] else []
    faults += [f"it asks for {row['shared']:,} B of shared memory, and there are {SHARED:,}"] * (row["shared"] > SHARED)
    return "; ".join(faults)


def line(row: Row) -> str:
    """A row in print."""
    head = f"{row['cell']:24} {row['kernel']:9} {row['shape']:7}"
    if row["registers"] is None:
        return f"{head} {row['wrong']}"
    taken_by = f"{row['registers']:4} registers {row['spilled']:5} B spilled {row['shared']:7} B shared"
    return f"{head} {taken_by} {row['seconds']:6.1f} s"


# ---------------------------------------------------------------- in a child process


def measured(task: tuple[str, str, int, str]) -> dict[str, Any]:
    """What one kernel of a cell takes, where all its sizes are H, or half of it beside D and H.

    In the form that the model puts first for an H200 and a batch of 16; with products by the vendor's library; or, of
    bfloat16 factors and at least `WIDE` units, in the first form whose programs meet.
    """
    from ostinato.backends.triton import Layout, candidates, compiled, facts
    from ostinato.runtime.step import Step

    name, kernel, hidden, shape = task
    hidden = max(hidden, WIDE) if shape == "meeting" else hidden
    program = cells.get(name).program()
    step = Step.of(program, True, {"D": hidden, "H": hidden, **extra_sizes(program, hidden)})
    layout = Layout(step.plan.anonymous(), step.plan_sizes)
    factors = "bfloat16" if shape == "meeting" else "float32"
    likely = candidates(layout, kernel, BATCH, factors, facts(torch.device("cpu")))
    if shape == "meeting":
        found = [each.form for each in likely if each.form.meeting]
    else:
        found = [each.form for each in likely if each.form.stages == (shape == "stages")]
    if not found:
        return dict.fromkeys(TAKEN, 0) | {"form": "none: there is nothing to share"}
    form = found[0]
    made = [taken(each) for each in compiled(layout, form, kernel).values()]
    return {what: max(each[what] for each in made) for what in TAKEN} | {"form": str(form)}


def taken(made: Any) -> dict[str, int]:
    """Registers, bytes that are spilled, and bytes of shared memory of what Triton made."""
    said = assembled(made.asm["ptx"])
    found = {what: re.search(pattern, said) for what, pattern in PATTERNS.items()}
    numbers = {what: int(match.group(1)) if match else 0 for what, match in found.items()}
    return numbers | {"in_loops": in_loops(made.asm["cubin"]), "shared": made.metadata.shared}


def in_loops(cubin: bytes) -> int:
    """Instructions between a label and a jump back to it that store or load spilled registers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [tools().nvdisasm.path, "-c", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    labels: dict[str, int] = {}
    spills, loops = list[int](), list[tuple[int, int]]()
    for number, written in enumerate(text.splitlines()):
        if label := re.match(r"\s*(\.L_\w+):", written):
            labels[label.group(1)] = number
        elif re.search(r"\b(LDL|STL)\b", written):
            spills.append(number)
        elif (jump := re.search(r"\bBRA\b.*?(\.L_\w+)", written)) and jump.group(1) in labels:
            loops.append((labels[jump.group(1)], number))
    return sum(any(first <= spill <= last for first, last in loops) for spill in spills)


def tools() -> Any:
    """The programs that Triton brings, or that the user has named in place of them."""
    from triton import knobs

    return knobs.nvidia


def assembler() -> str:
    """That which Triton takes for this card: it brings several, and which it takes depends on its version."""
    from triton.backends.nvidia.compiler import get_ptxas

    return get_ptxas(90).path


TAKEN = ("registers", "spilled", "in_loops", "shared")
PATTERNS = {"registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores"}


def assembled(ptx: str) -> str:
    """What the assembler that Triton brings says of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        command = [assembler(), "-v", "--gpu-name=sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


if __name__ == "__main__":
    sys.exit(main())
