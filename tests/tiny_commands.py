"""Commands as a person types them, on a run that takes a blink."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from typer.testing import CliRunner

from ostinato.cli import app
from tiny_runs import TEXT

SMALL = [
    "--hidden-size",
    "8",
    "--embedding-size",
    "6",
    "--batch-size",
    "4",
    "--bptt",
    "8",
    "--sample-length",
    "30",
]

MINE = """
from ostinato import cell, tanh

@cell
def mine(p, x, h):
    return tanh(p.W @ x + p.U @ h)
"""


def ostinato(*arguments: object, **options: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def trained(folder: Path) -> Path:
    """A run of one epoch."""
    (folder / "beer.txt").write_text(TEXT)
    code, out, _ = ostinato("train", "text", folder / "beer.txt", "--out", folder / "it", "--epochs", 1, *SMALL)
    assert code == 0, out
    return folder / "it"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "ostinato", *map(str, arguments)]


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
