"""The steps of the LSTM and GRU families in plain torch, written from the papers and not from the cells.

Each takes the parameters by name, x [B, D] and the states [B, S]; it gives the output and the next states. Weights
are those of the papers: W_k on the input, U_k on the output of the step before, b_k biases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Params = dict[str, Tensor]
Step = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]


def linear(p: Params, k: str, x: Tensor, h: Tensor | None = None) -> Tensor:
    """W_k x + U_k h + b_k."""
    whole = F.linear(x, p[f"W_{k}"], p[f"b_{k}"])
    return whole if h is None else whole + F.linear(h, p[f"U_{k}"])


# ---------------------------------------------------------------- the LSTM family


def lstm(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """Gers, Schmidhuber & Cummins 2000."""
    i, f, o = (torch.sigmoid(linear(p, k, x, h)) for k in "ifo")
    c = f * c + i * torch.tanh(linear(p, "g", x, h))
    h = o * torch.tanh(c)
    return h, (h, c)


def without_forget_gate(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """Hochreiter & Schmidhuber 1997; LSTM-f of Jozefowicz et al. 2015."""
    c = c + torch.sigmoid(linear(p, "i", x, h)) * torch.tanh(linear(p, "g", x, h))
    h = torch.sigmoid(linear(p, "o", x, h)) * torch.tanh(c)
    return h, (h, c)


def squashed_as_in_1997(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """g(a) = 4 / (1 + exp(-a)) - 2 and h(a) = 2 / (1 + exp(-a)) - 1, equations 3 to 5 of the paper of 1997."""
    c = c + torch.sigmoid(linear(p, "i", x, h)) * (4 / (1 + torch.exp(-linear(p, "g", x, h))) - 2)
    h = torch.sigmoid(linear(p, "o", x, h)) * (2 / (1 + torch.exp(-c)) - 1)
    return h, (h, c)


def lstm_i(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    c = torch.sigmoid(linear(p, "f", x, h)) * c + torch.tanh(linear(p, "g", x, h))
    h = torch.sigmoid(linear(p, "o", x, h)) * torch.tanh(c)
    return h, (h, c)


def lstm_o(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    i, f = (torch.sigmoid(linear(p, k, x, h)) for k in "if")
    c = f * c + i * torch.tanh(linear(p, "g", x, h))
    h = torch.tanh(c)
    return h, (h, c)


def projected(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """Sak et al. 2014, without peepholes."""
    m, (_, c) = lstm(p, x, h, c)
    h = m @ p["W_p"].T
    return h, (h, c)


def cifg(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    f = torch.sigmoid(linear(p, "f", x, h))
    c = torch.lerp(torch.tanh(linear(p, "g", x, h)), c, f)
    h = torch.sigmoid(linear(p, "o", x, h)) * torch.tanh(c)
    return h, (h, c)


def squashed(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    i, f, o = (torch.sigmoid(linear(p, k, x, h)) for k in "ifo")
    c = torch.sigmoid(f * c + i * torch.tanh(linear(p, "g", x, h)))
    h = o * torch.tanh(c)
    return h, (h, c)


def goodfellow(p: Params, x: Tensor, h: Tensor, s: Tensor) -> Any:
    """Equations 10.40 to 10.44 of the book: the input unit is a sigmoid as well."""
    forget, external, unit, output = (torch.sigmoid(linear(p, k, x, h)) for k in "figo")
    s = forget * s + external * unit
    h = torch.tanh(s) * output
    return h, (h, s)


def vanilla(
    p: Params,
    x: Tensor,
    y: Tensor,
    c: Tensor,
    i: Tensor | float | None = None,
    f: Tensor | float | None = None,
    o: Tensor | float | None = None,
    g: Callable[[Tensor], Tensor] = torch.tanh,
    h: Callable[[Tensor], Tensor] = torch.tanh,
) -> Any:
    """Section 2 of Greff et al. 2017: the vanilla LSTM, in which a gate may be held at a value."""
    z = g(linear(p, "g", x, y))
    i = torch.sigmoid(linear(p, "i", x, y) + p["p_i"] * c) if i is None else i
    f = torch.sigmoid(linear(p, "f", x, y) + p["p_f"] * c) if f is None else f
    c = z * i + c * f
    o = torch.sigmoid(linear(p, "o", x, y) + p["p_o"] * c) if o is None else o
    y = h(c) * o
    return y, (y, c)


def full_peepholes(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """Each gate is sigmoid(W [c, h, x] + b)."""

    def gate(k: str, memory: Tensor) -> Tensor:
        weight = torch.cat([p[f"V_{k}"], p[f"U_{k}"], p[f"W_{k}"]], dim=1)
        return torch.sigmoid(torch.cat([memory, h, x], dim=1) @ weight.T + p[f"b_{k}"])

    c = gate("f", c) * c + gate("i", c) * torch.tanh(linear(p, "g", x, h))
    h = gate("o", c) * torch.tanh(c)
    return h, (h, c)


def peephole_cifg(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    f = torch.sigmoid(linear(p, "f", x, h) + p["p_f"] * c)
    return vanilla(p, x, h, c, i=1 - f, f=f)


def lstm_cifg(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    i = torch.sigmoid(linear(p, "i", x, h) + p["p_i"] * c)
    return vanilla(p, x, h, c, i=i, f=1 - i)


def projected_peephole(p: Params, x: Tensor, h: Tensor, c: Tensor) -> Any:
    """Sak et al. 2014."""
    m, (_, c) = vanilla(p, x, h, c)
    h = m @ p["W_p"].T
    return h, (h, c)


def lstm_fgr(p: Params, x: Tensor, y: Tensor, c: Tensor, i: Tensor, f: Tensor, o: Tensor) -> Any:
    old = torch.cat([i, f, o], dim=1)

    def gate(k: str, memory: Tensor) -> Tensor:
        weight = torch.cat([p[f"R_{source}{k}"] for source in "ifo"], dim=1)
        return torch.sigmoid(linear(p, k, x, y) + p[f"p_{k}"] * memory + old @ weight.T)

    i, f = gate("i", c), gate("f", c)
    c = torch.tanh(linear(p, "g", x, y)) * i + c * f
    o = gate("o", c)
    y = torch.tanh(c) * o
    return y, (y, c, i, f, o)


# ---------------------------------------------------------------- the GRU family


def gru(p: Params, x: Tensor, h: Tensor) -> Any:
    """Cho et al. 2014: z keeps the state."""
    r, z = torch.sigmoid(linear(p, "r", x, h)), torch.sigmoid(linear(p, "z", x, h))
    h = z * h + (1 - z) * torch.tanh(linear(p, "n", x, r * h))
    return h, (h,)


def gru_reset_after(p: Params, x: Tensor, h: Tensor) -> Any:
    """The equations of torch.nn.GRU, in which b_hr and b_hz are 0."""
    r, z = torch.sigmoid(linear(p, "r", x, h)), torch.sigmoid(linear(p, "z", x, h))
    h = z * h + (1 - z) * torch.tanh(linear(p, "n", x) + r * F.linear(h, p["U_n"], p["b_hn"]))
    return h, (h,)


def mgu(p: Params, x: Tensor, h: Tensor) -> Any:
    """Zhou et al. 2016, table 1d."""
    f = torch.sigmoid(linear(p, "f", x, h))
    h = (1 - f) * h + f * torch.tanh(linear(p, "n", x, f * h))
    return h, (h,)


def mutated(p: Params, h: Tensor, z: Tensor, r: Tensor, term: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What MUT1, MUT2 and MUT3 of Jozefowicz et al. 2015 end with."""
    h = torch.tanh((r * h) @ p["U_n"].T + term + p["b_n"]) * z + h * (1 - z)
    return h, (h,)


