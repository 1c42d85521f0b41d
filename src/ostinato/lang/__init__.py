"""The language of cells: `cell`, the functions its equations may use, and how they are read."""

from __future__ import annotations

from .cell import Cell, cell
from .functions import (
    abs,
    cos,
    dropout,
    emit,
    exp,
    floor,
    log,
    maximum,
    mean,
    minimum,
    relu,
    sigmoid,
    sin,
    softplus,
    sqrt,
    tanh,
    total,
    transpose,
    where,
)
from .symbol import concat
from .trace import trace_step

__all__ = [
    "Cell",
    "abs",
    "cell",
    "concat",
    "cos",
    "dropout",
    "emit",
    "exp",
    "floor",
    "log",
    "maximum",
    "mean",
    "minimum",
    "relu",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
    "total",
    "trace_step",
    "transpose",
    "where",
]
