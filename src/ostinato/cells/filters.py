"""Linear filters: what signal processing had before there were networks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from ..lang import cell, emit
from .choices import past, switch, whole

__all__ = ["fir", "iir", "linear"]


def _before(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the inputs before x that the window holds."""
    return past("x", whole("fir", "window", options["window"]) - 1)


def _taps(options: Mapping[str, Any]) -> dict[str, float | str]:
    window = len(_before(options)) + 1
    full = switch("fir", "full", options["full"])
    return {f"B_{k}": "xavier" if full else 1 / window for k in range(window)}


@cell(
    sizes=lambda o: dict.fromkeys(_before(o), "D") if o["full"] else dict.fromkeys(("x", *_before(o)), "H"),
    init=_taps,
    states=_before,
)
def fir(p: Any, x: Any, *before: Any, window: int = 3, full: bool = False) -> Any:
    """Filter of finite impulse response, a weighted window of inputs (Oppenheim & Schafer 1975).

    y_t = B_0 x_t + B_1 x_{t-1} + ... + B_{window-1} x_{t-window+1}

    Each B_k is a vector [H] that weights each channel by itself, x [H] being as wide as y [H]; it starts as a moving
    average. The states x_1, x_2, ... are the inputs before, newest first. There is no feedback, not to be confused with
    `iir`. For a window that looks ahead as well, give the layer lookahead.

    Args:
        window: inputs that are seen, the step's own included, at least 1.
        full: each B_k is a matrix [H, D], x being [D]: a causal convolution over time (Waibel et al. 1989).
    """
    inputs = (x, *before)
    y = reduce(add, (p[f"B_{k}"] @ v if full else p[f"B_{k}"] * v for k, v in enumerate(inputs)))
    return emit(y, *inputs[: len(before)])


@cell(sizes={"x": "H"}, init={"A": "uniform(0, 1)", "B": 1.0})
def iir(p: Any, x: Any, y: Any) -> Any:
    """Filter of infinite impulse response and first order, each channel by itself (Oppenheim & Schafer 1975).

    y_t = A * y_{t-1} + B * x_t, elementwise

    Shapes: x, y, A and B [H]. Stable while every |A| < 1. For channels that are mixed see `linear`.
    """
    return p.A * y + p.B * x


@cell
def linear(p: Any, x: Any, y: Any) -> Any:
    """Linear dynamical system that puts out its state (Kalman 1960).

    y_t = A y_{t-1} + B x_t

    Shapes: x [D], y [H], A [H, H], B [H, D]. A starts orthogonal. Not `iir`, whose A and B are diagonal, nor `lru`,
    whose A is diagonal and complex.
    """
    return p.A @ y + p.B @ x
