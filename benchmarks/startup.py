"""What a user waits for once: the imports, the first call that compiles, the first call from the cache.

python benchmarks/startup.py --json startup.json
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from ostinato.bench.measure.machine import describe_run, import_times
from ostinato.bench.measure.startup import METHOD, STARTUP_SHAPE, measure_startup
from ostinato.bench.report.record import check_writable, write_record
from ostinato.bench.script import run_script
from ostinato.bench.task.cells import parse_cells
from ostinato.bench.task.shapes import parse_shapes


def main(
    cells: Annotated[str, typer.Option(help="Separated by commas.")] = "lstm,gru",
    shape: Annotated[str, typer.Option(help="TxBxH.")] = str(STARTUP_SHAPE),
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 9,
    json: Annotated[Path | None, typer.Option(help="Write the record to this file.")] = None,
) -> None:
    """Measure the imports and the first calls in fresh processes."""
    chosen, (size, *_) = parse_cells(cells), parse_shapes(shape)
    if json is not None:
        check_writable(json)
    imports = import_times(repeats)
    typer.echo(f"import torch {imports['torch_s']:.2f} s; with ostinato {imports['added_s']:.3f} s more")
    rows = []
    for cell in chosen:
        row = measure_startup(cell, size, repeats)
        rows.append(row)
        for kind, times in row["kinds"].items():
            said = ", ".join(f"{name[:-2]} {seconds * 1e3:.1f} ms" for name, seconds in times.items())
            typer.echo(f"{cell} ({row['backend']}) {kind}: {said}")
    if json is not None:
        command = shlex.join(["python", "benchmarks/startup.py", *sys.argv[1:]])
        head = describe_run("startup", command, torch.get_num_threads())
        write_record(json, {**head, "method": METHOD, "import_s": imports, "rows": rows})


if __name__ == "__main__":
    run_script(main)
