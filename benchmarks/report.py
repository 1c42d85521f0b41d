"""Write the figures of recorded runs into docs/benchmarks.md, between its markers.

python benchmarks/report.py vendor.json catalogue.json memory.json startup.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ostinato.bench.report.markdown import BEGIN, END, render_figures, replace_figures
from ostinato.bench.report.record import load_record, write_text
from ostinato.bench.report.tables import TABLES
from ostinato.bench.script import run_script
from ostinato.errors import RunError

KINDS = ("bench", "memory", "startup")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main(
    records: Annotated[list[Path], typer.Argument(help="Files written by --json, one of each table and kind at most.")],
    page: Annotated[Path, typer.Option(help="The page to write into.")] = PAGE,
) -> None:
    """Replace the figures of the page by those of the records; the words around them stay."""
    by_name: dict[str, dict[str, Any]] = {}
    for path in records:
        record = load_record(path)
        kind = record["kind"]
        if kind not in KINDS:
            raise RunError(f"{path} is a record of {kind!r}; known are: {', '.join(KINDS)}.")
        name = f"{kind}: {record['table']}" if kind == "bench" else kind
        if name in by_name:
            raise RunError(f"{path} is a second record of {name!r}; give one of each.")
        by_name[name] = record
    try:
        document = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be read ({error.strerror}); name the page with --page.") from error
    order = [f"bench: {table}" for table in TABLES] + ["memory", "startup"]
    figures = render_figures({name: by_name[name] for name in order if name in by_name})
    changed = replace_figures(document, figures)
    if changed is None:
        raise RunError(f"{page} must hold the lines {BEGIN!r} and {END!r} once each, in this order.")
    write_text(page, changed)
    typer.echo(f"figures written to {page.name}")


if __name__ == "__main__":
    run_script(main)
