"""The functions a cell may use, beside arithmetic, comparison and ``@``.

Each works on symbols while a cell's equations are read. ``emit`` says what a step puts out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .symbol import Symbol, pointwise, refuse

__all__ = [
    "Emitted",
    "abs",
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


class Emitted(NamedTuple):
    """What `emit` returns: the output and the next states."""

    output: Symbol
    states: tuple[Symbol, ...]


def sigmoid(a: Any) -> Symbol:
    """1 / (1 + exp(-a)), elementwise."""
    return pointwise("sigmoid", a)


def tanh(a: Any) -> Symbol:
    """The hyperbolic tangent, elementwise."""
    return pointwise("tanh", a)


def relu(a: Any) -> Symbol:
    """max(a, 0), elementwise; its derivative at 0 is 0."""
    return pointwise("relu", a)


def exp(a: Any) -> Symbol:
    """The exponential, elementwise."""
    return pointwise("exp", a)


def log(a: Any) -> Symbol:
    """The natural logarithm, elementwise; NaN below 0, -inf at 0."""
    return pointwise("log", a)


def sqrt(a: Any) -> Symbol:
    """The square root, elementwise; NaN below 0."""
    return pointwise("sqrt", a)


def softplus(a: Any) -> Symbol:
    """log(1 + exp(a)), elementwise."""
    return pointwise("softplus", a)


def abs(a: Any) -> Symbol:
    """The absolute value, elementwise; its derivative at 0 is 0."""
    return pointwise("abs", a)


def maximum(a: Any, b: Any) -> Symbol:
    """The greater of two, elementwise; NaN if either is."""
    return pointwise("maximum", a, b)


def minimum(a: Any, b: Any) -> Symbol:
    """The smaller of two, elementwise; NaN if either is."""
    return pointwise("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Symbol:
    """`a` where the comparison holds, else `b`, elementwise."""
    if not isinstance(condition, Symbol):
        refuse("the condition of where is not a comparison", "write where(a > b, value, other)")
    return pointwise("where", condition, a, b)


def emit(output: Any, *states: Any) -> Emitted:
    """Return ``emit(y, h, c)`` from a cell to put out `y` instead of the first state."""
    if not all(isinstance(value, Symbol) for value in (output, *states)):
        refuse("emit takes values of the step", "write return emit(output, *next_states)")
    return Emitted(output, states)
