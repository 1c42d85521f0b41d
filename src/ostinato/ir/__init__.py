"""Programs: nodes, the table of operations, simplification, adjoint, printing. No torch below this line."""

from __future__ import annotations

from .adjoint import adjoint
from .build import Builder
from .levels import INPUT, PARAMETERS, STATE, levels, without_params
from .node import Node, Shape, size_sum, size_value
from .ops import OPS, Op, written
from .program import FORMAT, Program
from .show import equations
from .simplify import prune, simplify

__all__ = [
    "FORMAT",
    "INPUT",
    "OPS",
    "PARAMETERS",
    "STATE",
    "Builder",
    "Node",
    "Op",
    "Program",
    "Shape",
    "adjoint",
    "equations",
    "levels",
    "prune",
    "simplify",
    "size_sum",
    "size_value",
    "without_params",
    "written",
]
