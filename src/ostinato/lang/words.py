"""Steps written with torch's own functions: which of them symbols understand while such a step is read.

A cell is written with the functions of this library, which refuse what they cannot be. A step of `ostinato.scan` is
ordinary torch code: tensors it has at hand become parameters, and the functions named here do what they do in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from . import functions as f
from .reading import reading, refuse
from .symbol import Extent, Symbol, as_symbol, concat, pointwise, product


def _linear(x: Any, weight: Any, bias: Any = None) -> Symbol:
    value = product(as_symbol(weight), x)
    return value if bias is None else value + bias


def _matmul(a: Any, b: Any) -> Symbol:
    """A vector stands left or right of a matrix; left of it, the matrix is turned."""
    if isinstance(a, Symbol) and not isinstance(b, Symbol):
        if getattr(b, "ndim", 0) != 2:
            refuse("a vector times what is not a matrix", "write h @ W, W @ h or linear(h, W)")
        return product(as_symbol(b.t()), a)
    return product(as_symbol(a), b)


def _sum(a: Any, dim: int = -1) -> Symbol:
    _last(dim)
    return f.total(a)


def _mean(a: Any, dim: int = -1) -> Symbol:
    _last(dim)
    return f.mean(a)


def _last(dim: Any) -> None:
    if dim not in (-1, (-1,), [-1], None):
        refuse(f"a reduction over dimension {dim!r}", "reduce over the last one, -1: a step has vectors")


def _cat(values: Any, dim: int = -1) -> Symbol:
    _last(dim)
    return concat(*values)


def _infix(op: str, turned: bool = False) -> Callable[..., Symbol]:
    def run(a: Any, b: Any) -> Symbol:
        return pointwise(op, b, a) if turned else pointwise(op, a, b)

    return run


def _neg(a: Any) -> Symbol:
    return -as_symbol(a)


def _square(a: Any) -> Symbol:
    return as_symbol(a) * a


def _pow(a: Any, exponent: Any) -> Symbol:
    return as_symbol(a) ** exponent


def _silu(a: Any) -> Symbol:
    return as_symbol(a) * f.sigmoid(a)


def _turned_matmul(a: Any, b: Any) -> Symbol:
    return _matmul(b, a)


WORDS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(f, name) for name in ("tanh", "sigmoid", "relu", "exp", "log", "sqrt", "softplus", "abs", "sin")},
    **{name: getattr(f, name) for name in ("cos", "floor", "maximum", "minimum", "where")},
    **{name: _infix(name) for name in ("add", "sub", "mul", "div", "lt", "le", "gt", "ge")},
    "subtract": _infix("sub"),
    "multiply": _infix("mul"),
    "divide": _infix("div"),
    "true_divide": _infix("div"),
    **{f"r{name}": _infix(name, turned=True) for name in ("add", "sub", "mul", "div")},
    "truediv": _infix("div"),
    "rtruediv": _infix("div", turned=True),
    "neg": _neg,
    "square": _square,
    "pow": _pow,
    "silu": _silu,
    "matmul": _matmul,
    "rmatmul": _turned_matmul,
    "mv": _matmul,
    "linear": _linear,
    "cat": _cat,
    "concat": _cat,
    "concatenate": _cat,
    "mean": _mean,
    "sum": _sum,
}


def word(name: str) -> Callable[..., Any] | None:
    """What a function of torch of this name does with symbols, or None; ``add_`` is not ``add``, and not known."""
    special = len(name) > 4 and name.startswith("__") and name.endswith("__")
    return WORDS.get(name[2:-2] if special else name)


@contextmanager
def capturing(parameters: Callable[[Any], str], mode: Callable[[], object] = lambda: None) -> Generator[None]:
    """While a step is read, tensors become parameters; `parameters` gives each its name.

    `mode` says what of autograd is on, as no_grad changes it: a step that changes it cannot be read.
    """
    first = mode()

    def capture(tensor: Any) -> Symbol:
        if tensor.ndim > 2:
            refuse(f"a tensor of shape {list(tensor.shape)} stands in the step", "a parameter has 0, 1 or 2 dimensions")
        return Symbol("param", shape=tuple(Extent(str(n)) for n in tensor.shape), attr=parameters(tensor))

    def watch() -> None:
        if mode() != first:
            refuse("the step turns gradients or autocast on or off", "leave that to what calls scan")

    before = reading.capture
    reading.capture = (capture, word, watch)
    try:
        yield
    finally:
        reading.capture = before
