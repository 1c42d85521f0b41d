"""How a script of the folder `benchmarks` ends: an error raised on purpose is one line, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from ..errors import OstinatoError

__all__ = ["run_script"]


def run_script(main: Callable[..., None]) -> None:
    """Run a function as a command line, its arguments as options."""
    try:
        typer.run(main)
    except OstinatoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
