"""Gated cells beside the LSTM and GRU families."""

from __future__ import annotations

from typing import Any

from ..lang import cell, exp, maximum, sigmoid, softplus, tanh, where
from .choices import choose, switch, whole

__all__ = ["fastgrnn", "highway", "slstm", "ugrnn"]


@cell(init={"b_g": 1.0})
def ugrnn(p: Any, x: Any, h: Any) -> Any:
    """Update gate network: one gate between the old state and a new one (Collins et al. 2017).

    c = tanh(W_c x + U_c h + b_c)
    g = sigmoid(W_g x + U_g h + b_g)
    h' = g * h + (1 - g) * c

    Shapes: x [D], h and b [H], W [H, D], U [H, H]. b_g starts at 1, so that the state is kept. A GRU without its reset
    gate; `mgu` resets by the same gate, and `leaky` mixes by a constant.
    """
    c = tanh(p.W_c @ x + p.U_c @ h + p.b_c)
    g = sigmoid(p.W_g @ x + p.U_g @ h + p.b_g)
    return g * h + (1 - g) * c


@cell(init=lambda o: {f"b_t{k}": -2.0 for k in range(1, whole("highway", "depth", o["depth"]) + 1)})
def highway(p: Any, x: Any, s: Any, *, depth: int = 3, coupled: bool = True) -> Any:
    """Recurrent highway network: several highway layers within a step (Zilly et al. 2017).

    for k = 1..depth, s_0 = s, and x in the first layer only:
    h_k = tanh(W_h x + U_hk s_{k-1} + b_hk)
    t_k = sigmoid(W_t x + U_tk s_{k-1} + b_tk)
    c_k = 1 - t_k, or with coupled=False sigmoid(W_c x + U_ck s_{k-1} + b_ck)
    s_k = h_k * t_k + s_{k-1} * c_k

    Shapes: x [D], s and b [H], W [H, D], U [H, H]. The state is s_depth. The biases of t start at -2, so that the state
    is carried. Depth is within a step, not to be confused with num_layers, which stacks layers in space.

    Args:
        depth: highway layers within a step, at least 1.
        coupled: True: what is carried of s is one minus what is let in, c = 1 - t; False: c is a gate of its own.
    """
    joined = switch("highway", "coupled", coupled)
    for k in range(1, whole("highway", "depth", depth) + 1):

        def seen(gate: str, k: int = k, s: Any = s) -> Any:
            fed = p[f"U_{gate}{k}"] @ s + p[f"b_{gate}{k}"]
            return p[f"W_{gate}"] @ x + fed if k == 1 else fed

        h = tanh(seen("h"))
        t = sigmoid(seen("t"))
        c = 1 - t if joined else sigmoid(seen("c"))
        s = h * t + s * c
    return s


@cell(init={"b_f": "linspace(3, 6)"}, auxiliary=("c", "n", "m"))
def slstm(p: Any, x: Any, h: Any, c: Any, n: Any, m: Any, *, forget_gate: str = "sigmoid") -> Any:
    """LSTM with an exponential input gate, a normaliser and a stabiliser (Beck et al. 2024).

    z = tanh(W_z x + U_z h + b_z);  o = sigmoid(W_o x + U_o h + b_o)
    a = W_i x + U_i h + b_i, the logarithm of the input gate
    l = log sigmoid(W_f x + U_f h + b_f), that of the forget gate
    k = l + m, or a where n = 0: at a start there is nothing to keep
    m' = max(k, a);  i = exp(a - m');  f = exp(k - m')
    c' = f * c + i * z;  n' = f * n + i
    h' = o * (c' / n')

    Shapes: x [D], h, c, n, m and b [H], W [H, D], U [H, H]. The stabiliser m changes no value of h', but keeps the
    exponentials within range; a state that is given has n >= 0. b_f starts even from 3 to 6. Of the paper's heads
    there is one: U is full. Not its mLSTM, whose memory is a matrix. The memory is c' / n' in units of exp(m'): three
    numbers that mean something together only. They are therefore no activations of their own (auxiliary): transforms
    such as zoneout act on h, and |h'| <= 1 stays true; only h may start from a learned state.

    Args:
        forget_gate: "sigmoid", or "exponential": l = W_f x + U_f h + b_f.

    Raises:
        CellError: forget_gate is neither.
    """
    z = tanh(p.W_z @ x + p.U_z @ h + p.b_z)
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    a = p.W_i @ x + p.U_i @ h + p.b_i
    forget = p.W_f @ x + p.U_f @ h + p.b_f
    bounded = choose("slstm", "forget_gate", forget_gate, ("sigmoid", "exponential")) == "sigmoid"
    log_f = -softplus(-forget) if bounded else forget
    k = where(n > 0, log_f + m, a)  # else exp(a) alone would scale what is new, and may be too small for a number
    new_m = maximum(k, a)
    i = exp(a - new_m)
    f = exp(k - new_m)
    new_c = f * c + i * z
    new_n = f * n + i
    new_h = o * (new_c / new_n)
    return new_h, new_c, new_n, new_m


@cell(sizes={"zeta": (), "nu": ()}, init={"zeta": 1.0, "nu": -4.0})
def fastgrnn(p: Any, x: Any, h: Any) -> Any:
    """Gated network whose gate and candidate share their matrices (Kusupati et al. 2018).

    a = W x + U h
    z = sigmoid(a + b_z)
    g = tanh(a + b_g)
    h' = (sigmoid(zeta) * (1 - z) + sigmoid(nu)) * g + z * h

    Shapes: x [D], h, b_z and b_g [H], W [H, D], U [H, H], zeta and nu scalars that start at 1 and -4. The paper's
    low-rank, sparse and quantised matrices are ways to store W and U, and are not here.
    """
    a = p.W @ x + p.U @ h
    z = sigmoid(a + p.b_z)
    g = tanh(a + p.b_g)
    return (sigmoid(p.zeta) * (1 - z) + sigmoid(p.nu)) * g + z * h
