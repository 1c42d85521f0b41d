"""Tracing: run a cell's function on symbols and write down what it computed as a Program."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ..errors import CellError, OstinatoError, ProgramError
from ..ir import Mask, Node, Program, simplify
from .functions import Emitted
from .reading import FrameWatch
from .symbol import Extent, Symbol, as_symbol, concat, describe, first_extent, settle
from .words import capturing


def trace(
    name: str,
    function: Callable[..., Any],
    code: Any,
    states: tuple[str, ...],
    sizes: Mapping[str, Any],
    init: tuple[tuple[str, float | str], ...],
    params_type: Callable[..., Any],
    fixed: tuple[str, ...] = (),
    auxiliary: tuple[str, ...] = (),
) -> Program:
    """The Program of ``function(p, x, *states)``.

    Args:
        code: the function's code object; the local names of its frame name the values.
        sizes: declared sizes of x, states and parameters.

    Raises:
        CellError: the equations cannot be read.
    """
    extents: dict[str, Extent] = {}

    def extent(size: object) -> Extent:
        if not isinstance(size, str) or not (size.isidentifier() or size.isdecimal()):
            raise CellError(
                f"cell {name}: the size {size!r} is not a name; declare sizes by symbols such as 'P', or digits as '1'"
            )
        return extents.setdefault(size, Extent(size))

    def declared(value: str, default: str) -> tuple[Extent, ...]:
        size = sizes.get(value, default)
        if not isinstance(size, str):
            raise CellError(f"cell {name}: sizes[{value!r}] = {size!r}; x and states are vectors of one size, as 'H'")
        return (extent(size),)

    p = params_type(sizes, extent)
    x = Symbol("input", shape=declared("x", "D"), attr="x")
    old = [Symbol("state", shape=declared(s, "H"), attr=s) for s in states]
    result, names = _run(name, function, code, (p, x, *old))
    output, new = _returned(name, code, result, states)
    for state, before, after in zip(states, old, new, strict=True):
        if not _fits(before, after):
            raise CellError(
                f"cell {name}: the state {state} has size {before.shape[0] if before.shape else '?'}, but its next "
                f"value is {describe(after)}; return values of the states' sizes, or declare sizes{_at(code)}"
            )
    if output.shape is None:
        settle(output, (Extent(),))
    if len(output.shape or ()) != 1:
        raise CellError(f"cell {name} puts out {describe(output)}; the output is a vector{_at(code)}")
    stray = sorted(set(sizes) - {"x", *states, *(str(s.attr) for s in p)})
    if stray:
        raise CellError(f"cell {name}: sizes names {stray[0]!r}, which is not x, a state or a parameter")
    stray = sorted(k for k, _ in init if k not in {str(s.attr) for s in p})
    # an option may have removed a parameter, so an unused initialisation is no error
    kept = tuple((k, v) for k, v in init if k not in stray)
    stray = sorted(set(fixed) - {str(s.attr) for s in p})
    program = _program(name, states, new, output, names, kept, tuple(n for n in fixed if n not in stray))
    stray = [n for n in auxiliary if n not in states]
    if stray:
        raise CellError(
            f"cell {name}: auxiliary names {stray[0]!r}, which is no state; its states are "
            f"{', '.join(states) or 'none'}{_at(code)}"
        )
    program = replace(program, auxiliary=auxiliary)
    try:
        simplify(program)  # whether every concatenation can be taken apart
    except ProgramError as error:
        raise CellError(f"cell {name}: {error}{_at(code)}") from error
    return program


def trace_step(
    function: Callable[..., tuple[list[Any], list[Any]]],
    width: int,
    sizes: Sequence[int],
    parameters: Callable[[Any], str],
    mode: Callable[[], object] = lambda: None,
) -> tuple[Program, list[int]]:
    """The Program of ``new states, outputs = function(x, *states)``, a step that may be written with torch's functions.

    Args:
        width: of x; sizes: of the states.
        parameters: gives each tensor that the step has at hand its name.
        mode: says what of autograd is on; the step may not change it.

    Returns:
        the Program, with sizes in digits, and the width of each output; they stand side by side in what it puts out.

    Raises:
        CellError: the step cannot be read.
    """
    name = getattr(function, "__name__", "step")
    x = Symbol("input", shape=(Extent(str(width)),), attr="x")
    states = tuple(f"s{k}" for k in range(len(sizes)))
    old = [Symbol("state", shape=(Extent(str(n)),), attr=s) for s, n in zip(states, sizes, strict=True)]
    try:
        with capturing(parameters, mode):
            found = function(x, *old)
            new, outputs = ([as_symbol(value) for value in values] for values in found)
    except OstinatoError:
        raise
    except Exception as error:
        raise CellError(f"the step failed while it was read: {type(error).__name__}: {error}") from error
    if not all(_fits(before, after) for before, after in zip(old, new, strict=True)):
        shapes = [describe(value) for value in new]
        raise CellError(f"the step's carry of widths {list(sizes)} becomes {', '.join(shapes)}; keep the widths")
    if not all(len(value.shape or ()) == 1 for value in outputs):
        raise CellError("the step puts out what is not a vector; give vectors, or None")
    widths = [int(first_extent(value).resolve()) for value in outputs]
    program = _program(name, states, tuple(new), concat(*outputs) if outputs else None, {}, (), ())
    simplify(program)  # whether every concatenation can be taken apart
    return program, widths


def _run(name: str, function: Callable[..., Any], code: Any, args: tuple[Any, ...]) -> tuple[Any, dict[int, str]]:
    """The function's value and the local names of the symbols in its frame, by identity."""
    try:
        with FrameWatch(code) as watch:
            result = function(*args)
    except OstinatoError:
        raise
    except Exception as error:
        raise CellError(_failure(name, code, error)) from error
    names: dict[int, str] = {}
    for local, value in watch.names().items():
        if isinstance(value, Symbol) and value.op not in ("param", "input", "state", "const", "mask", "size"):
            value.name = names.setdefault(id(value), local)
    return result, names


