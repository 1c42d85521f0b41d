"""Peak memory of a training step, ours against torch.nn's, each in a process of its own.

python benchmarks/memory.py --json memory.json
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from ostinato.bench.measure.machine import describe_run
from ostinato.bench.measure.memory import MEMORY_SHAPE, METHOD, measure_memory
from ostinato.bench.peers.torch_nn import TORCH_MODULES
from ostinato.bench.report.record import check_writable, write_record
from ostinato.bench.script import run_script
from ostinato.bench.task.cells import parse_cells
from ostinato.bench.task.shapes import parse_shapes


def main(
    cells: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(TORCH_MODULES),
    shape: Annotated[str, typer.Option(help="TxBxH.")] = str(MEMORY_SHAPE),
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each side.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the record to this file.")] = None,
) -> None:
    """Measure by how much training steps raise the peak of resident memory."""
    chosen, (size, *_) = parse_cells(cells), parse_shapes(shape)
    if json is not None:
        check_writable(json)
    rows = []
    for cell in chosen:
        row = measure_memory(cell, size, repeats)
        rows.append(row)
        against = f", {row['peer']} {row['peer_mib']:.0f} MiB, {row['ratio']:.2f}" if row["peer"] else ""
        typer.echo(f"{cell} ({row['backend']}) {size}: {row['mib']:.0f} MiB{against}")
    if json is not None:
        command = shlex.join(["python", "benchmarks/memory.py", *sys.argv[1:]])
        write_record(
            json,
            {**describe_run("memory", command, torch.get_num_threads()), "method": METHOD, "rows": rows},
        )


if __name__ == "__main__":
    run_script(main)
