"""Simple recurrent networks."""

from __future__ import annotations

from typing import Any

from ..errors import CellError
from ..lang import cell, relu, tanh


@cell
def elman(p: Any, x: Any, h: Any, *, activation: str = "tanh") -> Any:
    """Simple recurrent network, the same as torch.nn.RNN (Elman 1990).

    h' = activation(W x + U h + b), activation "tanh" or "relu".
    """
    functions = {"tanh": tanh, "relu": relu}
    if activation not in functions:
        raise CellError(f"elman has activation {activation!r}; choose 'tanh' or 'relu'")
    return functions[activation](p.W @ x + p.U @ h + p.b)
