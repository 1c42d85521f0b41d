"""`ostinato bench`: measure against torch.nn, loops in PyTorch and JAX and our own lstm, in one run, in turn."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["bench"]

_INTERRUPTED = 130
_WRONG = 1


def bench(
    table: Annotated[
        str, typer.Option(help="What to measure: vendor, catalogue, transforms, packed or bfloat16.")
    ] = "vendor",
    cells: Annotated[
        str,
        typer.Option(help="Cells by name, separated by commas; catalogue and transforms are all of these."),
    ] = "",
    shapes: Annotated[str, typer.Option(help="BxH with T = 100, or TxBxH, separated by commas.")] = "",
    passes: Annotated[str, typer.Option(help="Of train, infer, stream.")] = "",
    peers: Annotated[
        str,
        typer.Option(help="Of torch.nn, eager-loop, jax, lstm/flop, lstm/op, copy, torchrecurrent."),
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="Samples of each side. Default: 9.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: as torch has it.")] = None,
    backend: Annotated[str, typer.Option(help="For our layers: auto, c or eager.")] = "auto",
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many, small shapes first; the rest is listed in the record.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the record to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and short; not to be quoted.")] = False,
) -> None:
    """Measure our layers against their peers, interleaved in one run, and print a table."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..bench.report.table import busy_warning, describe_head, rows_table
    from ..bench.run import Group, Options, run
    from ..bench.task.cells import parse_cells
    from ..bench.task.shapes import PASSES, PEERS, parse_names, parse_shapes
    from .console import is_terminal

    options = Options(
        table=table,
        cells=parse_cells(cells) if cells else None,
        shapes=parse_shapes(shapes) if shapes else None,
        passes=parse_names(passes, PASSES, "pass") if passes else None,
        peers=parse_names(peers, PEERS, "peer") if peers else None,
        repeats=repeats,
        threads=threads,
        backend=backend,
        minutes=minutes,
        quick=quick,
        command=shlex.join(["ostinato", *sys.argv[1:]]),
    )
    # What is piped has no edge to fold at.
    console = Console(width=None if is_terminal() else 160, highlight=False)
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not is_terminal()) as progress:
            task = progress.add_task("measuring", total=None)

            def show(group: Group, found: list[dict[str, Any]], number: int, total: int) -> None:
                rows.extend(found)
                progress.update(task, description=str(group), completed=number, total=total)

            record = run(options, json, show)
    except KeyboardInterrupt:
        if rows:
            console.print(rows_table(rows))
        where = f"; they are in {json}, marked incomplete" if json and rows else ""
        typer.echo(f"stopped after {len(rows)} rows{where}", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    console.print(rows_table(record["rows"]))
    console.print(describe_head(record), markup=False)
    if busy := busy_warning(record["rows"]):
        typer.echo(f"warning: {busy}", err=True)
    if record["unmeasured"]:
        typer.echo(f"{len(record['unmeasured'])} groups were not measured within {minutes:g} minutes", err=True)
    wrong = [row for row in record["rows"] if row["error"]]
    for row in wrong:
        typer.echo(f"{row['cell']} {row['pass']} against {row['peer']}: {row['error']}", err=True)
    if json is not None:
        console.print(f"written to {json}", markup=False)
    if wrong:
        raise typer.Exit(_WRONG)