def mut1(p: Params, x: Tensor, h: Tensor, direct: bool = False) -> Any:
    z, r = torch.sigmoid(linear(p, "z", x)), torch.sigmoid(linear(p, "r", x, h))
    return mutated(p, h, z, r, torch.tanh(x if direct else x @ p["W_n"].T))


def mut2(p: Params, x: Tensor, h: Tensor, direct: bool = False) -> Any:
    z = torch.sigmoid(linear(p, "z", x, h))
    r = torch.sigmoid((x if direct else x @ p["W_r"].T) + h @ p["U_r"].T + p["b_r"])
    return mutated(p, h, z, r, x @ p["W_n"].T)


def mut3(p: Params, x: Tensor, h: Tensor) -> Any:
    z, r = torch.sigmoid(linear(p, "z", x, torch.tanh(h))), torch.sigmoid(linear(p, "r", x, h))
    return mutated(p, h, z, r, x @ p["W_n"].T)


# ---------------------------------------------------------------- one gate, and gates that do not see the state


def janet(p: Params, x: Tensor, c: Tensor, beta: float = 1.0) -> Any:
    """Equations 5 of van der Westhuizen & Lasenby 2018; 1 - sigmoid(a) is sigmoid(-a)."""
    s = linear(p, "f", x, c)
    c = torch.sigmoid(s) * c + torch.sigmoid(beta - s) * torch.tanh(linear(p, "g", x, c))
    return c, (c,)


