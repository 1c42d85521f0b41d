"""What the options of cells may be: the tables of names, and the refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..errors import CellError
from ..lang import relu, sigmoid, tanh


def _identity(a: Any) -> Any:
    return a


def _logistic_1(a: Any) -> Any:
    return 2 * sigmoid(a) - 1


def _logistic_2(a: Any) -> Any:
    return 4 * sigmoid(a) - 2


# The logistic functions over -1..1 and -2..2 are those of Hochreiter & Schmidhuber (1997).
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "relu": relu,
    "identity": _identity,
    "logistic(-1, 1)": _logistic_1,
    "logistic(-2, 2)": _logistic_2,
}


FORGET_BIAS = 1.0  # where nothing else is asked for


def activation(cell: str, option: str, value: Any, *names: str) -> Callable[[Any], Any]:
    """The function of that name, one of `names`, all if there are none; else a CellError."""
    return ACTIVATIONS[choose(cell, option, value, names or tuple(ACTIVATIONS))]


def choose(cell: str, option: str, value: Any, choices: Sequence[Any]) -> Any:
    """The value, if it is one of the choices; else a CellError that names them."""
    if not any(type(value) is type(one) and value == one for one in choices):  # 1 is not True
        named = [repr(one) for one in choices]
        raise CellError(f"{cell} has {option} {value!r}; choose {', '.join(named[:-1])} or {named[-1]}")
    return value


def switch(cell: str, option: str, value: Any) -> bool:
    """The value, if it is True or False; else a CellError."""
    return choose(cell, option, value, (False, True))


def number(cell: str, option: str, value: Any) -> float:
    """The value, if it is a finite number; else a CellError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CellError(f"{cell} has {option} {value!r}; give a finite number")
    return value


def within(cell: str, option: str, value: Any, low: float, high: float = math.inf) -> float:
    """The value, if it is a finite number of low..high; else a CellError."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not low <= value <= high:
        fitting = f"of at least {low:g}" if high == math.inf else f"within {low:g}..{high:g}"
        raise CellError(f"{cell} has {option} {value!r}; give a number {fitting}")
    return float(value)


def whole(cell: str, option: str, value: Any) -> int:
    """The value, if it is a whole number of at least 1; else a CellError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CellError(f"{cell} has {option} {value!r}; give a whole number of at least 1")
    return value


def rising(cell: str, option: str, value: Any) -> tuple[int, ...]:
    """The values, if they are whole numbers of at least 1 of which each is greater than the last; else a CellError."""
    given = tuple(cast("Sequence[Any]", value)) if isinstance(value, tuple | list) else ()
    found = tuple(whole(cell, option, v) for v in given)
    if not found or any(b <= a for a, b in itertools.pairwise(found)):
        raise CellError(f"{cell} has {option} {value!r}; give whole numbers that rise, as (1, 2, 4)")
    return found


def past(name: str, count: int) -> tuple[str, ...]:
    """Names for a value of the last `count` steps, newest first: past("x", 2) is ("x_1", "x_2")."""
    return tuple(f"{name}_{k}" for k in range(1, count + 1))


def bias(cell: str, option: str, value: Any) -> float | str:
    """How a bias starts: a finite number, or text that `ostinato.nn` reads as a rule of initialisation."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CellError(f"{cell} has {option} {value!r}; give a finite number, or a rule such as 'chrono(100)'")
    return value


def forget_rules(
    cell: str, value: Any, input_gate: bool | str = False, forget_gate: bool | str = True
) -> dict[str, float | str]:
    """How the biases of an LSTM's gates start, so that its memory keeps what it has.

    Where the forget gate is 1 - i, its bias is that of the input gate with the other sign. The biases of a chrono
    initialisation come in pairs (Tallec & Ollivier 2018).
    """
    start = bias(cell, "forget_bias", value)
    if forget_gate is False and start != FORGET_BIAS:
        raise CellError(f"{cell} has forget_bias {start!r}, but no forget gate; leave it out, or pass forget_gate=True")
    if forget_gate == "coupled":
        if isinstance(start, str):
            raise CellError(
                f"{cell} has forget_bias {start!r}, but its forget gate is 1 - i and has no bias; give a number, or "
                "couple the other gate: input_gate='coupled'"
            )
        return {"b_i": 0.0 - start}
    if isinstance(start, str) and start.startswith("chrono") and input_gate is True:
        return {"b_f": start, "b_i": "minus(b_f)"}
    return {"b_f": start}


def check_gates(cell: str, input_gate: Any, forget_gate: Any, output_gate: Any) -> None:
    """Refuse gates that are none, or that cannot be coupled."""
    choose(cell, "input_gate", input_gate, (True, False, "coupled"))
    choose(cell, "forget_gate", forget_gate, (True, False, "coupled"))
    choose(cell, "output_gate", output_gate, (True, False))
    for one, value, other, its in (
        ("input_gate", input_gate, "forget_gate", forget_gate),
        ("forget_gate", forget_gate, "input_gate", input_gate),
    ):
        if value == "coupled" and its is not True:
            raise CellError(f"{cell} has {one} 'coupled' and {other} {its!r}; a gate is coupled to one: {other}=True")
