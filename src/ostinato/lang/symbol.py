"""Symbols: what a cell's arguments are while its equations are read."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NoReturn

from ..ir import Mask, size_sum
from .reading import reading, refuse


class Extent:
    """A size that may not be known yet; equal extents are united."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._same: Extent | None = None

    def root(self) -> Extent:
        return self if self._same is None else self._same.root()

    @property
    def name(self) -> str | None:
        return self.root()._name

    def unite(self, other: Extent) -> bool:
        """Make the two one; False if both are known and differ."""
        a, b = self.root(), other.root()
        if a is b:
            return True
        if a._name is not None and b._name is not None:
            return a._name == b._name
        if a._name is None:
            a, b = b, a
        b._same = a
        return True

    def resolve(self) -> str:
        """Its name; a size that nothing determines is the hidden size H."""
        root = self.root()
        if root._name is None:
            root._name = "H"
        return root._name

    def __str__(self) -> str:
        return self.name or "?"


class Symbol:
    """A value of the step that is being described: x, a state, a parameter, or what was computed from them.

    It knows arithmetic (``+ - * / **`` elementwise, ``@`` a matrix times a vector), comparisons for `where`, and the
    functions of `ostinato`; nothing else, since it has no numbers.
    """

    __slots__ = ("args", "attr", "name", "op", "serial", "shape")
    _count = itertools.count()
    __array_ufunc__ = None  # numpy arrays hand over to the reflected operators, which refuse

    def __init__(
        self,
        op: str,
        args: tuple[Symbol, ...] = (),
        shape: tuple[Extent, ...] | None = (),
        attr: float | str | Extent | Mask | None = None,
    ) -> None:
        self.op = op
        self.args = args
        self.shape = shape  # None: a parameter that has not been used yet
        self.attr = attr
        self.name = ""
        self.serial = next(Symbol._count)  # operands come before what is made of them
        watch = reading.watch
        if watch is not None and watch.frame is None:
            watch.look(inspect.currentframe())
        if reading.capture is not None:
            reading.capture[2]()

    def _in_place(self, other: Any) -> Any:
        # in a cell `h += y` gives the name h to a sum; in torch it changes a tensor, under all its names
        if reading.capture is not None:
            refuse("the step changes a value in place", "write h = h + y")
        return NotImplemented

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = _in_place

    def __add__(self, other: Any) -> Symbol:
        return pointwise("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return pointwise("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return pointwise("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return pointwise("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return pointwise("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return pointwise("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return pointwise("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return pointwise("div", other, self)

    def __neg__(self) -> Symbol:
        return pointwise("neg", self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return pointwise("abs", self)

    def __pow__(self, exponent: Any) -> Symbol:
        if isinstance(exponent, bool) or not isinstance(exponent, int | float):
            refuse("an exponent is a number", "write exp(b * log(a)) for a computed one")
        return pointwise("pow", self, attr=float(exponent))

    def __rpow__(self, base: Any) -> Symbol:
        refuse("an exponent is a number", "write exp(b * log(a)) for a computed one")

    def __matmul__(self, other: Any) -> Symbol:
        if reading.capture is not None and not isinstance(other, Symbol):
            return self._torch("matmul")(self, other)
        return product(self, other)

    @staticmethod
    def _torch(name: str) -> Callable[..., Any]:
        """What a function of torch does with symbols, where a step is read that may use it."""
        known = reading.capture[1](name) if reading.capture is not None else None
        if known is None:
            refuse(f"torch.{name} does not take symbols", "use the functions of ostinato: sigmoid, tanh, ...")
        return known

    def __rmatmul__(self, other: Any) -> Symbol:
        if reading.capture is None:
            refuse("what stands left of @ is not a parameter", "write p.NAME @ value")
        return self._torch("matmul")(other, self)  # torch's own @ takes a CellError, a TypeError, for "not mine"

    def __lt__(self, other: Any) -> Symbol:
        return pointwise("lt", self, other)

    def __le__(self, other: Any) -> Symbol:
        return pointwise("le", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return pointwise("gt", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return pointwise("ge", self, other)

    def __bool__(self) -> bool:  # noqa: PLE0304 - it only refuses, and what tests it expects a bool
        refuse(
            "a symbol has no truth value while the equations are read",
            "choose elementwise with where(condition, a, b), or by an option (a keyword-only argument) at compile time",
        )

    def _no_number(self, *_: Any) -> NoReturn:
        refuse(
            "a symbol has no number while the equations are read", "use the functions of ostinato: sigmoid, tanh, ..."
        )

    __float__ = __int__ = __index__ = __array__ = _no_number

    def _no_items(self, *_: Any) -> NoReturn:
        refuse("a symbol has no elements while the equations are read", "write elementwise equations of whole vectors")

    __getitem__ = __iter__ = __len__ = _no_items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if reading.capture is None:
            refuse(f"a symbol has no attribute {name!r}", "use the functions of ostinato: sigmoid, tanh, ...")
        return functools.partial(self._torch(name), self)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {k: v for k, v in (kwargs or {}).items() if (k, v) != ("inplace", False)}
        return cls._torch(getattr(func, "__name__", str(func)))(*args, **given)

    def __repr__(self) -> str:
        return f"<symbol {self.name or self.attr or self.op}>"


def as_symbol(value: Any) -> Symbol:
    """A symbol, or a number as a constant."""
    if isinstance(value, Symbol):
        return value
    if reading.capture is not None and hasattr(value, "ndim"):
        return reading.capture[0](value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(
            f"{type(value).__name__} {value!r} cannot stand in a cell's equations".replace("\n", " ")[:120],
            "use x, the states, p.NAME and numbers",
        )
    return Symbol("const", attr=float(value))


def pointwise(op: str, *operands: Any, attr: float | None = None) -> Symbol:
    """An elementwise operation: operands of one size, or scalars."""
    args = tuple(as_symbol(v) for v in operands)
    comparing = op in ("lt", "le", "gt", "ge")
    for place, a in enumerate(args):
        truth = a.op in ("lt", "le", "gt", "ge")
        if truth and not (op == "where" and place == 0):
            refuse("a comparison is a truth value, not a number", "use it as the condition of where(condition, a, b)")
        if op == "where" and place == 0 and not truth:
            refuse("the condition of where is not a comparison", "write where(a > b, value, other)")
    wide = [a for a in args if a.shape]
    for a in wide:
        if len(a.shape or ()) == 2:
            if any(b.shape is not None and len(b.shape) != 2 and b.shape for b in args):
                refuse(f"the matrix {describe(a)} meets a vector elementwise", "write p.W @ value for a product")
        elif not first_extent(wide[0]).unite(first_extent(a)):
            refuse(
                f"{op} of {describe(wide[0])} and {describe(a)}: their sizes differ",
                "bring one to the other's size with a matrix (p.W @ value), or declare sizes, "
                'as in @cell(sizes={"x": "H"})',
            )
    if len({len(a.shape or ()) for a in wide}) > 1:
        refuse("a matrix meets a vector elementwise", "write p.W @ value for a product")
    if not wide and any(a.shape is None for a in args):
        return Symbol(op, args, None, attr)  # of parameters alone: a vector or a matrix, as its use will tell
    shape: tuple[Extent, ...] = wide[0].shape or () if wide else ()
    for a in args:
        if a.shape is None:  # a parameter at first use: as wide as what it meets
            settle(a, shape)
    if len(shape) == 2:
        for a in args:
            if a.shape and not all(x.unite(y) for x, y in zip(a.shape, shape, strict=True)):
                refuse(f"{op} of {describe(wide[0])} and {describe(a)}: their sizes differ", "give them one shape")
    return Symbol(op, args, () if comparing and not shape else shape, attr)


def first_extent(a: Symbol) -> Extent:
    """The size of a vector, the number of rows of a matrix."""
    assert a.shape
    return a.shape[0]


def settle(a: Symbol, shape: tuple[Extent, ...]) -> None:
    """Give a parameter, or what was computed from parameters, the shape that its first use tells."""
    stack = [a]
    while stack:
        symbol = stack.pop()
        if symbol.shape is None:
            symbol.shape = shape
            stack.extend(symbol.args)
        elif symbol.shape and not (
            len(symbol.shape) == len(shape) and all(x.unite(y) for x, y in zip(symbol.shape, shape, strict=True))
        ):
            sizes = ", ".join(str(size) for size in shape)
            refuse(
                f"{describe(symbol)} is used as [{sizes}] as well",
                "a value of parameters has one size; use another parameter for another size",
            )


def settle_vector(a: Symbol) -> Symbol:
    """Itself; a parameter at first use becomes a vector."""
    if a.shape is None:
        settle(a, (Extent(),))
    return a


def product(matrix: Symbol, value: Any) -> Symbol:
    """A matrix times a vector."""
    if not isinstance(value, Symbol):
        refuse(f"{type(value).__name__} cannot stand right of @", "write p.W @ x, with a vector of the cell")
    settle_vector(value)
    if matrix.shape is None and value.shape is not None:
        settle(matrix, (Extent(), value.shape[0] if len(value.shape) == 1 else Extent()))
    if matrix.shape is None or value.shape is None or len(matrix.shape) != 2:
        refuse(f"{describe(matrix)} stands left of @, but is not a matrix", "write p.NAME @ value with a parameter")
    if len(value.shape) != 1:
        refuse(f"{describe(value)} stands right of @, but is not a vector", "write p.NAME @ value with a vector")
    if not matrix.shape[1].unite(value.shape[0]):
        refuse(
            f"{describe(matrix)} cannot multiply {describe(value)}",
            "use another parameter name for another size",
        )
    return Symbol("matmul", (matrix, value), (matrix.shape[0],))


def concat(*values: Any) -> Symbol:
    """Vectors end to end: ``p.W @ concat(h, x)`` is ``p.W_h @ h + p.W_x @ x`` with the two matrices side by side."""
    if not values:
        refuse("concat of nothing", "give it vectors")
    parts = tuple(as_symbol(v) for v in values)
    for a in parts:
        settle_vector(a)
        if a.shape is None or len(a.shape) != 1:
            refuse(f"concat of {describe(a)}, which is not a vector", "concatenate vectors")
    return Symbol("concat", parts, (Extent(size_sum(*(first_extent(a).resolve() for a in parts))),))


def describe(a: Symbol) -> str:
    """A symbol for an error message: its name and its sizes."""
    name = f"p.{a.attr}" if a.op == "param" else str(a.name or a.attr or a.op)
    if a.shape is None:
        return name
    sizes = ", ".join(str(s) for s in a.shape)
    return f"{name} [{sizes}]"