def log_space(a: Tensor) -> Tensor:
    """g of the listings in the appendix of Feng et al. 2024."""
    return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


def mingru(p: Params, x: Tensor, h: Tensor, positive: bool = False) -> Any:
    candidate = linear(p, "n", x)
    h = torch.lerp(h, log_space(candidate) if positive else candidate, torch.sigmoid(linear(p, "z", x)))
    return h, (h,)


def minlstm(p: Params, x: Tensor, h: Tensor, normalized: bool = True, positive: bool = False) -> Any:
    f, i = torch.sigmoid(linear(p, "f", x)), torch.sigmoid(linear(p, "i", x))
    if normalized:
        f, i = f / (f + i), i / (f + i)
    candidate = linear(p, "n", x)
    h = f * h + i * (log_space(candidate) if positive else candidate)
    return h, (h,)


def with_options(step: Step, **options: Any) -> Step:
    """The step with some of its arguments given."""
    return lambda p, x, *states: step(p, x, *states, **options)


def no_activation(a: Tensor) -> Tensor:
    return a


STEPS: dict[str, Step] = {
    "lstm": lstm,
    "projected_lstm": projected,
    "peephole_lstm": vanilla,
    "full_peephole_lstm": full_peepholes,
    "lstm_1997": without_forget_gate,
    "cifg": cifg,
    "peephole_cifg": peephole_cifg,
    "squashed_lstm": squashed,
    "goodfellow_lstm": goodfellow,
    "goodfellow_peephole_lstm": with_options(vanilla, g=torch.sigmoid),
    "lstm_nig": with_options(vanilla, i=1.0),
    "lstm_nfg": with_options(vanilla, f=1.0),
    "lstm_nog": with_options(vanilla, o=1.0),
    "lstm_niaf": with_options(vanilla, g=no_activation),
    "lstm_noaf": with_options(vanilla, h=no_activation),
    "lstm_cifg": lstm_cifg,
    "lstm_np": lstm,
    "lstm_fgr": lstm_fgr,
    "lstm_i": lstm_i,
    "lstm_f": without_forget_gate,
    "lstm_o": lstm_o,
    "lstm_b": lstm,
    "gru": gru,
    "gru_reset_after": gru_reset_after,
    "mgu": mgu,
    "mut1": mut1,
    "mut2": mut2,
    "mut3": mut3,
    "mingru": mingru,
    "minlstm": minlstm,
    "janet": janet,
}
