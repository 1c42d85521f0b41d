"""One step of every cell beside the LSTM and GRU families, written out in torch from its paper.

Each is ``step(p, x, *states) -> (output, states)`` on x [B, D] and states [B, S], p the parameters by the names in the
equations. None of it uses the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, relu, sigmoid, tanh

Params = dict[str, Tensor]
Step = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]

SQUASH: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "identity": lambda a: a,
}


def gate(p: Params, name: str, x: Tensor, h: Tensor) -> Tensor:
    """W x + U h + b of a gate."""
    return x @ p[f"W_{name}"].T + h @ p[f"U_{name}"].T + p[f"b_{name}"]


# ---------------------------------------------------------------- filters


def fir(p: Params, x: Tensor, *past: Tensor, full: bool = False) -> Any:
    window = torch.stack([x, *past], 1)  # [B, window, D], newest first
    taps = torch.stack([p[f"B_{k}"] for k in range(window.shape[1])])
    y = torch.einsum("bkd,khd->bh", window, taps) if full else torch.einsum("bkd,kd->bd", window, taps)
    return y, tuple(window[:, k] for k in range(len(past)))


def iir(p: Params, x: Tensor, y: Tensor) -> Any:
    new = p["A"] * y + p["B"] * x
    return new, (new,)


def linear(p: Params, x: Tensor, y: Tensor) -> Any:
    new = torch.cat([y, x], 1) @ torch.cat([p["A"], p["B"]], 1).T
    return new, (new,)


# ---------------------------------------------------------------- simple recurrent networks


def elman(p: Params, x: Tensor, h: Tensor, activation: str = "tanh") -> Any:
    new = SQUASH[activation](x @ p["W"].T + h @ p["U"].T + p["b"])
    return new, (new,)


def irnn(p: Params, x: Tensor, h: Tensor) -> Any:
    return elman(p, x, h, "relu")


def simple(p: Params, x: Tensor, s: Tensor, output: str = "previous", activation: str = "tanh") -> Any:
    new = SQUASH[activation](gate(p, "s", x, s))
    return SQUASH[activation](gate(p, "o", x, s if output == "previous" else new)), (new,)


def jordan(p: Params, x: Tensor, y: Tensor, activation: str = "tanh", output: str = "tanh") -> Any:
    hidden = SQUASH[activation](x @ p["W"].T + y @ p["U"].T + p["b"])
    new = SQUASH[output](hidden @ p["V"].T + p["b_y"])
    return new, (new,)


# ---------------------------------------------------------------- time constants


def leaky(p: Params, x: Tensor, h: Tensor, learned: bool = False, activation: str = "tanh") -> Any:
    tau = 1 + p["s"].exp() if learned else p["tau"]
    new = h + (SQUASH[activation](x @ p["W"].T + h @ p["U"].T + p["b"]) - h) / tau
    return new, (new,)


def retention(p: Params, x: Tensor, s: Tensor) -> Any:
    new = s / (1 + (-p["c"]).exp()) + x
    return new, (new,)


def clockwork(p: Params, x: Tensor, h: Tensor, t: Tensor, periods: tuple[int, ...] = (1, 2, 4, 8)) -> Any:
    width = h.shape[1]
    block = [k * len(periods) // width for k in range(width)]
    rows = []
    for i in range(width):  # a unit sees its own block and the slower ones
        seen = [j for j in range(width) if block[j] >= block[i]]
        value = tanh(x @ p["W"][i] + h[:, seen] @ p["U"][i, seen] + p["b"][i])
        period = periods[block[i]]
        clock = t[:, 0].detach()
        phase = clock - period * torch.floor(clock / period)
        rows.append(torch.where(phase < 0.5, value, h[:, i]))
    new = torch.stack(rows, 1)
    return new, (new, torch.remainder(t + 1, math.lcm(*periods)))


def time_skip(p: Params, x: Tensor, *held: Tensor, delays: tuple[int, ...] = (1, 4), activation: str = "tanh") -> Any:
    total = x @ p["W"].T + p["b"]
    for k in delays:
        total = total + held[k - 1] @ p[f"U_{k}"].T
    new = SQUASH[activation](total)
    return new, (new, *held[:-1])


def narx(p: Params, x: Tensor, *lines: Tensor, inputs: int = 2, outputs: int = 3, activation: str = "tanh") -> Any:
    ys, xs = list(lines[:outputs]), [x, *lines[outputs:]]
    weights = [p[f"W_{k}"] for k in range(inputs)] + [p[f"U_{k}"] for k in range(1, outputs + 1)]
    hidden = SQUASH[activation](torch.cat(xs + ys, 1) @ torch.cat(weights, 1).T + p["b"])
    y = hidden @ p["V"].T + p["b_y"]
    return y, (y, *ys[:-1], *xs[:-1])


# ---------------------------------------------------------------- elementwise recurrences


def indrnn(p: Params, x: Tensor, h: Tensor, activation: str = "relu") -> Any:
    new = SQUASH[activation](x @ p["W"].T + h @ torch.diag(p["u"]) + p["b"])
    return new, (new,)


def sru(p: Params, x: Tensor, c: Tensor, projected: bool = False, alpha: float = 1.0) -> Any:
    f = sigmoid(x @ p["W_f"].T + p["v_f"] * c + p["b_f"])
    r = sigmoid(x @ p["W_r"].T + p["v_r"] * c + p["b_r"])
    new = f * c + (1 - f) * (x @ p["W"].T)
    skip = x @ p["W_h"].T if projected else x
    return r * new + (1 - r) * skip * alpha, (new,)


def qrnn(p: Params, x: Tensor, c: Tensor, *past: Tensor, pooling: str = "fo") -> Any:
    window = torch.cat([x, *past], 1)

    def convolved(name: str) -> Tensor:
        return window @ torch.cat([p[f"W_{name}{k}"] for k in range(len(past) + 1)], 1).T + p[f"b_{name}"]

    z, f = tanh(convolved("z")), sigmoid(convolved("f"))
    i = sigmoid(convolved("i")) if pooling == "ifo" else 1 - f
    new = f * c + i * z
    h = new if pooling == "f" else sigmoid(convolved("o")) * new
    return h, (new, *(x, *past)[: len(past)])


def lru(p: Params, x: Tensor, re: Tensor, im: Tensor) -> Any:
    eigenvalues = torch.exp(torch.complex(-p["nu"].exp(), p["theta"].exp()))
    b = torch.complex(p["B_re"], p["B_im"])
    s = eigenvalues * torch.complex(re, im) + p["gamma"].exp() * (x.to(b.dtype) @ b.T)
    y = (s @ torch.complex(p["C_re"], p["C_im"]).T).real + x @ p["D"].T
    return y, (s.real, s.imag)


# ---------------------------------------------------------------- gated


def ugrnn(p: Params, x: Tensor, h: Tensor) -> Any:
    g = sigmoid(gate(p, "g", x, h))
    new = g * h + (1 - g) * tanh(gate(p, "c", x, h))
    return new, (new,)


def highway(p: Params, x: Tensor, s: Tensor, depth: int = 3, coupled: bool = True) -> Any:
    for k in range(1, depth + 1):
        read = {g: x @ p[f"W_{g}"].T if k == 1 else 0.0 for g in ("h", "t", *("c" * (not coupled)))}
        fed = {g: read[g] + s @ p[f"U_{g}{k}"].T + p[f"b_{g}{k}"] for g in read}
        t = sigmoid(fed["t"])
        carry = 1 - t if coupled else sigmoid(fed["c"])
        s = tanh(fed["h"]) * t + s * carry
    return s, (s,)


def slstm(p: Params, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor, forget_gate: str = "sigmoid") -> Any:
    """The states are scaled by exp(m): here the plain recurrence without a stabiliser is run on what they stand for."""
    i = gate(p, "i", x, h).exp()
    raw = gate(p, "f", x, h)
    f = sigmoid(raw) if forget_gate == "sigmoid" else raw.exp()
    plain_c = f * c * m.exp() + i * tanh(gate(p, "z", x, h))
    plain_n = f * n * m.exp() + i
    new_m = torch.maximum(f.log() + m, i.log())
    new_h = sigmoid(gate(p, "o", x, h)) * plain_c / plain_n
    return new_h, (new_h, plain_c / new_m.exp(), plain_n / new_m.exp(), new_m)


def fastgrnn(p: Params, x: Tensor, h: Tensor) -> Any:
    shared = x @ p["W"].T + h @ p["U"].T
    z = sigmoid(shared + p["b_z"])
    new = (sigmoid(p["zeta"]) * (1 - z) + sigmoid(p["nu"])) * tanh(shared + p["b_g"]) + z * h
    return new, (new,)


# ---------------------------------------------------------------- structured matrices


def antisymmetric(
    p: Params, x: Tensor, h: Tensor, gated: bool = False, epsilon: float = 0.01, gamma: float = 0.01
) -> Any:
    width = h.shape[1]
    matrix = p["U"] - p["U"].T - gamma * torch.eye(width, dtype=h.dtype)
    change = tanh(h @ matrix.T + x @ p["W"].T + p["b"])
    if gated:
        change = sigmoid(h @ matrix.T + x @ p["W_z"].T + p["b_z"]) * change
    new = h + epsilon * change
    return new, (new,)


def lmu(
    p: Params, x: Tensor, h: Tensor, m: Tensor, hidden_to_memory: bool = True, memory_to_memory: bool = True
) -> Any:
    u = x @ p["E_x"].T  # [B, 1]
    if hidden_to_memory:
        u = u + h @ p["E_h"].T
    if memory_to_memory:
        u = u + m @ p["E_m"].T
    new_m = m @ p["A"].T + u * p["B"][:, 0]
    new_h = tanh(torch.cat([x, h, new_m], 1) @ torch.cat([p["W_x"], p["W_h"], p["W_m"]], 1).T)
    return new_h, (new_h, new_m)


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(fir, iir, linear, elman, irnn, simple, jordan, leaky, retention, clockwork, time_skip, narx),
        *(indrnn, sru, qrnn, lru, ugrnn, highway, slstm, fastgrnn, antisymmetric, lmu),
    )
}
