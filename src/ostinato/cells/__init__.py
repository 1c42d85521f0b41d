"""The catalogue: every cell of the library by name. A new one is a function in its family's file and one line here."""

from __future__ import annotations

import difflib

from ..errors import CellError
from ..lang import Cell
from .elman import elman
from .gru import gru, gru_reset_after
from .lstm import lstm, peephole_lstm, projected_lstm

__all__ = ["catalogue", "elman", "get", "gru", "gru_reset_after", "lstm", "peephole_lstm", "projected_lstm"]

_CATALOGUE = (
    elman,
    lstm,
    projected_lstm,
    peephole_lstm,
    gru,
    gru_reset_after,
)


def catalogue() -> dict[str, Cell]:
    """Every cell by its name."""
    return {c.name: c for c in _CATALOGUE}


def get(name: str) -> Cell:
    """The cell of that name.

    Raises:
        CellError: there is none; the message suggests the nearest.
    """
    known = catalogue()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "it has " + ", ".join(known)
    raise CellError(f"the catalogue has no cell {name!r}; {hint}")
