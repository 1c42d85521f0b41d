"""Cells whose units live on time scales of their own: leaks, clocks, and connections across many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from ..lang import cell, floor, sigmoid, tanh, total, where
from .choices import activation as named
from .choices import past, rising, switch, whole, within

__all__ = ["clockwork", "leaky", "narx", "retention", "time_skip"]


def _scales(options: Mapping[str, Any]) -> dict[str, float | str]:
    low = within("leaky", "shortest", options["shortest"], 1.0)
    high = within("leaky", "longest", options["longest"], low)
    if switch("leaky", "learned", options["learned"]):  # tau = 1 + exp(s)
        least = math.log(max(low - 1, 1e-2))
        return {"s": f"uniform({least!r}, {max(math.log(max(high - 1, 1e-2)), least)!r})"}
    return {"tau": f"log_uniform({low!r}, {high!r})"}


@cell(init=_scales, fixed=lambda o: () if o["learned"] else ("tau",))
def leaky(
    p: Any,
    x: Any,
    h: Any,
    *,
    learned: bool = False,
    shortest: float = 1.0,
    longest: float = 100.0,
    activation: str = "tanh",
) -> Any:
    """Leaky integrators, each unit with a time constant tau of its own (Mozer 1992; Jaeger et al. 2007).

    h' = (1 - 1/tau) * h + (1/tau) * activation(W x + U h + b)

    Shapes: x [D], h, tau and b [H], W [H, D], U [H, H]. tau, in steps, is drawn with its logarithm even within
    shortest..longest. The leak does not depend on what is read, not to be confused with the gate of `ugrnn`.

    Args:
        learned: False: tau stays as it was drawn; True: the parameter is s [H], tau = 1 + exp(s), so that it cannot
            fall below one step, and tau - 1 is drawn so.
        shortest: the least tau that is drawn, in steps, at least 1.
        longest: the greatest, in steps, at least shortest.
        activation: "tanh" or "relu".
    """
    rate = sigmoid(-p.s) if learned else 1 / p.tau
    new = named("leaky", "activation", activation, "tanh", "relu")(p.W @ x + p.U @ h + p.b)
    return (1 - rate) * h + rate * new


@cell(sizes={"x": "H"}, init={"c": "uniform(0, 5)"})
def retention(p: Any, x: Any, s: Any) -> Any:
    """Trace of the input that decays at a learned rate, each channel by itself (Mozer 1989).

    s' = sigmoid(c) * s + x, elementwise

    Shapes: x, s, c [H]. What is kept of each step is sigmoid(c), between 0 and 1, and does not depend on what is read.
    Not `iir`, whose factors are free, nor the retention of Sun et al. (2023), which is a form of attention.
    """
    return sigmoid(p.c) * s + x


def _periods(options: Mapping[str, Any]) -> tuple[int, ...]:
    return rising("clockwork", "periods", options["periods"])


@cell(
    sizes={"t": "1"},
    init=lambda o: {
        "period": f"periods({', '.join(map(str, _periods(o)))})",
        "mask": f"upper_blocks({len(_periods(o))})",
    },
    fixed=("period", "mask"),
    auxiliary=("t",),
)
def clockwork(p: Any, x: Any, h: Any, t: Any, *, periods: tuple[int, ...] = (1, 2, 4, 8)) -> Any:
    """Clockwork network: blocks of units that run at periods of their own (Koutník et al. 2014).

    new = tanh(W x + (mask * U) h + b)
    h' = new where t mod period = 0, else h
    t' = t + 1, counted modulo the least common multiple of the periods

    Shapes: x [D], h, b and period [H], t [1], W [H, D], U and mask [H, H]; mask (1 or 0, fixed) lets a block see itself
    and the slower ones. t counts the steps from the state's 0, where every block runs; it is exact while that multiple
    is a whole number of the dtype (up to 256 in bfloat16, 2^24 in float32), and no activation (auxiliary). All blocks
    are computed at each step: the clock chooses what is kept, not what is worked.

    Args:
        periods: in steps, rising, each at least 1. The units are cut into as many blocks, as equal as they can be, fast
            ones first.

    Raises:
        CellError: the periods are no such numbers.
    """
    around = math.lcm(*_periods({"periods": periods}))
    now = total(t)
    phase = now - p.period * floor(now / p.period)
    new = tanh(p.W @ x + (p.mask * p.U) @ h + p.b)
    later = t + 1
    return where(phase < 0.5, new, h), where(later < around, later, later - around)


def _delays(options: Mapping[str, Any]) -> tuple[int, ...]:
    return rising("time_skip", "delays", options["delays"])


def _held(delays: tuple[int, ...]) -> tuple[str, ...]:
    return ("h", *(f"h_{k}" for k in range(2, delays[-1] + 1)))


@cell(states=lambda o: _held(_delays(o)))
def time_skip(p: Any, x: Any, *held: Any, delays: tuple[int, ...] = (1, 4), activation: str = "tanh") -> Any:
    """Simple recurrent network with connections that skip steps in time (Zhang et al. 2016).

    h_t = activation(W x_t + sum over k in delays of U_k h_{t-k} + b)

    Shapes: x [D], h [H], W [H, D], each U_k [H, H], b [H]. The states h, h_2, ... are the last max(delays) values of h,
    newest first. The state itself is fed back, not to be confused with `narx`, nor with networks that learn to leave
    out steps (Campos et al. 2018).

    Args:
        delays: steps that the connections go back, rising, each at least 1.
        activation: "tanh" or "relu".
    """
    squash = named("time_skip", "activation", activation, "tanh", "relu")
    fed = reduce(add, (p[f"U_{k}"] @ held[k - 1] for k in _delays({"delays": delays})))
    h = squash(p.W @ x + fed + p.b)
    return (h, *held[:-1])


def _orders(options: Mapping[str, Any]) -> tuple[int, int]:
    return whole("narx", "inputs", options["inputs"]), whole("narx", "outputs", options["outputs"])


def _lines(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The states of the two tapped delay lines."""
    inputs, outputs = _orders(options)
    return ("y", *(f"y_{k}" for k in range(2, outputs + 1)), *past("x", inputs - 1))


