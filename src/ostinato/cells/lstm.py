"""The long short-term memory family."""

from __future__ import annotations

from typing import Any

from ..lang import cell, sigmoid, tanh


@cell(init={"b_f": 1.0})
def lstm(p: Any, x: Any, h: Any, c: Any) -> Any:
    """Long short-term memory with a forget gate, the same as torch.nn.LSTM (Gers et al. 2000).

    Not the block of Hochreiter & Schmidhuber (1997), which had no forget gate. The forget gate's bias starts at 1.
    """
    i = sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


@cell(sizes={"h": "P"}, init={"b_f": 1.0})
def projected_lstm(p: Any, x: Any, h: Any, c: Any) -> Any:
    """Long short-term memory whose output is projected to P values, torch's proj_size (Sak et al. 2014)."""
    i = sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = f * c + i * g
    h = p.W_p @ (o * tanh(c))
    return h, c


@cell(init={"b_f": 1.0})
def peephole_lstm(p: Any, x: Any, h: Any, c: Any) -> Any:
    """LSTM whose gates see the memory through diagonal weights (Gers et al. 2002).

    The input and forget gates see the old memory, the output gate the new one.
    """
    i = sigmoid(p.W_i @ x + p.U_i @ h + p.p_i * c + p.b_i)
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.p_f * c + p.b_f)
    g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.p_o * c + p.b_o)
    h = o * tanh(c)
    return h, c
