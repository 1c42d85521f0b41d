"""The page of all cells: Markdown with LaTeX that GitHub renders, and a picture of each step beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..ir import Program, equations, simplify
from .facts import WIDTH, Facts, Text, families, rule
from .svg import svg
from .transformed import Transformed, transformed

_LINE = 92  # characters of an equation that fit a page's width

_HEAD = """<!-- Written by scripts/gallery from the catalogue; changes belong there. -->

# Cells

Every cell of the library, from its equations alone. `ostinato cells NAME` prints the same in a terminal, and
`ostinato show NAME` goes on to its schedule and its C code.

In the equations D is the width of the input x, H that of the hidden states; σ is the logistic function, ⊙ the product
of elements, and a number or scalar stands before what it scales. Values that have no name in the cell's function are
a₁, a₂, ... Parameters are counted where every size is {width}.

The pictures show one step, and below it the step unrolled in time. In the step from left to right: the states before
it, the products of each *stage* (grey boxes with their matrices; a stage is a round of recurrent products, which waits
for the one before), the values that wait for them, and the states after it, marked ′. Logistic gates are orange, tanh
is blue, other functions are green, sums over a vector red, and sums and products of elements white. A dot in a formula
is what the products bring, biases included. x comes from below; its products (broken boxes) are computed for all steps
at once. The output leaves at the top.
"""


def gallery() -> dict[str, str]:
    """The files of the gallery by their paths: ``cells.md``, and ``cells/NAME.svg`` for each cell.

    >>> files = gallery()
    >>> "cells/lstm.svg" in files, files["cells.md"].count("# `lstm`")
    (True, 1)
    """
    groups = families()
    every = [facts for group in groups.values() for facts in group]
    transforms = transformed()
    parts = [_HEAD.format(width=WIDTH)]
    for family, group in groups.items():
        parts += [f"**{_prose(family)}**\n", _index(group)]
    parts += ["**[Transforms](#transforms)**, cell to cell: ", _names(transforms)]
    for family, group in groups.items():
        parts += [f"\n## {_prose(family)}\n", *(_cell(facts) for facts in group)]
    parts += [_transforms(transforms)]
    page = re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"
    return {"cells.md": page, **{f"cells/{facts.name}.svg": svg(facts.program) for facts in every}}


def _index(group: Sequence[Facts]) -> str:
    rows = [
        (
            f"[`{f.name}`](#{f.name})",
            _prose(f.text.summary),
            f.reference,
            str(len(f.states)),
            str(f.stages),
            f"{f.count:,}",
        )
        for f in group
    ]
    return _table(("cell", "what it is", "reference", "states", "stages", "parameters"), rows)


def _names(transforms: Sequence[Transformed]) -> str:
    return ", ".join(f"[`{t.name}`](#{t.name})" for t in transforms) + "\n"


def _cell(facts: Facts) -> str:
    text = facts.text
    parts = [f"### `{facts.name}`\n", _summary(text, facts.reference), _math(facts.program)]
    parts.append(f"\n![One step of {facts.name}](cells/{facts.name}.svg)\n")
    states = ", ".join(f"`{name}` [{size}]" for name, size in facts.states)
    parts.append(f"States: {states or 'none'}. Stages: {facts.stages}. Parameters: {facts.count:,}.\n")
    parts += [_prose(note) + "\n" for note in text.notes]
    preset = facts.preset_of
    if preset is not None:
        origin, options = preset
        call = ", ".join(f"{name}={value!r}" for name, value in options.items())
        parts.append(f"It is `{origin}{f'({call})' if call else ''}`{', and has its options' if call else ''}.\n")
    rows = [(f"`{p.name}`", _sizes(p.shape), rule(p), "no" if p.fixed else "yes") for p in facts.parameters]
    body = [_table(("parameter", "size", "starts as", "trained"), rows)]
    if preset is None and facts.cell.options:
        rows = [(f"`{name}`", f"`{value!r}`", _prose(said)) for name, value, said in facts.options]
        if not any(said for *_, said in rows):
            rows = [(name, value) for name, value, _ in rows]
        body.append("\n" + _table(("option", "default", "what it does")[: len(rows[0])], rows))
        if any(re.search(rf"\b{name}\b", line) for name in facts.cell.options for line in text.equations):
            body += ["\nWith its options:\n", _fence(text.equations)]
    title = "Parameters and options" if len(body) > 1 else "Parameters"
    parts.append(_details(title, body))
    return "\n".join(parts)


def _transforms(transforms: Sequence[Transformed]) -> str:
    parts = [
        "\n## Transforms\n",
        "A transform makes of any cell another, on the same compiled kernels: `ostinato.transforms`. They compose. "
        "Below each stand the equations it makes of a small cell, in training; $\\mathrm{E}_B$ is a mean over "
        "the batch.\n",
    ]
    for t in transforms:
        parts += [f"### `{t.name}`\n", _summary(t.text, t.reference)]
        if t.text.equations:
            parts.append(_fence(t.text.equations))
        parts += [_prose(note) + "\n" for note in t.text.notes]
        if t.text.arguments:
            rows = [(f"`{name}`", _prose(said)) for name, said in t.text.arguments.items()]
            parts.append(_table(("argument", "what it is"), rows))
        parts += [f"{heading}: {_prose(said)}\n" for heading, said in t.text.more if heading != "Raises"]
        parts += [f"\n`{example}`\n{_math(program)}" for example, program in t.examples]
    return "\n".join(parts)


# Pieces of Markdown


def _summary(text: Text, reference: str) -> str:
    return f"{_prose(text.summary)}{f' {reference}.' if reference else ''}\n"


def _math(program: Program) -> str:
    return f"\n```math\n{equations(simplify(program), latex=True, width=_LINE)}\n```\n"


def _fence(lines: Iterable[str]) -> str:
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _details(title: str, body: Sequence[str]) -> str:
    inner = "\n".join(body)
    return f"<details>\n<summary>{title}</summary>\n\n{inner}\n</details>\n"


def _sizes(shape: tuple[str, ...]) -> str:
    return f"[{', '.join(shape)}]" if shape else "scalar"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _prose(text: str) -> str:
    """Words as Markdown: nothing outside of backticks is markup."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if k % 2 else re.sub(r"([\\*_<~$])", r"\\\1", part) for k, part in enumerate(parts))
