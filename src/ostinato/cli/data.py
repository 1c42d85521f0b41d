"""`ostinato data list` and `ostinato data get NAME`: public data sets by name."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["data"]

_TASKS = {
    "text": "text",
    "labelled text": "classify",
    "series": "classify",
    "images": "classify",
    "rolls": "label",
    "beats": "label",
    "timed table": "forecast",
}
"""What takes a kind of data by its name."""

data = typer.Typer(help="List the public data sets that tasks take by name, or fetch one.", no_args_is_help=True)


@data.command("list")
def _list() -> None:
    """List the data sets: name, the task that takes it, size, what it is, licence."""
    from rich.console import Console
    from rich.table import Table

    from ..data.catalogue import entries
    from .console import is_terminal

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (
        ("name", "left"),
        ("task", "left"),
        ("files", "right"),
        ("size", "right"),
        ("what", "left"),
        ("licence", "left"),
    ):
        table.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    for entry in entries():
        what = f"{entry.title}; {entry.note}" if entry.note else entry.title
        task = _TASKS.get(entry.kind, "-")
        table.add_row(entry.name, task, str(len(entry.files)), _size(entry.size), what, entry.licence)
    Console(width=None if is_terminal() else 200, highlight=False).print(table)
    typer.echo("\nostinato train TASK NAME; those without a task are read by ostinato.data.load(NAME) alone.")
    typer.echo("Files are taken from the folder that OSTINATO_DATA names, or fetched once from their public origin.")


@data.command("get")
def _get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the list has it.", show_default=False)],
) -> None:
    """Fetch a data set, if it is not there already, and print where its files are."""
    from ..data.catalogue import fetch

    for path in fetch(name, lambda line: typer.echo(line, err=True)).values():
        typer.echo(str(path))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
