"""The gated recurrent units."""

from __future__ import annotations

from typing import Any

from ..lang import cell, sigmoid, tanh


@cell
def gru(p: Any, x: Any, h: Any) -> Any:
    """Gated recurrent unit, reset before the product (Cho et al. 2014).

    Not torch.nn.GRU, which resets after it: that is `gru_reset_after`.
    """
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * n + z * h


@cell
def gru_reset_after(p: Any, x: Any, h: Any) -> Any:
    """Gated recurrent unit, reset after the product, the same as torch.nn.GRU and cuDNN's (Chung et al. 2014)."""
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = tanh(p.W_n @ x + p.b_n + r * (p.U_n @ h + p.b_hn))
    return (1 - z) * n + z * h
