"""Pointwise nodes of a Plan as Triton."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir import INFIX, Node

__all__ = ["expression"]

_LANGUAGE = ("exp", "log", "sqrt", "sin", "cos", "floor", "abs")  # functions of Triton's own
_OURS = ("tanh", "sigmoid", "softplus", "relu", "maximum", "minimum")  # of functions.py


def expression(node: Node, args: Sequence[str]) -> str:
    """A node, given its operands."""
    if node.op == "const":
        return number(float(node.attr or 0.0))
    if node.op in INFIX:
        return f"{args[0]} {INFIX[node.op]} {args[1]}"
    if node.op == "broadcast":
        return args[0]
    if node.op == "neg":
        return f"-{args[0]}"
    if node.op == "where":
        return f"tl.where({', '.join(args)})"
    if node.op == "pow":
        return _power(args[0], float(node.attr or 0.0))
    if node.op in _LANGUAGE:
        return f"tl.{node.op}({args[0]})"
    if node.op in _OURS:
        return f"f.{node.op}({', '.join(args)})"
    raise ValueError(f"no Triton for {node.op}")


def number(value: float) -> str:
    """A number as Triton reads it."""
    if math.isnan(value):
        return "float('nan')"
    if math.isinf(value):
        return f"float('{'-' if value < 0 else ''}inf')"
    return repr(value)


def _power(base: str, exponent: float) -> str:
    if exponent == -0.5:
        return f"1.0 / tl.sqrt({base})"
    if exponent == -1.5:
        return f"1.0 / ({base} * tl.sqrt({base}))"
    if exponent in (2.0, 3.0, 4.0):
        return " * ".join([base] * int(exponent))
    return f"f.power({base}, {number(exponent)})"
