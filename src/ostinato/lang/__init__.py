"""The language of cells: `cell`, the functions its equations may use, and how they are read."""

from __future__ import annotations

from . import functions as _functions
from .cell import Cell, cell
from .functions import *
from .symbol import concat
from .trace import trace_step

__all__ = ["Cell", "cell", "concat", "trace_step"]
__all__ += _functions.__all__
