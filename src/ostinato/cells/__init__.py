"""The catalogue: every cell of the library by name. A new one is a function in its family's file and one line here."""

from __future__ import annotations

import difflib

from ..errors import CellError
from ..lang import Cell
from .beyond import (
    fastgrnn,
    highway,
    slstm,
    ugrnn,
)
from .diagonal import (
    indrnn,
    lru,
    qrnn,
    sru,
)
from .elman import (
    elman,
    irnn,
    jordan,
    simple,
)
from .filters import (
    fir,
    iir,
    linear,
)
from .gru import gru, gru_reset_after
from .lstm import lstm, peephole_lstm, projected_lstm
from .structured import (
    antisymmetric,
    lmu,
)
from .time_constants import (
    clockwork,
    leaky,
    narx,
    retention,
    time_skip,
)

__all__ = [
    "antisymmetric",
    "catalogue",
    "clockwork",
    "elman",
    "fastgrnn",
    "fir",
    "get",
    "gru",
    "gru_reset_after",
    "highway",
    "iir",
    "indrnn",
    "irnn",
    "jordan",
    "leaky",
    "linear",
    "lmu",
    "lru",
    "lstm",
    "narx",
    "peephole_lstm",
    "projected_lstm",
    "qrnn",
    "retention",
    "simple",
    "slstm",
    "sru",
    "time_skip",
    "ugrnn",
]

_CATALOGUE = (
    elman,
    irnn,
    simple,
    jordan,
    lstm,
    projected_lstm,
    peephole_lstm,
    gru,
    gru_reset_after,
    ugrnn,
    highway,
    slstm,
    fastgrnn,
    indrnn,
    sru,
    qrnn,
    lru,
    antisymmetric,
    lmu,
    leaky,
    clockwork,
    time_skip,
    narx,
    retention,
    fir,
    iir,
    linear,
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
