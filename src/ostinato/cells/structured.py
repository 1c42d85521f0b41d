"""Cells whose recurrent matrix is given a form: antisymmetric, or the fixed one of a memory of polynomials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lang import cell, sigmoid, tanh, transpose
from .choices import switch, within

__all__ = ["antisymmetric", "lmu"]


@cell(init={"U": "xavier_normal"})
def antisymmetric(p: Any, x: Any, h: Any, *, gated: bool = False, epsilon: float = 0.01, gamma: float = 0.01) -> Any:
    """Recurrent network as a stable differential equation, its matrix antisymmetric (Chang et al. 2019).

    a = (U - U^T) h - gamma * h
    h' = h + epsilon * tanh(a + W x + b)
    gated: h' = h + epsilon * sigmoid(a + W_z x + b_z) * tanh(a + W x + b)

    Shapes: x [D], h and b [H], W [H, D], U [H, H], of which the antisymmetric part alone counts; it starts normal of
    variance 1/H. The two products of the gated form are one and the same, not to be confused with a gate that has a
    matrix of its own.

    Args:
        gated: how far a unit moves is gated, by z = sigmoid(a + W_z x + b_z).
        epsilon: the step of Euler's method, at least 0.
        gamma: the diffusion that makes the method stable, at least 0.
    """
    step, diffusion = within("antisymmetric", "epsilon", epsilon, 0.0), within("antisymmetric", "gamma", gamma, 0.0)
    A = p.U - transpose(p.U)
    a = A @ h - diffusion * h
    g = tanh(a + p.W @ x + p.b)
    if switch("antisymmetric", "gated", gated):
        z = sigmoid(a + p.W_z @ x + p.b_z)
        g = z * g
    return h + step * g


def _memory(options: Mapping[str, Any]) -> dict[str, float | str]:
    theta = within("lmu", "theta", options["theta"], 1e-6)
    return {
        "A": f"legendre_a({theta!r})",
        "B": f"legendre_b({theta!r})",
        "E_m": "zeros",
        **dict.fromkeys(("E_x", "E_h"), "lecun"),
        **dict.fromkeys(("W_x", "W_h", "W_m"), "xavier_normal"),
    }


@cell(
    sizes={"m": "N", "E_x": ("1", "D"), "E_h": ("1", "H"), "E_m": ("1", "N"), "B": ("N", "1")},
    init=_memory,
    fixed=("A", "B"),
)
def lmu(p: Any, x: Any, h: Any, m: Any, *, theta: float = 100.0) -> Any:
    """Legendre memory unit: a simple network with a fixed linear memory of theta steps (Voelker et al. 2019).

    u = E_x x + E_h h + E_m m, a scalar
    m' = A m + B u
    h' = tanh(W_x x + W_h h + W_m m')

    Shapes: x [D], h [H], m [N], E [1, .], A [N, N], B [N, 1], W [H, .]. A and B are not trained: they are the
    differential equation of a window of theta steps in N Legendre polynomials, held over each step. N, the order, is a
    size of its own: pass sizes={"N": ...}. There are no biases, as in the paper. Not `lru`, whose memory is learned.

    Args:
        theta: steps that the memory's window holds, above 0.
    """
    u = p.E_x @ x + p.E_h @ h + p.E_m @ m
    new_m = p.A @ m + p.B @ u
    new_h = tanh(p.W_x @ x + p.W_h @ h + p.W_m @ new_m)
    return new_h, new_m
