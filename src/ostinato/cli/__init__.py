"""The command line: one file per verb.

Each verb imports what is heavy inside its function, so that `ostinato --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..tasks.registry import TASKS
from .bench import bench
from .cells import cells
from .console import Verbs, show_version
from .data import data
from .evaluate import evaluate, predict
from .runs import runs
from .sample import sample
from .show import show
from .train import train_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="ostinato",
    help="Recurrent networks in which a cell is its equations.",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train = typer.Typer(help="Train a model and write a run folder.", no_args_is_help=True)


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=show_version),
    ] = False,
) -> None:
    """Recurrent networks in which a cell is its equations."""


for _task in TASKS.values():
    train.command(_task.name)(train_command(_task))
app.add_typer(train, name="train")
app.command("evaluate")(evaluate)
app.command("predict")(predict)
app.command("sample")(sample)
app.command("runs")(runs)
app.add_typer(data, name="data")
app.command("cells")(cells)
app.command("show")(show)
app.command("bench")(bench)


def main() -> None:
    """What the console script `ostinato` calls."""
    app(prog_name="ostinato")
