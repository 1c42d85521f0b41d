"""What all verbs share: how errors end, and how text reaches the terminal."""

from __future__ import annotations

import sys
import unicodedata
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import OptionError, OstinatoError, RunError
from ..training.processes import is_first

__all__ = ["Verbs", "is_terminal", "printable", "reading", "show_version", "write"]

_ORDER = ("train", "evaluate", "predict", "sample", "runs", "data", "cells", "show", "bench")
_BAD_INPUT = 2
_RUN_FAILED = 1


class Verbs(TyperGroup):
    """The verbs; an error raised on purpose ends any of them with one message and no traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are used; typer puts groups of verbs last."""
        return sorted(super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else 99)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        warnings.showwarning = _warn
        try:
            return super().invoke(ctx)
        except OstinatoError as error:
            if is_first():  # what ends one of several processes ends all, and one of them says so
                typer.echo(f"{typer.style('error:', fg='red', bold=True)} {error}", err=True)
            failed = isinstance(error, RunError) and not isinstance(error, OptionError)
            raise typer.Exit(_RUN_FAILED if failed else _BAD_INPUT) from None


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as one line; what others deprecate is nothing the reader of a run can change."""
    if is_first() and not issubclass(category, DeprecationWarning | PendingDeprecationWarning | FutureWarning):
        typer.echo(f"{typer.style('warning:', fg='yellow', bold=True)} {message}", err=True)


def show_version(asked: bool) -> None:
    """Print the version and exit, if asked."""
    if asked:
        from .. import __version__

        typer.echo(f"ostinato {__version__}")
        raise typer.Exit


def reading(kind: type) -> dict[str, Any]:
    """How typer reads an option of a kind: a number that is none is an error that says what was got."""
    if kind not in _NUMBERS:
        return {}

    def parser(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {_NUMBERS[kind]}.") from None

    return {"parser": parser, "metavar": f"<{kind.__name__}>"}


_NUMBERS = {int: "a whole number", float: "a number"}


def is_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()


def printable(text: str) -> str:
    """The text without what would command a terminal (colours, cursor moves): a model may have learned it."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text
    )


def write(text: str) -> None:
    """Write to standard output at once; what its encoding cannot say becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = printable(text) if is_terminal() else text
    sys.stdout.write(shown.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
