"""What a layer may be built with beside sizes: the values of each option, checked, and those given layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from ..errors import CellError, ShapeError
from ..lang import Cell
from ..named import named
from .checks import check_generator, check_sizes

Merge = Literal["concat", "sum", "mul", "mean"] | None
Connections = Literal["plain", "residual", "dense"]
InitialState = Literal["zeros", "learned", "fixed"] | Tensor | Sequence[Any]

MERGES = ("concat", "sum", "mul", "mean", None)
CONNECTIONS = ("plain", "residual", "dense")
INITIAL_STATES = ("zeros", "learned", "fixed")


def is_list(value: Any) -> bool:
    """Whether an option was given layer by layer."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def layer_count(num_layers: int | None, **options: Any) -> int:
    """How many layers there are: what `num_layers` says, or the lists among the options.

    Raises:
        ShapeError: they disagree.
    """
    counts = {name: len(value) for name, value in options.items() if is_list(value)}
    for name, count in counts.items():
        if not count:
            raise ShapeError(f"{name} is an empty list; give one entry for each layer")
    if num_layers is not None:
        check_sizes(num_layers=num_layers)
        counts = {"num_layers": num_layers, **counts}
    first = next(iter(counts), None)
    if first is None:
        return 1
    for name, count in counts.items():
        if count != counts[first]:
            said = f"num_layers is {num_layers}" if first == "num_layers" else f"{first} has {counts[first]} entries"
            raise ShapeError(
                f"{name} has {count} entries, but {said}; give one entry for each layer, or one value for all"
            )
    return counts[first]


def each_layer(value: Any, count: int) -> tuple[Any, ...]:
    """An option's value for each layer."""
    return tuple(value) if is_list(value) else (value,) * count


def cell_of(given: Any) -> Cell:
    """A cell, or the one that a text names."""
    found = named(given) if isinstance(given, str) else given
    if not isinstance(found, Cell):
        raise CellError(f"cell is {type(given).__name__} {given!r}; give a cell (see @ostinato.cell) or a name")
    return found


def check_options(
    *,
    input_size: Any,
    hidden_sizes: Sequence[Any],
    num_layers: int,
    bias: Any,
    batch_first: Any,
    dropout: Any,
    locked: Any,
    bidirectional: Any,
    merge: Any,
    connections: Any,
    lookahead: Sequence[Any],
    initial_state: Any,
    stateful: Any,
    detach: Any,
    return_sequences: Any,
    return_states: Any,
    init: Any,
    sizes: Any,
) -> None:
    """Every option is one of its values, and they go together.

    Raises:
        ShapeError: one does not, and what would. CellError: init is no mapping.
    """
    check_sizes(input_size=input_size)
    for size in hidden_sizes:
        check_sizes(hidden_size=size)
    for name, value in {
        "bias": bias,
        "batch_first": batch_first,
        "locked": locked,
        "bidirectional": bidirectional,
        "stateful": stateful,
        "detach": detach,
        "return_sequences": return_sequences,
        "return_states": return_states,
    }.items():
        check_flag(name, value)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ShapeError(f"dropout is {dropout!r}; give a probability, 0 <= dropout < 1")
    if dropout and num_layers == 1:
        warnings.warn(
            f"dropout is {dropout}, but acts between layers, and there is one; give num_layers >= 2, or leave it out",
            UserWarning,
            stacklevel=3,
        )
    _one_of("merge", merge, MERGES)
    _one_of("connections", connections, CONNECTIONS)
    if not isinstance(initial_state, Tensor | tuple | list) and initial_state not in INITIAL_STATES:
        raise ShapeError(
            f"initial_state is {_shown(initial_state)}; give 'zeros' or 'learned', or a state as a tensor [S], in a "
            "tuple where the cell has several"
        )
    if init is not None and not isinstance(init, Mapping):
        raise CellError(
            f"init is {_shown(init)}; give rules by the names of parameters, as init={{'U_*': 'orthogonal'}}"
        )
    if sizes is not None and not isinstance(sizes, Mapping):
        raise ShapeError(f"sizes is {_shown(sizes)}; give numbers by the cell's size symbols, as sizes={{'P': 32}}")
    for k, steps in enumerate(lookahead):
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ShapeError(f"lookahead is {steps!r} at layer {k}; give a number of steps, 0 or more")
    if merge != "concat" and not bidirectional:
        raise ShapeError(
            f"merge is {merge!r}, but there is one direction only; pass bidirectional=True or leave merge out"
        )
    if stateful and bidirectional:
        raise ShapeError(
            "stateful=True carries states to the next piece, but the reverse direction begins at that piece's end; "
            "use bidirectional=False, or pass states in the call"
        )
    if stateful and any(lookahead):
        raise ShapeError(
            f"stateful=True runs piece by piece, but lookahead={max(lookahead)} sees zeros past a piece's end; use "
            "lookahead=0, or give the sequence whole"
        )


def check_call(sequence: Any, every: Any, detach: Any, generator: Any) -> None:
    """The options of a call are such; `detach` may be left to the layer."""
    check_flag("return_sequences", sequence)
    check_flag("return_states", every)
    if detach is not None:
        check_flag("detach", detach)
    check_generator(generator)


def check_flag(name: str, value: Any) -> None:
    """The option is True or False."""
    if not isinstance(value, bool):
        raise ShapeError(f"{name} is {_shown(value)}; give True or False")


def _one_of(name: str, value: Any, choices: Sequence[Any]) -> None:
    if not isinstance(value, str | None) or value not in choices:
        raise ShapeError(f"{name} is {_shown(value)}; choose one of {', '.join(map(repr, choices))}")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
