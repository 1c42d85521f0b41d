"""`ostinato cells`: the catalogue, one cell of it, or the page of them all."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import is_terminal, write

if TYPE_CHECKING:
    from ..gallery.facts import Facts

__all__ = ["cells"]

_PROSE = 100  # the widest that one reads with ease


def cells(
    cell: Annotated[
        str | None, typer.Argument(help="One cell in full: a name of the catalogue, or FILE.py:NAME.")
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", help="Write the page of all cells here: cells.md and cells/*.svg.", metavar="FOLDER"),
    ] = None,
) -> None:
    """List the cells of the catalogue with their references, show one of them, or write the page of all."""
    from ..errors import CellError

    if cell is not None and gallery is not None:
        raise CellError("a cell and --gallery were given; the page is of all cells: leave one of them out")
    width = shutil.get_terminal_size().columns if is_terminal() else None
    if gallery is not None:
        _write_gallery(gallery)
    elif cell is not None:
        from ..gallery.facts import Facts
        from .cell_option import find_cell

        write(_one(Facts(find_cell(cell)), min(width or _PROSE, _PROSE)))
    else:
        _all(width)


def _all(width: int | None) -> None:
    """Every cell by families: for a reader a paragraph each, for other programs a line each."""
    from ..gallery.facts import WIDTH, families

    groups = families()
    every = [facts for group in groups.values() for facts in group]
    names, states = (max(map(len, texts)) for texts in ([f.name for f in every], [_states(f) for f in every]))
    references = max(len(facts.reference) for facts in every)
    lines: list[str] = []
    for family, group in groups.items():
        head = typer.style(textwrap.fill(family, width - 1), bold=True) if width else family
        lines += ["", head]
        for facts in group:
            name = f"  {facts.name:<{names}}  "
            if width is None:
                numbers = f"{_states(facts):<{states}}  {facts.stages}  {facts.count:>9,}"
                lines.append(f"{name}{numbers}  {facts.reference:<{references}}  {facts.text.summary}")
                continue
            gap = " " * len(name)
            said = textwrap.fill(facts.text.summary, width - 1, initial_indent=name, subsequent_indent=gap)
            stages = f"{facts.stages} stage{'' if facts.stages == 1 else 's'}"
            facts_of = f"{_states(facts)}; {stages}; {facts.count:,} parameters; {facts.reference}"
            said += "\n" + textwrap.fill(facts_of, width - 1, initial_indent=gap, subsequent_indent=gap)
            lines.append(said.replace(facts.name, typer.style(facts.name, bold=True), 1))
    last = (
        f"States; rounds of recurrent products that wait for one another; parameters where every size is {WIDTH}. "
        "`ostinato cells NAME` says more of one, `ostinato show NAME` what is made of it."
    )
    lines += ["", textwrap.fill(last, width - 1 if width else _PROSE)]
    typer.echo("\n".join(lines).lstrip("\n"))


def _states(facts: Facts) -> str:
    return ", ".join(name for name, _ in facts.states)


def _one(facts: Facts, width: int) -> str:
    """All there is to say of a cell."""
    from ..gallery.facts import WIDTH, rule
    from ..ir import equations

    def filled(text: str, first: str = "", rest: str = "") -> str:
        return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)

    summary = f"{facts.name}: {facts.text.summary}".rstrip(": ")
    parts = [filled(f"{summary} {facts.reference}." if facts.reference else summary)]
    parts.append(textwrap.indent(equations(facts.program, width=width - 4), "    "))
    parts += [filled(note) for note in facts.text.notes]
    states = ", ".join(f"{name} [{size}]" for name, size in facts.states)
    parts.append(
        f"states      {states or 'none'}\nstages      {facts.stages}\n"
        f"parameters  {facts.count:,} where every size is {WIDTH}"
    )
    rows = [(p.name, f"[{', '.join(p.shape)}]", rule(p) + (", not trained" * p.fixed)) for p in facts.parameters]
    parts.append(_columns("parameter", "size", "starts as", rows))
    preset = facts.preset_of
    if preset is not None:
        origin, options = preset
        call = ", ".join(f"{name}={value!r}" for name, value in options.items())
        parts.append(
            filled(f"It is {origin}{f'({call})' if call else ''}; `ostinato cells {origin}` says its options.")
        )
    elif facts.options:
        told = [f"{name} = {value!r}" for name, value, _ in facts.options]
        indent = " " * 8
        lines = [
            "\n".join([f"    {option}", *([filled(said, indent, indent)] if said else [])])
            for option, (*_, said) in zip(told, facts.options, strict=True)
        ]
        parts.append("\n".join(["options", *lines]))
    return "\n\n".join(parts) + "\n"


def _columns(*head_and_rows: Any) -> str:
    *head, rows = head_and_rows
    lines = [tuple(head), *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _write_gallery(folder: Path) -> None:
    from ..errors import RunError
    from ..gallery.page import gallery

    files = gallery()
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"the gallery could not be written to {folder}: {error}; give --gallery a folder") from error
    write(f"{folder / 'cells.md'} and {len(files) - 1} pictures in {folder / 'cells'}\n")
