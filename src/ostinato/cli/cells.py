"""`ostinato cells`: the catalogue, one cell or transform of it, or the page of them all."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import is_terminal, write

if TYPE_CHECKING:
    from ..gallery.facts import Facts, Text
    from ..gallery.transformed import Transformed

__all__ = ["cells"]

_PROSE = 100  # the widest that one reads with ease


def cells(
    cell: Annotated[
        str | None,
        typer.Argument(
            help="One cell in full: a name of the catalogue, with options and transforms, as 'zoneout(lstm, 0.1)', or "
            "FILE.py:NAME; or one transform."
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", help="Write the page of all cells here: cells.md and cells/*.svg.", metavar="FOLDER"),
    ] = None,
) -> None:
    """List the cells and transforms with their references, show one of them, or write the page of all."""
    from ..errors import CellError

    if cell is not None and gallery is not None:
        raise CellError("a cell and --gallery were given; the page is of all cells: leave one of them out")
    width = shutil.get_terminal_size().columns if is_terminal() else None
    if gallery is not None:
        _write_gallery(gallery)
    elif cell is not None:
        from ..gallery.facts import Facts
        from ..gallery.transformed import transformed
        from ..tasks.cell_option import find_cell

        prose = min(width or _PROSE, _PROSE)
        transform = next((t for t in transformed() if t.name == cell), None)
        write(_transform(transform, prose) if transform else _one(Facts(find_cell(cell)), prose))
    else:
        _all(width)


def _all(width: int | None) -> None:
    """Every cell by families, then the transforms: for a reader a paragraph each, for other programs a line each."""
    from ..gallery.facts import WIDTH, families
    from ..gallery.transformed import transformed

    groups = families()
    every = [facts for group in groups.values() for facts in group]
    changes = transformed()
    names = max(len(one.name) for one in (*every, *changes))
    states = max(len(_states(facts)) for facts in every)
    lines: list[str] = []

    def head(text: str) -> None:
        lines.extend(["", typer.style(textwrap.fill(text, width - 1), bold=True) if width else text])

    def entry(name: str, numbers: str, facts: str, summary: str, reference: str) -> None:
        first = f"  {name:<{names}}  "
        if width is None:
            lines.append(f"{first}{numbers}{summary} {reference}")
            return
        gap = " " * len(first)
        said = textwrap.fill(summary, width - 1, initial_indent=first, subsequent_indent=gap)
        said += "\n" + textwrap.fill(facts + reference, width - 1, initial_indent=gap, subsequent_indent=gap)
        lines.append(said.replace(name, typer.style(name, bold=True), 1))

    for family, group in groups.items():
        head(family)
        for f in group:
            numbers = f"{_states(f):<{states}}  {f.stages}  {f.count:>9,}  "
            stages = f"{f.stages} stage{'' if f.stages == 1 else 's'}"
            entry(f.name, numbers, f"{_states(f)}; {stages}; {f.count:,} parameters; ", f.text.summary, f.reference)
    head("Transforms, from cell to cell")
    for t in changes:
        entry(t.name, "", "", t.text.summary, t.reference)
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

    changes, origin = facts.applied
    summary = f"{origin}: {_summary(facts.text, facts.reference)}".rstrip(": ")
    parts = [_filled(f"{facts.name}: {origin} under {', '.join(reversed(changes))}.", width)] if changes else []
    parts += [] if changes else [_filled(summary, width)]
    parts.append(textwrap.indent(equations(facts.program, width=width - 4), "    "))
    if changes:
        parts += [_filled(f"{t.name}: {_summary(t.text, t.reference)}", width) for t in _changes(changes)]
        parts.append(_filled(summary, width))
        more = ", ".join(dict.fromkeys([*changes, origin.partition("(")[0]]))
        parts.append(_filled(f"`ostinato cells NAME` says more of each: {more}.", width))
    parts += [_filled(note, width) for note in facts.text.notes if not changes]
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
        same = f"It is {origin}{f'({call})' if call else ''}; `ostinato cells {origin}` says its options."
        parts.append(_filled(same, width))
    elif facts.options and not changes:
        parts.append(_told("options", [(f"{name} = {value!r}", said) for name, value, said in facts.options], width))
    return "\n\n".join(parts) + "\n"


def _transform(transform: Transformed, width: int) -> str:
    """All there is to say of a transform, with what it makes of a small cell."""
    from ..ir import equations, simplify

    text = transform.text
    parts = [_filled(f"{transform.name}, a transform of cells. {_summary(text, transform.reference)}", width)]
    parts.append(_filled(transform.signature, width, "    ", "        "))
    if text.equations:
        parts.append("\n".join(_filled(line, width, "    ", "        ") for line in text.equations))
    parts += [_filled(note, width) for note in text.notes]
    parts.append(_told("arguments", list(text.arguments.items()), width))
    parts += [_filled(f"{heading}: {said}", width) for heading, said in text.more]
    for call, program in transform.examples:
        parts += [call, textwrap.indent(equations(simplify(program), width=width - 4), "    ")]
    return "\n\n".join(parts) + "\n"


def _changes(names: Sequence[str]) -> list[Transformed]:
    """Each of these transforms, the first applied first."""
    from ..gallery.transformed import transformed

    known = {t.name: t for t in transformed()}
    return [known[name] for name in dict.fromkeys(reversed(names))]


def _summary(text: Text, reference: str) -> str:
    return f"{text.summary} {reference}." if reference else text.summary


def _told(head: str, entries: Sequence[tuple[str, str]], width: int) -> str:
    indent = " " * 8
    lines = [
        "\n".join([f"    {name}", *([_filled(said, width, indent, indent)] if said else [])]) for name, said in entries
    ]
    return "\n".join([head, *lines])


def _filled(text: str, width: int, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


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
