"""Write the figures of recorded runs into docs/benchmarks.md, between its markers.

python benchmarks/report.py bench.json memory.json startup.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ostinato.bench.markdown import BEGIN, END, render_figures, replace_figures
from ostinato.bench.record import load_record, write_text
from ostinato.bench.script import run_script
from ostinato.errors import RunError

KINDS = ("bench", "memory", "startup")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main(
    records: Annotated[list[Path], typer.Argument(help="Files written by --json, one of each kind at most.")],
    page: Annotated[Path, typer.Option(help="The page to write into.")] = PAGE,
) -> None:
    """Replace the figures of the page by those of the records; the words around them stay."""
    by_kind: dict[str, dict[str, Any]] = {}
    for path in records:
        record = load_record(path)
        kind = record["kind"]
        if kind not in KINDS:
            raise RunError(f"{path} is a record of {kind!r}; known are: {', '.join(KINDS)}.")
        if kind in by_kind:
            raise RunError(f"{path} is a second record of {kind!r}; give one of each kind.")
        by_kind[kind] = record
    try:
        document = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be read ({error.strerror}); name the page with --page.") from error
    figures = render_figures({kind: by_kind[kind] for kind in KINDS if kind in by_kind})
    changed = replace_figures(document, figures)
    if changed is None:
        raise RunError(f"{page} must hold the lines {BEGIN!r} and {END!r} once each, in this order.")
    write_text(page, changed)
    typer.echo(f"figures written to {page.name}")


if __name__ == "__main__":
    run_script(main)
