"""How a cell checks its options: what was got, and what may be chosen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ..errors import CellError
from ..lang import relu, sigmoid, tanh

T = TypeVar("T")


def _itself(a: Any) -> Any:
    return a


ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid, "linear": _itself}
"""What a cell's option ``activation`` may name."""


def chosen(cell: str, option: str, value: Any, choices: Mapping[str, T]) -> T:
    """What the option stands for.

    Raises:
        CellError: it is none of the choices.
    """
    if not isinstance(value, str) or value not in choices:
        known = [repr(name) for name in choices]
        raise CellError(f"{cell} has {option} {value!r}; choose {', '.join(known[:-1])} or {known[-1]}")
    return choices[value]


def activation(cell: str, value: Any, *names: str) -> Callable[[Any], Any]:
    """The activation of that name, one of `names`."""
    return chosen(cell, "activation", value, {name: ACTIVATIONS[name] for name in names})


def whole(cell: str, option: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CellError(f"{cell} has {option} {value!r}; give a whole number of at least {least}")
    return value


def number(cell: str, option: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite number within low..high."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not low <= value <= high:
        within = f"of at least {low:g}" if high == math.inf else f"within {low:g}..{high:g}"
        raise CellError(f"{cell} has {option} {value!r}; give a number {within}")
    return float(value)


def rising(cell: str, option: str, value: Any) -> tuple[int, ...]:
    """Whole numbers of at least 1, each greater than the one before."""
    given = tuple(cast("Sequence[Any]", value)) if isinstance(value, tuple | list) else ()
    found = tuple(whole(cell, option, v) for v in given)
    if not found or any(b <= a for a, b in itertools.pairwise(found)):
        raise CellError(f"{cell} has {option} {value!r}; give whole numbers that rise, as (1, 2, 4)")
    return found


def past(name: str, count: int) -> tuple[str, ...]:
    """Names for a value of the last `count` steps, newest first: past("x", 2) is ("x_1", "x_2")."""
    return tuple(f"{name}_{k}" for k in range(1, count + 1))
