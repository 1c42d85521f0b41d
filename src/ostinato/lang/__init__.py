"""The language of cells: `cell`, the functions its equations may use, and how they are read."""

from __future__ import annotations

from .cell import Cell, cell
from .functions import abs, emit, exp, log, maximum, minimum, relu, sigmoid, softplus, sqrt, tanh, where
from .symbol import concat

__all__ = [
    "Cell",
    "abs",
    "cell",
    "concat",
    "emit",
    "exp",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]