@cell(
    sizes=lambda o: dict.fromkeys(past("x", _orders(o)[0] - 1), "D"),
    init=lambda o: {f"W_{k}": "xavier" for k in range(_orders(o)[0])},
    states=_lines,
)
def narx(p: Any, x: Any, *lines: Any, inputs: int = 2, outputs: int = 3, activation: str = "tanh") -> Any:
    """Nonlinear autoregressive network: a hidden layer sees delayed inputs and delayed outputs (Lin et al. 1996).

    h = activation(sum of W_k x_{t-k}, k = 0..inputs-1, + sum of U_k y_{t-k}, k = 1..outputs, + b)
    y_t = V h + b_y

    Shapes: x [D], y and h [H], each W_k [H, D], U_k and V [H, H], b and b_y [H]. The states y, y_2, ... are the last
    outputs and x_1, ... the inputs before, newest first. Feedback passes through the output alone, as in `jordan`, not
    to be confused with `time_skip`.

    Args:
        inputs: inputs that are seen, the step's own included, at least 1.
        outputs: outputs before the step that are seen, at least 1.
        activation: of the hidden layer, "tanh" or "relu".
    """
    before, seen = lines[:outputs], (x, *lines[outputs:])
    fed = reduce(add, (p[f"U_{k}"] @ y for k, y in enumerate(before, 1)))
    read = reduce(add, (p[f"W_{k}"] @ v for k, v in enumerate(seen)))
    h = named("narx", "activation", activation, "tanh", "relu")(read + fed + p.b)
    y = p.V @ h + p.b_y
    return (y, *before[:-1], *seen[: inputs - 1])
