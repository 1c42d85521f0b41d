"""`@cell`: a function of symbols becomes a cell, whose equations are read by running it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, overload

from ..errors import CellError
from ..ir import Program
from .symbol import Extent, Symbol
from .trace import trace

Sizes = Mapping[str, Any]
Rules = Mapping[str, float | str]
Options = Mapping[str, Any]


class Params:
    """``p`` in a cell: ``p.NAME`` declares a parameter at first use."""

    def __init__(self, sizes: Sizes, extents: Callable[[str], Extent]) -> None:
        self._sizes = sizes
        self._extents = extents
        self._made: dict[str, Symbol] = {}

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._made:
            declared = self._sizes.get(name)
            shape = None if declared is None else tuple(self._extents(s) for s in _shape(declared))
            self._made[name] = Symbol("param", shape=shape, attr=name)
        return self._made[name]

    def __getitem__(self, name: str) -> Symbol:
        """``p["W_1"]`` is ``p.W_1``, for names that are made up in a loop."""
        if not name.isidentifier() or name.startswith("_"):
            raise CellError(f"p[{name!r}] is no name of a parameter; write letters, digits and underscores")
        return getattr(self, name)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._made.values())


def _shape(declared: Any) -> tuple[str, ...]:
    return (declared,) if isinstance(declared, str) else tuple(declared)


class Cell:
    """A recurrent cell: its equations, and what is said about them.

    Made by `cell`; call it with keywords to get a variant (``lstm(forget_gate=False)``), or with symbols inside
    another cell to use its equations there.

    Attributes:
        name: the function's name.
        doc: its docstring; `summary` is the first line and `reference` the authors and year in it.
        states: the names of the states, in order.
        options: the compile-time options and their values.
        sizes: declared sizes.
        init: declared initialisation, by parameter name.
        fixed: the parameters that are not trained.
        auxiliary: the states that are bookkeeping and no activations.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None,
        name: str,
        doc: str,
        states: tuple[str, ...],
        options: Mapping[str, Any],
        sizes: Sizes,
        init: Mapping[str, float | str],
        program: Program | None = None,
        fixed: tuple[str, ...] = (),
        declared: _Declared | None = None,
        auxiliary: tuple[str, ...] = (),
    ) -> None:
        self._function = function
        self._program = program
        self.name = name
        self.doc = doc
        self.states = states
        self.options = MappingProxyType(dict(options))
        self.sizes = MappingProxyType(dict(sizes))
        self.init = MappingProxyType(dict(init))
        self.fixed = fixed
        self.auxiliary = auxiliary
        self._declared = declared
        self.__name__ = name
        self.__doc__ = doc

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.strip().partition("\n")[0].strip()

    @property
    def reference(self) -> str:
        """The authors and year in the docstring: "Cho et al. 2014"."""
        found = re.search(r"\(([^()]*?\b(?:19|20)\d\d[^()]*)\)", self.doc)
        return " ".join(found.group(1).split()) if found else ""

    def program(self) -> Program:
        """The equations as a Program, as they are written.

        Raises:
            CellError: the equations cannot be read; the message shows the line.
        """
        if self._program is None:
            self._program = _read(self, self._function)
        return self._program

    @classmethod
    def from_program(cls, program: Program) -> Cell:
        """A cell whose equations are a Program (from a checkpoint): no one's code is run."""
        return _restore(program, "", {})

    def with_program(self, program: Program) -> Cell:
        """A cell of this one's documentation whose equations are another Program: what a transform returns."""
        return _restore(program, self.doc, dict(self.options))

    def __call__(self, *args: Any, **options: Any) -> Any:
        if args:
            return self._inline(args, options)
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "none"
            raise CellError(f"cell {self.name} has no option {unknown[0]!r}; its options are: {known}")
        changed = {k: v for k, v in options.items() if self.options[k] != v}
        if not changed:
            return self
        if self._function is None:
            raise CellError(
                f"cell {self.name} came from a Program and has no options any more; give them before it is transformed"
            )
        assert self._declared is not None
        return self._declared.cell(self._function, {**self.options, **options})

    def preset(self, name: str, doc: str, **options: Any) -> Cell:
        """This cell with these options under a name and documentation of its own, as the literature has it.

        >>> from ostinato import cells
        >>> cells.elman.preset("relu_network", "Rectified network (Le et al. 2015).", activation="relu")
        <cell relu_network(x, h)>
        """
        chosen = self(**options)
        if chosen._declared is None:
            raise CellError(f"cell {self.name} came from a Program; make a preset before it is transformed")
        declared = replace(chosen._declared, name=name, doc=inspect.cleandoc(doc), defaults=dict(chosen.options))
        return declared.cell(chosen._function, chosen.options)

    def _inline(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The equations inside another cell's: ``h = gru(p, x, h)``."""
        if self._function is None:
            raise CellError(
                f"cell {self.name} came from a Program and cannot be used inside another; write its equations"
            )
        if not isinstance(args[0], Params):
            raise CellError(
                f"cell {self.name} was called with {type(args[0]).__name__}; a cell holds equations, not numbers: "
                f"build a layer with ostinato.RNN({self.name}, input_size, hidden_size)"
            )
        return self._function(*args, **{**self.options, **options})

    def __repr__(self) -> str:
        return f"<cell {self.name}({', '.join(('x', *self.states))})>"

    def __reduce__(self) -> tuple[Any, ...]:
        # a layer must pickle and deepcopy wherever its cell was written: the Program says everything
        return _restore, (self.program(), self.doc, dict(self.options))

    @property
    def code(self) -> Any:
        """The code object whose local names name the values."""
        return None if self._function is None else inspect.unwrap(self._function).__code__


@dataclass(frozen=True)
class _Declared:
    """What ``@cell(...)`` was given, of which each may be a function of the options; and what a name stands for."""

    name: str
    doc: str
    defaults: Mapping[str, Any]
    sizes: Any
    init: Any
    fixed: Any
    states: Any
    auxiliary: Any

    def cell(self, function: Callable[..., Any] | None, options: Mapping[str, Any]) -> Cell:
        """The cell with these options; what differs from the name's own is told behind it."""
        chosen = [f"{k}={v!r}" for k, v in options.items() if v != self.defaults[k]]
        name = f"{self.name}({', '.join(chosen)})" if chosen else self.name

        def told(value: Any) -> Any:
            return value(MappingProxyType(dict(options))) if callable(value) else value

        return Cell(
            *(function, name, self.doc, tuple(told(self.states)), options, told(self.sizes), told(self.init)),
            *(None, tuple(told(self.fixed)), self, tuple(told(self.auxiliary))),
        )


def _restore(program: Program, doc: str, options: dict[str, Any]) -> Cell:
    kept = (dict(program.init), program, program.fixed, None, program.auxiliary)
    return Cell(None, program.name, doc, program.states, options, {}, *kept)


def _read(cell: Cell, function: Callable[..., Any] | None) -> Program:
    if function is None:
        raise CellError(f"cell {cell.name} has no equations")
    return trace(
        cell.name,
        functools.partial(function, **cell.options),
        cell.code,
        cell.states,
        cell.sizes,
        tuple(cell.init.items()),
        Params,
        cell.fixed,
        cell.auxiliary,
    )


@overload
def cell(function: Callable[..., Any], /) -> Cell: ...


@overload
def cell(
    *,
    sizes: Sizes | Callable[[Options], Sizes] | None = None,
    init: Rules | Callable[[Options], Rules] | None = None,
    fixed: Sequence[str] | Callable[[Options], Sequence[str]] = (),
    states: Callable[[Options], Sequence[str]] | None = None,
    auxiliary: Sequence[str] | Callable[[Options], Sequence[str]] = (),
) -> Callable[..., Cell]: ...


def cell(
    function: Callable[..., Any] | None = None,
    *,
    sizes: Sizes | Callable[[Options], Sizes] | None = None,
    init: Rules | Callable[[Options], Rules] | None = None,
    fixed: Sequence[str] | Callable[[Options], Sequence[str]] = (),
    states: Callable[[Options], Sequence[str]] | None = None,
    auxiliary: Sequence[str] | Callable[[Options], Sequence[str]] = (),
) -> Any:
    """Make a cell of ``f(p, x, *states, *, options) -> next states``.

    The function returns the next states in the order of the arguments (a single one bare); the output is the first
    state, or what ``return emit(y, *states)`` names. ``p.NAME`` declares a parameter at first use: a matrix left of
    ``@``, else a vector. Keyword-only arguments are compile-time options.

    Args:
        sizes: sizes that differ from D (x) and H (everything else): ``{"h": "P"}`` for a state, ``{"x": "H"}`` where x
            is used elementwise, ``{"alpha": ()}`` for a scalar parameter, ``{"V": ("H", "D")}`` for a matrix.
        init: how parameters start, by name: a number, or "xavier", "orthogonal", "identity", "zeros", "uniform".
            Default: matrices on x Xavier, other matrices orthogonal, vectors 0.
        fixed: parameters that are drawn and then not trained.
        states: the names of the states from the options, for a cell whose function takes ``*states``: their number may
            depend on an option.
        auxiliary: states that are bookkeeping, as a counter or a normaliser, and no activations: transforms and learned
            initial states leave them alone.

    Each of these may be a function of the options instead: ``init=lambda options: {"b_f": options["forget_bias"]}``.

    Raises:
        CellError: the signature is not that of a cell.

    >>> from ostinato import RNN, cell, tanh
    >>> @cell
    ... def elman(p, x, h):
    ...     return tanh(p.W @ x + p.U @ h + p.b)
    >>> elman
    <cell elman(x, h)>
    >>> RNN(elman, 3, 4).cell_parameters()["U"].shape
    torch.Size([4, 4])
    """
    given = {"sizes": sizes or {}, "init": init or {}, "fixed": fixed, "states": states, "auxiliary": auxiliary}
    return functools.partial(_make, **given) if function is None else _make(function, **given)


def _make(
    function: Callable[..., Any],
    sizes: Any,
    init: Any,
    fixed: Any,
    states: Any,
    auxiliary: Any,
) -> Cell:
    if not callable(function):
        raise CellError(f"@cell stands on {type(function).__name__}; put it on a function f(p, x, *states)")
    positional: list[str] = []
    options: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL and states is not None:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise CellError(
                f"cell {function.__name__} takes *{parameter.name}; name every state and option, or give "
                "@cell(states=...) the names of a number of states"
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise CellError(f"option {parameter.name!r} of cell {function.__name__} has no default; give it one")
            options[parameter.name] = parameter.default
        else:
            positional.append(parameter.name)
    if len(positional) < 2:
        raise CellError(f"cell {function.__name__} takes ({', '.join(positional)}); write f(p, x, *states)")
    doc = inspect.cleandoc(function.__doc__ or "")
    named = states if states is not None else tuple(positional[2:])
    return _Declared(function.__name__, doc, options, sizes, init, fixed, named, auxiliary).cell(function, options)
