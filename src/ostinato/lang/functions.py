"""The functions a cell may use, beside arithmetic, comparison and ``@``.

Each works on symbols while a cell's equations are read. ``emit`` says what a step puts out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..ir import Mask
from .reading import refuse
from .symbol import Extent, Symbol, as_symbol, describe, first_extent, pointwise, settle, settle_vector

__all__ = [
    "abs",
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
    "transpose",
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


def sin(a: Any) -> Symbol:
    """The sine, elementwise; `a` in radians."""
    return pointwise("sin", a)


def cos(a: Any) -> Symbol:
    """The cosine, elementwise; `a` in radians."""
    return pointwise("cos", a)


def floor(a: Any) -> Symbol:
    """The greatest whole number that is not greater, elementwise; its derivative is 0."""
    return pointwise("floor", a)


def total(a: Any) -> Symbol:
    """The sum of a vector's elements, a scalar of the step."""
    return Symbol("total", (_vector("total", a),), ())


def mean(a: Any) -> Symbol:
    """The mean of a vector's elements, a scalar of the step: ``a - mean(a)`` is centred."""
    vector = _vector("mean", a)
    return total(vector) / Symbol("size", shape=(), attr=first_extent(vector))


def transpose(matrix: Any) -> Symbol:
    """A matrix of parameters with rows and columns exchanged: ``(p.W - transpose(p.W)) @ h`` is antisymmetric."""
    value = as_symbol(matrix)
    stack, seen = [value], set[int]()
    while stack:
        part = stack.pop()
        if part.op in ("input", "state") or (part.op == "mask" and len(part.shape or ()) != 2):
            refuse(
                f"transpose of {describe(value)}, which the step computes",
                "transpose a matrix of parameters alone, as transpose(p.W), and multiply a vector by it",
            )
        if part.serial not in seen:
            seen.add(part.serial)
            stack.extend(part.args)
    if value.shape is None:
        settle(value, (Extent(), Extent()))
    if value.shape is None or len(value.shape) != 2:
        refuse(f"transpose of {describe(value)}, which is not a matrix", "give it a matrix, as transpose(p.W)")
    return Symbol("transpose", (value,), (value.shape[1], value.shape[0]))


def dropout(a: Any, rate: Any, locked: bool = False) -> Symbol:
    """`a` with elements set to 0 at random in training and the others divided by ``1 - rate``; `a` in evaluation.

    Args:
        rate: the probability of a 0, 0 <= rate < 1.
        locked: the same elements at every step of a sequence (Gal & Ghahramani 2016), else others at each.
    """
    value = _vector("dropout", a)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        refuse(f"the rate of dropout is {rate!r}", "give a probability, 0 <= rate < 1")
    if rate == 0:
        return value
    keep = 1.0 - rate
    return value * Symbol("mask", shape=value.shape, attr=Mask("", keep, 1.0 / keep, bool(locked)))


def _vector(what: str, a: Any) -> Symbol:
    """A vector of the step."""
    value = settle_vector(as_symbol(a))
    if value.shape is None or len(value.shape) != 1:
        refuse(f"{what} of a value that is not a vector", "give it x, a state, or what was computed from them")
    return value


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
