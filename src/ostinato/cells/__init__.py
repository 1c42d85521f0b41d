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
from .gru import (
    gru,
    gru_reset_after,
    mut1,
    mut2,
    mut3,
)
from .lstm import (
    cifg,
    goodfellow_lstm,
    lstm,
    lstm_1997,
    lstm_b,
    lstm_f,
    lstm_i,
    lstm_np,
    lstm_o,
    projected_lstm,
    squashed_lstm,
)
from .minimal import (
    janet,
    mgu,
    mingru,
    minlstm,
)
from .peephole import (
    full_peephole_lstm,
    goodfellow_peephole_lstm,
    lstm_cifg,
    lstm_fgr,
    lstm_nfg,
    lstm_niaf,
    lstm_nig,
    lstm_noaf,
    lstm_nog,
    peephole_cifg,
    peephole_lstm,
)
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
    "cifg",
    "clockwork",
    "elman",
    "fastgrnn",
    "fir",
    "full_peephole_lstm",
    "get",
    "goodfellow_lstm",
    "goodfellow_peephole_lstm",
    "gru",
    "gru_reset_after",
    "highway",
    "iir",
    "indrnn",
    "irnn",
    "janet",
    "jordan",
    "leaky",
    "linear",
    "lmu",
    "lru",
    "lstm",
    "lstm_1997",
    "lstm_b",
    "lstm_cifg",
    "lstm_f",
    "lstm_fgr",
    "lstm_i",
    "lstm_nfg",
    "lstm_niaf",
    "lstm_nig",
    "lstm_noaf",
    "lstm_nog",
    "lstm_np",
    "lstm_o",
    "mgu",
    "mingru",
    "minlstm",
    "mut1",
    "mut2",
    "mut3",
    "narx",
    "peephole_cifg",
    "peephole_lstm",
    "projected_lstm",
    "qrnn",
    "retention",
    "simple",
    "slstm",
    "squashed_lstm",
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
    full_peephole_lstm,
    lstm_1997,
    cifg,
    peephole_cifg,
    squashed_lstm,
    goodfellow_lstm,
    goodfellow_peephole_lstm,
    lstm_nig,
    lstm_nfg,
    lstm_nog,
    lstm_niaf,
    lstm_noaf,
    lstm_cifg,
    lstm_np,
    lstm_fgr,
    lstm_i,
    lstm_f,
    lstm_o,
    lstm_b,
    gru,
    gru_reset_after,
    mgu,
    mut1,
    mut2,
    mut3,
    mingru,
    minlstm,
    janet,
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
