"""Names of the literature for a cell with options, told by the equations that differ."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ..lang import Cell

_BLOCK = re.compile(r"\n\n((?: {4}\S.*(?:\n|$))+)")  # the equations: the first lines set in


def preset(cell: Cell, name: str, doc: str, /, **options: Any) -> Cell:
    """`cell` with these options under a name of its own, as ``cell.preset``.

    The equations in `doc` are those that are not the cell's; the rest of them is put in from its documentation. An
    equation stands for the one with the same left side, and several stand in the order in which they are given.
    """
    return cell.preset(name, _completed(inspect.cleandoc(doc), cell.doc), **options)


def _completed(doc: str, origin: str) -> str:
    summary, _, rest = doc.partition("\n\n")
    changed = _equations(doc)
    equations = _equations(origin)
    sides = [_side(line) for line in equations]
    places = sorted(sides.index(_side(line)) for line in changed)
    for place, line in zip(places, changed, strict=True):
        equations[place] = line
    notes = rest.partition("\n\n")[2] if changed else rest
    return "\n\n".join([summary, "\n".join(equations), notes])


def _equations(doc: str) -> list[str]:
    found = _BLOCK.search(doc)
    return found[1].splitlines() if found else []


def _side(equation: str) -> str:
    return equation.partition("=")[0].strip()
