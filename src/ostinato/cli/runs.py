"""`ostinato runs`: a table of run folders, to compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["runs"]


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER...", help="Run folders, or folders that hold some. Default: runs."),
    ] = None,
    options: Annotated[
        str, typer.Option(help="Show these options too, separated by commas, as hidden_size,cell.")
    ] = "",
    sort: Annotated[str, typer.Option(help="Sort by this column. Default: the task, then the best measure.")] = "",
) -> None:
    """Compare runs: task, model, length, and the measures of the best evaluation of each."""
    from rich.console import Console
    from rich.table import Table

    from ..errors import OptionError, RunError
    from ..tasks.run import find_runs
    from .console import is_terminal

    found = find_runs(folders or [Path("runs")])
    wanted = [name.strip() for name in options.split(",") if name.strip()]
    rows: list[dict[str, Any]] = []
    missing = set(wanted)
    for run in found:
        try:
            rows.append(_row(run, wanted))
            missing -= run.config.values().keys()
        except RunError as error:
            if len(found) == 1:
                raise
            typer.echo(f"left out: {error}", err=True)  # one damaged run must not hide the others
    if not rows:
        raise RunError("no run in them can be read.")
    if missing:
        raise OptionError(f"there is no option {min(missing)!r} in any of these runs; see ostinato train TASK --help.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if sort and sort not in columns:
        raise OptionError(f"there is no column {sort!r}; the columns are {', '.join(columns)}.")
    rows.sort(key=lambda row: _key(row.get(sort) if sort else (row["task"], _first_measure(row))))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = all(isinstance(row.get(name, 0.0), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in columns))
    Console(width=None if is_terminal() else 200, highlight=False).print(table)


def _row(run: Any, wanted: list[str]) -> dict[str, Any]:
    about, position, values = run.about, run.position, run.config.values()
    return {
        "run": str(run.path),
        "task": about["task"],
        "model": about["title"].partition(", on ")[0],
        "parameters": about["parameters"],
        "steps": position["step"],
        "minutes": round(position["seconds"] / 60.0, 1),
        **{name: values.get(name) for name in wanted},
        **{name: float(f"{value:.5g}") for name, value in position["best_measures"].items()},
    }


def _first_measure(row: dict[str, Any]) -> float:
    return next((value for value in reversed(row.values()) if isinstance(value, float)), 0.0)


def _key(value: Any) -> Any:
    return (value is None, isinstance(value, str), value if value is not None else 0)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
