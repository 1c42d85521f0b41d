"""Cells whose recurrence is elementwise: no matrix multiplies the state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from ..lang import cell, cos, emit, exp, sigmoid, sin, tanh
from .choices import activation as named
from .choices import choose, past, switch, whole, within

__all__ = ["indrnn", "lru", "qrnn", "sru"]


@cell(init={"u": "uniform(0, 1)"})
def indrnn(p: Any, x: Any, h: Any, *, activation: str = "relu") -> Any:
    """Independently recurrent network: each unit sees of the past its own value alone (Li et al. 2018).

    h' = activation(W x + u * h + b)

    Shapes: x [D], h, u and b [H], W [H, D]. u starts even within 0..1. Units meet in the next layer only:
    stack several. Not `irnn`, whose U is a matrix that starts as the identity.

    Args:
        activation: "relu" or "tanh".
    """
    return named("indrnn", "activation", activation, "relu", "tanh")(p.W @ x + p.u * h + p.b)


def _highway(options: Mapping[str, Any]) -> bool:
    """Whether the highway has a matrix of its own."""
    return switch("sru", "projected", options["projected"])


@cell(sizes=lambda o: {} if _highway(o) else {"x": "H"}, init=lambda o: {"W_h": "xavier"} if _highway(o) else {})
def sru(p: Any, x: Any, c: Any, *, projected: bool = False, alpha: float = 1.0) -> Any:
    """Simple recurrent unit: light recurrence and a highway around it (Lei et al. 2018).

    f = sigmoid(W_f x + v_f * c + b_f)
    r = sigmoid(W_r x + v_r * c + b_r)
    c' = f * c + (1 - f) * (W x)
    h = r * c' + (1 - r) * alpha * x

    Shapes: x, c, h, v and b [H], W [H, H], x being as wide as h. The step puts out h, which is no state; r sees the old
    c, as f does.

    Args:
        projected: x is [D], and W_h x, W_h [H, D], stands in the place of the last x.
        alpha: scales the highway: the paper's sqrt(1 + 2 exp(b)) keeps the variance for gates r that start at the bias
            b.
    """
    scale = within("sru", "alpha", alpha, 0.0)
    f = sigmoid(p.W_f @ x + p.v_f * c + p.b_f)
    r = sigmoid(p.W_r @ x + p.v_r * c + p.b_r)
    new = f * c + (1 - f) * (p.W @ x)
    around = p.W_h @ x if projected else x
    h = r * new + (1 - r) * (around if scale == 1.0 else scale * around)
    return emit(h, new)


def _window(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the inputs before x that the convolution sees."""
    return past("x", whole("qrnn", "window", options["window"]) - 1)


def _gates(options: Mapping[str, Any]) -> str:
    pooling = choose("qrnn", "pooling", options["pooling"], ("f", "fo", "ifo"))
    return "z" + pooling


@cell(
    sizes=lambda o: dict.fromkeys(_window(o), "D"),
    init=lambda o: {f"W_{gate}{k}": "xavier" for gate in _gates(o) for k in range(len(_window(o)) + 1)},
    states=lambda o: ("c", *_window(o)),
)
def qrnn(p: Any, x: Any, c: Any, *before: Any, window: int = 2, pooling: str = "fo") -> Any:
    """Quasi-recurrent network, its gates a convolution of the input over time (Bradbury et al. 2017).

    z = tanh(sum of W_zk x_{t-k} + b_z), k = 0..window-1; f, o and i alike, with sigmoid
    pooling "f": c' = f * c + (1 - f) * z, h = c'
    pooling "fo": c' = f * c + (1 - f) * z, h = o * c'
    pooling "ifo": c' = f * c + i * z, h = o * c'

    Shapes: x [D], c, h and b [H], each W [H, D]. The states are c and the inputs x_1, ... before, newest first. No gate
    sees the state, not to be confused with `sru`, whose gates do.

    Args:
        window: steps of the input that each gate sees, the step's own included, at least 1.
        pooling: the gates beside z: "f" forgets, "fo" has an output gate as well, "ifo" an input gate of its own too.
    """
    inputs = (x, *before)

    def seen(gate: str) -> Any:
        read = (p[f"W_{gate}{k}"] @ v for k, v in enumerate(inputs))
        return reduce(add, read) + p[f"b_{gate}"]

    gates = _gates({"pooling": pooling})
    z, f = tanh(seen("z")), sigmoid(seen("f"))
    if "i" in gates:
        i = sigmoid(seen("i"))
        new = f * c + i * z
    else:
        new = f * c + (1 - f) * z
    h = new
    if "o" in gates:
        o = sigmoid(seen("o"))
        h = o * new
    return emit(h, new, *inputs[: len(before)])


def _ring(options: Mapping[str, Any]) -> dict[str, float | str]:
    inner = within("lru", "r_min", options["r_min"], 0.0, 1.0)
    outer = within("lru", "r_max", options["r_max"], inner, 1.0)
    phase = within("lru", "max_phase", options["max_phase"], 1e-6)
    return {
        "nu": f"lru_nu({inner!r}, {outer!r})",
        "theta": f"lru_theta({phase!r})",
        "gamma": "lru_gamma(nu)",
        **dict.fromkeys(("B_re", "B_im"), f"lecun({math.sqrt(0.5)!r})"),
        **dict.fromkeys(("C_re", "C_im"), "lecun"),
    }


@cell(init=_ring)
def lru(
    p: Any, x: Any, re: Any, im: Any, *, r_min: float = 0.0, r_max: float = 1.0, max_phase: float = 6.283185307179586
) -> Any:
    """Linear recurrent unit: a diagonal complex recurrence, here in real and imaginary parts (Orvieto et al. 2023).

    lambda = exp(-exp(nu) + i exp(theta))
    s' = lambda * s + exp(gamma) * (B x), s = re + i im
    y = Re(C s') + D x

    Shapes: x [D], y, re, im, nu, theta and gamma [H], B_re and B_im [H, D], C_re and C_im [H, H], D [H, D]. nu and
    theta start so that lambda is even over a ring; gamma starts at the logarithm of sqrt(1 - |lambda|^2). |lambda| < 1
    whatever is learned. The step puts out y, which is no state, and which the paper passes through a nonlinear layer:
    stack one on it. Not `linear`, whose matrix is full and real.

    Args:
        r_min: |lambda| starts at no less, 0 <= r_min <= r_max.
        r_max: |lambda| starts at no more, r_max <= 1; near 1 for long memories.
        max_phase: the angle of lambda starts within 0..max_phase, in radians; the default is the whole circle.
    """
    size = exp(-exp(p.nu))
    turn = exp(p.theta)
    along, across = size * cos(turn), size * sin(turn)
    scale = exp(p.gamma)
    new_re = along * re - across * im + scale * (p.B_re @ x)
    new_im = along * im + across * re + scale * (p.B_im @ x)
    y = p.C_re @ new_re - p.C_im @ new_im + p.D @ x
    return emit(y, new_re, new_im)
