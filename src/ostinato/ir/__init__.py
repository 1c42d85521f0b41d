"""Programs: nodes, the table of operations, simplification, adjoint, printing. No torch below this line."""

from __future__ import annotations

from .adjoint import adjoint
from .build import Builder
from .levels import INPUT, PARAMETERS, STATE, levels, without_params
from .node import Mask, Node, Shape, Statistic, size_sum, size_value
from .ops import INFIX, OPS, Op, written
from .program import FORMAT, Program
from .show import equations, expression, value_names
from .simplify import prune, simplify
from .states import activations, delayed
from .variants import evaluation, output_as_state, with_states_out, without_output

__all__ = [
    "FORMAT",
    "INFIX",
    "INPUT",
    "OPS",
    "PARAMETERS",
    "STATE",
    "Builder",
    "Mask",
    "Node",
    "Op",
    "Program",
    "Shape",
    "Statistic",
    "activations",
    "adjoint",
    "delayed",
    "equations",
    "evaluation",
    "expression",
    "levels",
    "output_as_state",
    "prune",
    "simplify",
    "size_sum",
    "size_value",
    "value_names",
    "with_states_out",
    "without_output",
    "without_params",
    "written",
]
