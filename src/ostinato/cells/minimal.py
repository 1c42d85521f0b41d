"""Gated cells of one gate, and those whose gates do not see the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lang import cell, sigmoid, softplus, tanh, where
from .choices import FORGET_BIAS, forget_rules, number, switch

__all__ = ["janet", "mgu", "mingru", "minlstm"]


@cell
def mgu(p: Any, x: Any, h: Any) -> Any:
    """Minimal gated unit: one gate both resets and updates (Zhou et al. 2016).

        f = sigmoid(W_f x + U_f h + b_f)
        n = tanh(W_n x + U_n (f * h) + b_n)
        h' = (1 - f) * h + f * n

    x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H]. Not `gru`, which has a reset gate of its own, nor `janet`,
    whose forget gate at 1 keeps the state: here it lets the new one in.
    """
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    n = tanh(p.W_n @ x + p.U_n @ (f * h) + p.b_n)
    return (1 - f) * h + f * n


def _janet_init(options: Mapping[str, Any]) -> dict[str, float | str]:
    number("janet", "beta", options["beta"])
    return forget_rules("janet", options["forget_bias"])


@cell(init=_janet_init)
def janet(p: Any, x: Any, h: Any, *, beta: float = 1.0, forget_bias: float | str = FORGET_BIAS) -> Any:
    """LSTM with nothing but its forget gate, "just another network" (van der Westhuizen & Lasenby 2018).

        s = W_f x + U_f h + b_f
        g = tanh(W_g x + U_g h + b_g)
        h' = sigmoid(s) * h + (1 - sigmoid(s - beta)) * g

    The state is the memory and the output. Not `cifg`, which keeps the output gate and the tanh behind it.

    Args:
        x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H].
        beta: by how much more is let in than is forgotten; 1 as in the paper's experiments, 0 for
            h' = f * h + (1 - f) * g.
        forget_bias: what b_f starts from; the paper draws it by "chrono(t_max)", t_max being the longest time to
            remember in steps (Tallec & Ollivier 2018).

    Raises:
        CellError: beta or forget_bias is no finite number.

    >>> import torch
    >>> from ostinato import RNN, cells
    >>> layer = RNN(cells.janet(forget_bias="chrono(100)"), 3, 4)
    >>> bool((layer.cell_parameters()["b_f"] > 0).all())
    True
    """
    shift = number("janet", "beta", beta)
    s = p.W_f @ x + p.U_f @ h + p.b_f
    g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    return sigmoid(s) * h + (1 - sigmoid(s - shift)) * g


def _positive(a: Any) -> Any:
    return where(a >= 0, a + 0.5, sigmoid(a))


@cell
def mingru(p: Any, x: Any, h: Any, *, positive: bool = False) -> Any:
    """Minimal GRU, whose gate and candidate see the input alone (Feng et al. 2024).

        z = sigmoid(W_z x + b_z)
        n = W_n x + b_n
        h' = (1 - z) * h + z * n

    Linear in its state. Not `mgu`, whose gate sees the state.

    Args:
        x: [D]; h: [H]; W_*: [H, D], b_*: [H].
        positive: n = G(W_n x + b_n) with G(a) = a + 0.5 for a >= 0, else sigmoid(a): the cell of the paper's form in
            log space, whose state is positive if it starts so.

    Raises:
        CellError: positive is no bool.

    >>> from ostinato import cells
    >>> list(cells.mingru.program().params)
    ['W_z', 'b_z', 'W_n', 'b_n']
    """
    z = sigmoid(p.W_z @ x + p.b_z)
    n = p.W_n @ x + p.b_n
    if switch("mingru", "positive", positive):
        n = _positive(n)
    return (1 - z) * h + z * n


@cell
def minlstm(p: Any, x: Any, h: Any, *, normalized: bool = True, positive: bool = False) -> Any:
    """Minimal LSTM, whose gates and candidate see the input alone (Feng et al. 2024).

        f = sigmoid(W_f x + b_f)
        i = sigmoid(W_i x + b_i)
        n = W_n x + b_n
        h' = f / (f + i) * h + i / (f + i) * n

    Linear in its state. There is no memory beside the output, and no output gate. Not `janet`, whose gate sees the
    state.

    Args:
        x: [D]; h: [H]; W_*: [H, D], b_*: [H].
        normalized: whether the gates are divided by their sum, so that h has the scale of n at any time; False:
            h' = f * h + i * n.
        positive: n = G(W_n x + b_n), as in `mingru`: the cell of the paper's form in log space.

    Raises:
        CellError: normalized or positive is no bool.

    >>> from ostinato import cells
    >>> list(cells.minlstm.program().params)
    ['W_f', 'b_f', 'W_i', 'b_i', 'W_n', 'b_n']
    """
    a = p.W_f @ x + p.b_f
    b = p.W_i @ x + p.b_i
    if switch("minlstm", "normalized", normalized):
        # log f - log i for f = sigmoid(a), i = sigmoid(b): f / (f + i) itself is 0 / 0 where both are quite shut
        log_ratio = softplus(-b) - softplus(-a)
        f, i = sigmoid(log_ratio), sigmoid(-log_ratio)
    else:
        f, i = sigmoid(a), sigmoid(b)
    n = p.W_n @ x + p.b_n
    if switch("minlstm", "positive", positive):
        n = _positive(n)
    return f * h + i * n
