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


def _encoders(options: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What the memory reads, by parameter: the sizes of its row."""
    read = {"E_x": ("1", "D")}
    if switch("lmu", "hidden_to_memory", options["hidden_to_memory"]):
        read["E_h"] = ("1", "H")
    if switch("lmu", "memory_to_memory", options["memory_to_memory"]):
        read["E_m"] = ("1", "N")
    return read


def _memory(options: Mapping[str, Any]) -> dict[str, float | str]:
    theta = within("lmu", "theta", options["theta"], 1e-6)
    return {
        "A": f"legendre_a({theta!r})",
        "B": f"legendre_b({theta!r})",
        **{name: "zeros" if name == "E_m" else "lecun" for name in _encoders(options)},
        **dict.fromkeys(("W_x", "W_h", "W_m"), "xavier_normal"),
    }


@cell(
    sizes=lambda options: {"m": "N", "B": ("N", "1"), **_encoders(options)},
    init=_memory,
    fixed=("A", "B"),
)
def lmu(
    p: Any,
    x: Any,
    h: Any,
    m: Any,
    *,
    theta: float = 100.0,
    hidden_to_memory: bool = True,
    memory_to_memory: bool = True,
) -> Any:
    """Legendre memory unit: a simple network with a fixed linear memory of theta steps (Voelker et al. 2019).

    u = E_x x + E_h h + E_m m, a scalar
    m' = A m + B u
    h' = tanh(W_x x + W_h h + W_m m')

    Shapes: x [D], h [H], m [N], E [1, .], A [N, N], B [N, 1], W [H, .]. A and B are not trained: they are the
    differential equation of a window of theta steps in N Legendre polynomials, held over each step. N, the order, is a
    size of its own: pass sizes={"N": ...}. There are no biases, as in the paper. Not `lru`, whose memory is learned.

    Args:
        theta: steps that the memory's window holds, above 0.
        hidden_to_memory: the memory reads h; without it there is no E_h.
        memory_to_memory: the memory reads itself; without it there is no E_m. Where both are False the memory is
            linear and stays bounded, as A is stable; E_m can make A + B E_m unstable, and over many hundred steps
            training then diverges.
    """
    u = p.E_x @ x
    if hidden_to_memory:
        u = u + p.E_h @ h
    if memory_to_memory:
        u = u + p.E_m @ m
    new_m = p.A @ m + p.B @ u
    new_h = tanh(p.W_x @ x + p.W_h @ h + p.W_m @ new_m)
    return new_h, new_m