def _failure(name: str, code: Any, error: Exception) -> str:
    """What went wrong while a cell was read, with the last line of the cell's own code that was running."""
    line, tb = code.co_firstlineno, error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is code:
            line = tb.tb_lineno
        tb = tb.tb_next
    text = linecache.getline(code.co_filename, line).strip()
    return (
        f"cell {name} failed while its equations were read: {type(error).__name__}: {error}; use arithmetic, @, and "
        f"the functions of ostinato\n  {code.co_filename}:{line}, in {name}\n    {text}"
    )


def _at(code: Any) -> str:
    text = linecache.getline(code.co_filename, code.co_firstlineno).strip()
    return f"\n  {code.co_filename}:{code.co_firstlineno}\n    {text}"


def _returned(name: str, code: Any, result: Any, states: tuple[str, ...]) -> tuple[Symbol, tuple[Symbol, ...]]:
    output: Any
    new: tuple[Any, ...]
    if isinstance(result, Emitted):
        output, new = result
    else:
        new = tuple(cast("Iterable[Any]", result)) if isinstance(result, tuple | list) else (result,)
        output = new[0] if new else None
    wrong = [v for v in (output, *new) if not isinstance(v, Symbol)]
    if wrong:
        raise CellError(
            f"cell {name} returned {type(wrong[0]).__name__}; return the next states "
            f"({', '.join(states) or 'or emit(y)'}){_at(code)}"
        )
    if not states and not isinstance(result, Emitted):
        new = ()
    if len(new) != len(states):
        raise CellError(
            f"cell {name} has {len(states)} states ({', '.join(states)}), but returned {len(new)} values; return the "
            f"next states in the order of the arguments, and emit(y, ...) for another output{_at(code)}"
        )
    return output, new


def _fits(before: Symbol, after: Symbol) -> bool:
    if after.shape is None:
        settle(after, before.shape or ())
    if after.shape == () and before.shape:  # a constant next state: as wide as the state
        return False
    return len(after.shape or ()) == 1 and first_extent(before).unite(first_extent(after))


def _program(
    name: str,
    states: tuple[str, ...],
    new: tuple[Symbol, ...],
    output: Symbol | None,
    names: dict[int, str],
    init: tuple[tuple[str, float | str], ...],
    fixed: tuple[str, ...],
) -> Program:
    found: dict[int, Symbol] = {}
    stack = [*new, *([] if output is None else [output])]
    while stack:
        symbol = stack.pop()
        if symbol.serial not in found:
            found[symbol.serial] = symbol
            stack.extend(symbol.args)
    place = {serial: i for i, serial in enumerate(sorted(found))}
    nodes: list[Node] = []
    masks: list[Mask] = []
    for serial in place:
        s = found[serial]
        shape = tuple(e.resolve() for e in (s.shape if s.shape is not None else (Extent(),)))
        attr = s.attr
        if isinstance(attr, Extent):
            attr = attr.resolve()
        elif isinstance(attr, Mask):
            masks.append(replace(attr, name=f"mask{len(masks) + 1}"))
            attr = masks[-1].name
        nodes.append(Node(s.op, tuple(place[a.serial] for a in s.args), shape, attr, names.get(id(s), "")))
    nexts = tuple(place[s.serial] for s in new)
    last = -1 if output is None else place[output.serial]
    return Program(name, tuple(nodes), states, nexts, last, init, tuple(masks), fixed).check()
