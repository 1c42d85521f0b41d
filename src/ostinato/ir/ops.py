"""The closed table of operations: arity, kind, price, how it is written, and its derivative.

Every legal node is a row of `OPS`. Shapes follow the kind:

    leaf        const, input, state, param; mask (random numbers given to the step); size (the number that the size
                `attr` stands for); in schedules also grad (a gradient coming in), acc (a sum of products)
    pointwise   operands of one shape, or scalars; the result has the vector's shape
    compare     as pointwise, but the result is a truth value and may only stand first in `where`
    product     matmul: [M, K] @ [K] -> [M];  matmul_t: [M, K] transposed @ [M] -> [K]
    structure   concat: vectors end to end;  cols, rows: a slice of a matrix or vector from the offset `attr`;
                total: the sum of a vector's elements, a scalar of the step;  broadcast: a scalar as a vector;
                transpose: [M, K] -> [K, M], of matrices that depend on parameters alone
    batch       batch_mean: the mean over the sequences that are running at the step, element by element
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .build import Builder

# (builder, operands, the node itself, gradient of the node) -> gradient of each operand
Rule = Callable[["Builder", tuple[int, ...], int, int], tuple["int | None", ...]]


@dataclass(frozen=True)
class Op:
    """A row of the table.

    Args:
        arity: number of operands, -1 for any.
        kind: leaf, pointwise, compare, product, structure or batch.
        dear: costs a transcendental function; backward keeps its value if a place is free.
        text: how it is written in unicode, ``{0}`` the first operand.
        latex: how it is written in LaTeX.
        binding: how tightly it binds (100: needs no brackets).
        fold: its value on numbers.
        derivative: the gradients of its operands.
    """

    arity: int
    kind: str
    text: str = ""
    latex: str = ""
    binding: int = 100
    dear: bool = False
    fold: Callable[..., float] | None = None
    derivative: Rule | None = None


# what C and languages of its family write between two operands
INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def written(template: str, values: Sequence[str], attr: str = "") -> str:
    """A template of the table with its operands in place: ``{0}``, ``{all}`` of them, and the attribute."""
    whole = {"attr": attr, "all": "; ".join(values), **{str(i): value for i, value in enumerate(values)}}
    return re.sub(r"\{(\d|attr|all)\}", lambda found: whole[found.group(1)], template)


def _d_sigmoid(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return (b.mul(g, b.mul(out, b.sub(b.const(1.0), out))),)


def _d_tanh(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return (b.mul(g, b.sub(b.const(1.0), b.mul(out, out))),)


def _d_relu(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return (b.where(b.compare("gt", out, b.const(0.0)), g, b.const(0.0)),)


def _d_sqrt(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return (b.div(g, b.mul(b.const(2.0), out)),)


def _d_abs(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    zero = b.const(0.0)
    negative = b.where(b.compare("lt", a[0], zero), b.neg(g), b.mul(g, zero))
    return (b.where(b.compare("gt", a[0], zero), g, negative),)


def _d_mul(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return b.mul(g, a[1]), b.mul(g, a[0])


def _d_div(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    return b.div(g, a[1]), b.neg(b.div(b.mul(g, out), a[1]))


def _d_pow(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    exponent = b.number(out)
    if exponent == 0.0:
        return (None,)
    return (b.mul(g, b.mul(b.const(exponent), b.pow(a[0], exponent - 1.0))),)


def _d_extreme(greater: str, less: str) -> Rule:
    """maximum and minimum: the winner takes the gradient; equals share it, as in torch."""

    def rule(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
        zero, half = b.const(0.0), b.mul(g, b.const(0.5))
        wins, loses = b.compare(greater, a[0], a[1]), b.compare(less, a[0], a[1])
        return b.where(wins, g, b.where(loses, zero, half)), b.where(loses, g, b.where(wins, zero, half))

    return rule


def _d_where(b: Builder, a: tuple[int, ...], out: int, g: int) -> tuple[int | None, ...]:
    zero = b.const(0.0)
    return None, b.where(a[0], g, zero), b.where(a[0], zero, g)


def _neg(x: float) -> float:
    return -x


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _relu(x: float) -> float:
    return max(x, 0.0)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _call(name: str, latex: str, fold: Callable[..., float], rule: Rule, *, dear: bool = True, arity: int = 1) -> Op:
    slots = ", ".join(f"{{{i}}}" for i in range(arity))
    return Op(arity, "pointwise", f"{name}({slots})", f"{latex}({slots})", 100, dear, fold, rule)


def _infix(symbol: str, latex: str, binding: int, fold: Callable[[float, float], float], rule: Rule) -> Op:
    return Op(2, "pointwise", f"{{0}} {symbol} {{1}}", f"{{0}} {latex} {{1}}", binding, False, fold, rule)


OPS: dict[str, Op] = {
    "const": Op(0, "leaf"),
    "input": Op(0, "leaf"),
    "state": Op(0, "leaf"),
    "param": Op(0, "leaf"),
    "mask": Op(0, "leaf"),
    "size": Op(0, "leaf"),
    "grad": Op(0, "leaf"),
    "acc": Op(0, "leaf"),
    "neg": Op(1, "pointwise", "−{0}", "-{0}", 25, False, _neg, lambda b, a, o, g: (b.neg(g),)),
    "sigmoid": _call("σ", r"\sigma", _sigmoid, _d_sigmoid),
    "tanh": _call("tanh", r"\tanh", math.tanh, _d_tanh),
    "relu": _call("relu", r"\mathrm{relu}", _relu, _d_relu, dear=False),
    "exp": _call("exp", r"\exp", math.exp, lambda b, a, o, g: (b.mul(g, o),)),
    "sin": _call("sin", r"\sin", math.sin, lambda b, a, o, g: (b.mul(g, b.op("cos", a[0])),)),
    "cos": _call("cos", r"\cos", math.cos, lambda b, a, o, g: (b.neg(b.mul(g, b.op("sin", a[0]))),)),
    "floor": Op(1, "pointwise", "⌊{0}⌋", r"\left\lfloor {0} \right\rfloor", 100, False, math.floor),
    "log": _call("log", r"\log", math.log, lambda b, a, o, g: (b.div(g, a[0]),)),
    "sqrt": replace(_call("√", "", math.sqrt, _d_sqrt), latex=r"\sqrt{{0}}"),
    "softplus": _call(
        "softplus",
        r"\mathrm{softplus}",
        _softplus,
        lambda b, a, o, g: (b.mul(g, b.sigmoid(a[0])),),
    ),
    "abs": _call("abs", r"\mathrm{abs}", math.fabs, _d_abs, dear=False),
    "add": _infix("+", "+", 10, lambda x, y: x + y, lambda b, a, o, g: (g, g)),
    "sub": _infix("−", "-", 10, lambda x, y: x - y, lambda b, a, o, g: (g, b.neg(g))),
    "mul": _infix("⊙", r"\odot", 20, lambda x, y: x * y, _d_mul),
    "div": _infix("/", "/", 20, lambda x, y: x / y, _d_div),
    "maximum": _call("max", r"\max", max, _d_extreme("gt", "lt"), dear=False, arity=2),
    "minimum": _call("min", r"\min", min, _d_extreme("lt", "gt"), dear=False, arity=2),
    "pow": Op(1, "pointwise", "{0}^{attr}", "{0}^{{attr}}", 30, False, None, _d_pow),
    "lt": Op(2, "compare", "{0} < {1}", "{0} < {1}", 5),
    "le": Op(2, "compare", "{0} ≤ {1}", r"{0} \le {1}", 5),
    "gt": Op(2, "compare", "{0} > {1}", "{0} > {1}", 5),
    "ge": Op(2, "compare", "{0} ≥ {1}", r"{0} \ge {1}", 5),
    "where": Op(
        3,
        "pointwise",
        "where({0}, {1}, {2})",
        r"\mathrm{where}({0}, {1}, {2})",
        100,
        False,
        None,
        _d_where,
    ),
    "matmul": Op(2, "product", "{0} {1}", "{0} {1}", 22),
    "matmul_t": Op(2, "product", "{0}ᵀ {1}", r"{0}^\top {1}", 22),
    "concat": Op(-1, "structure", "[{all}]", r"\left[{all}\right]"),
    "cols": Op(1, "structure", "{0}[:, {attr}:]", r"{0}_{:,\,{attr}:}"),
    "rows": Op(1, "structure", "{0}[{attr}:]", r"{0}_{{attr}:}"),
    # computed before the sequence, where torch differentiates it
    "transpose": Op(1, "structure", "{0}ᵀ", r"{0}^\top", 40),
    "total": Op(
        1,
        "structure",
        "sum({0})",
        r"\mathrm{sum}({0})",
        derivative=lambda b, a, o, g: (b.broadcast(g, b.nodes[a[0]].shape),),
    ),
    "broadcast": Op(1, "structure", "{0}", "{0}", derivative=lambda b, a, o, g: (b.total(g),)),
    # each mean holds 1/n of every sequence, so that the gradient of each is the mean of the gradients
    "batch_mean": Op(
        1,
        "batch",
        "batch_mean({0})",
        r"\mathrm{E}_B[{0}]",
        derivative=lambda b, a, o, g: (b.op("batch_mean", g),),
    ),
}
