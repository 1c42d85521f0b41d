"""The gated recurrent units, and the three that were found by mutation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lang import cell, sigmoid, tanh
from .choices import choose

__all__ = ["gru", "gru_reset_after", "mut1", "mut2", "mut3"]


@cell
def gru(p: Any, x: Any, h: Any) -> Any:
    """Gated recurrent unit, reset before the product (Cho et al. 2014).

        r = sigmoid(W_r x + U_r h + b_r)
        z = sigmoid(W_z x + U_z h + b_z)
        n = tanh(W_n x + U_n (r * h) + b_n)
        h' = (1 - z) * n + z * h

    x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H]. Not torch.nn.GRU, which resets after it: that is
    `gru_reset_after`.
    """
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * n + z * h


@cell
def gru_reset_after(p: Any, x: Any, h: Any) -> Any:
    """Gated recurrent unit, reset after the product, the same as torch.nn.GRU and cuDNN's (Cho et al. 2014).

        r = sigmoid(W_r x + U_r h + b_r)
        z = sigmoid(W_z x + U_z h + b_z)
        n = tanh(W_n x + b_n + r * (U_n h + b_hn))
        h' = (1 - z) * n + z * h

    x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H]. The form of the paper's first version, which
    Chung et al. (2014) call the original. Not `gru`, the published form, which resets h before the product.
    """
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = tanh(p.W_n @ x + p.b_n + r * (p.U_n @ h + p.b_hn))
    return (1 - z) * n + z * h


def _sizes_of_x(options: Mapping[str, Any]) -> dict[str, str]:
    """Where x itself meets what has H values, D is H."""
    return {"x": "H"} if _direct("the cell", options["input_term"]) else {}


def _direct(name: str, input_term: Any) -> bool:
    return choose(name, "input_term", input_term, ("projected", "direct")) == "direct"


@cell(sizes=_sizes_of_x)
def mut1(p: Any, x: Any, h: Any, *, input_term: str = "projected") -> Any:
    """The first unit found by mutation, whose update gate does not see the state (Jozefowicz et al. 2015).

        z = sigmoid(W_z x + b_z)
        r = sigmoid(W_r x + U_r h + b_r)
        n = tanh(U_n (r * h) + tanh(W_n x) + b_n)
        h' = n * z + h * (1 - z)

    The paper prints tanh(x) for tanh(W_n x), which needs an input of H values. Not `gru`, where z keeps the state:
    here it lets the new one in.

    Args:
        x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H].
        input_term: "projected", or "direct": tanh(x) as it is printed, for input_size == hidden_size.

    Raises:
        CellError: input_term is neither.

    >>> from ostinato import cells
    >>> "W_n" in cells.mut1(input_term="direct").program().params
    False
    """
    v = x if _direct("mut1", input_term) else p.W_n @ x
    z = sigmoid(p.W_z @ x + p.b_z)
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = tanh(p.U_n @ (r * h) + tanh(v) + p.b_n)
    return n * z + h * (1 - z)


@cell(sizes=_sizes_of_x)
def mut2(p: Any, x: Any, h: Any, *, input_term: str = "projected") -> Any:
    """The second unit found by mutation, whose reset gate sees the bare input (Jozefowicz et al. 2015).

        z = sigmoid(W_z x + U_z h + b_z)
        r = sigmoid(W_r x + U_r h + b_r)
        n = tanh(U_n (r * h) + W_n x + b_n)
        h' = n * z + h * (1 - z)

    The paper prints x for W_r x in r, which needs an input of H values; with W_r it is `gru` with z and 1 - z
    exchanged.

    Args:
        x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H].
        input_term: "projected", or "direct": r = sigmoid(x + U_r h + b_r) as it is printed, for input_size ==
            hidden_size.

    Raises:
        CellError: input_term is neither.

    >>> from ostinato import cells
    >>> "W_r" in cells.mut2(input_term="direct").program().params
    False
    """
    v = x if _direct("mut2", input_term) else p.W_r @ x
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    r = sigmoid(v + p.U_r @ h + p.b_r)
    n = tanh(p.U_n @ (r * h) + p.W_n @ x + p.b_n)
    return n * z + h * (1 - z)


@cell
def mut3(p: Any, x: Any, h: Any) -> Any:
    """The third unit found by mutation, whose update gate sees the squashed state (Jozefowicz et al. 2015).

        z = sigmoid(W_z x + U_z tanh(h) + b_z)
        r = sigmoid(W_r x + U_r h + b_r)
        n = tanh(U_n (r * h) + W_n x + b_n)
        h' = n * z + h * (1 - z)

    x: [D]; h: [H]; W_*: [H, D], U_*: [H, H], b_*: [H]. Not `gru`, where z keeps the state and sees h itself.
    """
    z = sigmoid(p.W_z @ x + p.U_z @ tanh(h) + p.b_z)
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = tanh(p.U_n @ (r * h) + p.W_n @ x + p.b_n)
    return n * z + h * (1 - z)
