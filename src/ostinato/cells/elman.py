"""Simple recurrent networks: one nonlinear layer, fed back."""

from __future__ import annotations

from typing import Any

from ..lang import cell, emit, relu
from .choices import activation as named
from .choices import choose

__all__ = ["elman", "irnn", "jordan", "simple"]


@cell
def elman(p: Any, x: Any, h: Any, *, activation: str = "tanh") -> Any:
    """Simple recurrent network, the same as torch.nn.RNN (Elman 1990).

    h' = activation(W x + U h + b)

    Shapes: x [D], h [H], W [H, D], U [H, H], b [H].

    Args:
        activation: "tanh" or "relu".
    """
    return named("elman", "activation", activation, "tanh", "relu")(p.W @ x + p.U @ h + p.b)


@cell(init={"U": "identity", "W": "normal(0.001)"})
def irnn(p: Any, x: Any, h: Any) -> Any:
    """Rectified recurrent network that starts by keeping its state, with the identity as U (Le et al. 2015).

    h' = relu(W x + U h + b); U starts as the identity, W normal of deviation 0.001, b at 0

    Shapes: x [D], h [H], W [H, D], U [H, H], b [H]. The equations are those of elman(activation="relu"); only the start
    differs. Not `indrnn`, whose recurrence is elementwise.
    """
    return relu(p.W @ x + p.U @ h + p.b)


@cell
def simple(p: Any, x: Any, s: Any, *, output: str = "previous", activation: str = "tanh") -> Any:
    """Simple recurrent network with an output unit of its own beside the state's (Robinson & Fallside 1987).

    s' = activation(W_s x + U_s s + b_s)
    o = activation(W_o x + U_o s + b_o), output "previous": it sees the state before the step
    o = activation(W_o x + U_o s' + b_o), output "new": it sees the state after the step

    Shapes: x [D], s and o [H], W [H, D], U [H, H], b [H]. The step puts out o, which is no state: nothing of it is fed
    back, not to be confused with `jordan`.

    Args:
        output: "previous": o sees the state before the step; "new": the state after it.
        activation: of s and of o, "tanh" or "relu".
    """
    squash = named("simple", "activation", activation, "tanh", "relu")
    new = squash(p.W_s @ x + p.U_s @ s + p.b_s)
    seen = {"previous": s, "new": new}[choose("simple", "output", output, ("previous", "new"))]
    o = squash(p.W_o @ x + p.U_o @ seen + p.b_o)
    return emit(o, new)


@cell
def jordan(p: Any, x: Any, y: Any, *, activation: str = "tanh", output: str = "tanh") -> Any:
    """Recurrent network whose feedback passes through its output alone (Jordan 1986).

    h = activation(W x + U y + b)
    y' = output(V h + b_y)

    Shapes: x [D], y and h [H], W [H, D], U and V [H, H], b and b_y [H]. The state is y; what the hidden layer h held is
    gone after the step, not to be confused with `elman`, which feeds h back.

    Args:
        activation: of the hidden layer h, "tanh" or "relu".
        output: of y, "tanh", "sigmoid", "relu" or "identity".
    """
    squash = named("jordan", "output", output, "tanh", "sigmoid", "relu", "identity")
    h = named("jordan", "activation", activation, "tanh", "relu")(p.W @ x + p.U @ y + p.b)
    return squash(p.V @ h + p.b_y)
