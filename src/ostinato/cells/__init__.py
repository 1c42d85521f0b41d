"""The catalogue: every cell of the library by name. A new one is a function in its family's file, listed there."""

from __future__ import annotations

import difflib

from ..errors import CellError
from ..lang import Cell
from . import beyond as _beyond
from . import diagonal as _diagonal
from . import elman as _elman
from . import filters as _filters
from . import gru as _gru
from . import lstm as _lstm
from . import minimal as _minimal
from . import peephole as _peephole
from . import structured as _structured
from . import time_constants as _time_constants
from .beyond import *
from .diagonal import *
from .elman import *
from .filters import *
from .gru import *
from .lstm import *
from .minimal import *
from .peephole import *
from .structured import *
from .time_constants import *

# In the form that type checkers read.
__all__ = ["catalogue", "get"]
__all__ += _beyond.__all__
__all__ += _diagonal.__all__
__all__ += _elman.__all__
__all__ += _filters.__all__
__all__ += _gru.__all__
__all__ += _lstm.__all__
__all__ += _minimal.__all__
__all__ += _peephole.__all__
__all__ += _structured.__all__
__all__ += _time_constants.__all__

_FAMILIES = (
    _elman,
    _lstm,
    _peephole,
    _gru,
    _minimal,
    _beyond,
    _diagonal,
    _structured,
    _time_constants,
    _filters,
)


def catalogue() -> dict[str, Cell]:
    """Every cell by its name, family by family."""
    return {c.name: c for family in _FAMILIES for c in vars(family).values() if isinstance(c, Cell)}


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
