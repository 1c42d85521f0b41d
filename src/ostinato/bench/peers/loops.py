"""The cells as one would write them by hand in PyTorch, with care: the peer called eager-loop.

Fair means: the input product of all T steps is one matmul before the loop, the recurrent products that read
the same operand are one, pointwise work is done on several gates at once where the equations allow it, and
what is cut is cut by split and unbind, whose gradients are one operation each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LOOPS", "Loop"]

State = tuple[Tensor, ...]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Loop:
    """A cell by hand: which named weights are fused into which operand, and the loop over them.

    fused: operand -> the names of the matrices or vectors stacked in it, along dimension 0.
    run: (inputs [T, B, G*H] with the input bias added, state, operands) -> (output [T, B, H], state).
    states: how many states the cell carries.
    """

    fused: dict[str, Sequence[str]]
    run: Callable[[Tensor, State, Weights], tuple[Tensor, State]]
    states: int = 1

    def draw(self, hidden_size: int, generator: torch.Generator) -> Weights:
        """Random weights under the names in the equations; matrices are those that a W or a U names."""
        sizes = {
            name: (hidden_size, hidden_size) if name[0] in "WU" else (hidden_size,)
            for names in self.fused.values()
            for name in names
        }
        return {n: torch.randn(size, generator=generator) * 0.3 for n, size in sizes.items()}

    def fuse(self, weights: Weights) -> Weights:
        """Copies of the weights, stacked into this loop's operands, as leaves that take a gradient."""
        return {
            operand: torch.cat([weights[name].detach() for name in names]).clone().requires_grad_()
            for operand, names in self.fused.items()
        }

    def gradients(self, operands: Weights, like: Weights) -> Weights:
        """The gradients of the operands, cut up again under the equations' names."""
        found: Weights = {}
        for operand, names in self.fused.items():
            grad = operands[operand].grad
            assert grad is not None, f"operand {operand} took no gradient"
            pieces = grad.split([like[name].shape[0] for name in names])
            found.update(zip(names, pieces, strict=True))
        return found

    def __call__(self, x: Tensor, state: State | None, operands: Weights) -> tuple[Tensor, State]:
        if state is None:
            hidden = operands["W"].shape[0] // len(self.fused["W"])
            state = tuple(x.new_zeros(x.shape[1], hidden) for _ in range(self.states))
        inputs = torch.nn.functional.linear(x, operands["W"], operands["b"])  # [T, B, G*H]
        return self.run(inputs, state, operands)


def _gates(symbol: str, gates: str) -> list[str]:
    return [f"{symbol}_{gate}" for gate in gates]


def _elman(inputs: Tensor, state: State, p: Weights) -> tuple[Tensor, State]:
    (h,) = state
    U = p["U"].t()
    outputs: list[Tensor] = []
    for x in inputs.unbind(0):
        h = torch.tanh(torch.addmm(x, h, U))
        outputs.append(h)
    return torch.stack(outputs), (h,)


def _lstm(inputs: Tensor, state: State, p: Weights) -> tuple[Tensor, State]:
    h, c = state
    U, H = p["U"].t(), h.shape[1]
    outputs: list[Tensor] = []
    for x in inputs.unbind(0):
        gates = torch.addmm(x, h, U)  # [B, 4H]: i f o g
        ifo, g = gates.split([3 * H, H], dim=1)
        i, f, o = torch.sigmoid(ifo).chunk(3, 1)
        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _peephole_lstm(inputs: Tensor, state: State, p: Weights) -> tuple[Tensor, State]:
    h, c = state
    U, H = p["U"].t(), h.shape[1]
    p_if, p_o = p["p_if"].view(2, H), p["p_o"]
    outputs: list[Tensor] = []
    for x in inputs.unbind(0):
        gates = torch.addmm(x, h, U)  # [B, 4H]: i f o g
        # The input and forget gates look at the old cell, the output gate at the new one.
        i_f, o, g = gates.split([2 * H, H, H], dim=1)
        i, f = torch.sigmoid(i_f.unflatten(1, (2, H)) + p_if * c.unsqueeze(1)).unbind(1)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + p_o * c) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


def _gru(inputs: Tensor, state: State, p: Weights) -> tuple[Tensor, State]:
    (h,) = state
    U, U_n, H = p["U"].t(), p["U_n"].t(), h.shape[1]
    # Split once: a slice made inside the loop would cost an addition of the whole gradient at each step.
    inputs_rz, inputs_n = inputs.split([2 * H, H], dim=2)
    outputs: list[Tensor] = []
    for x_rz, x_n in zip(inputs_rz.unbind(0), inputs_n.unbind(0), strict=True):
        r, z = torch.sigmoid(torch.addmm(x_rz, h, U)).chunk(2, 1)
        n = torch.tanh(torch.addmm(x_n, r * h, U_n))
        h = torch.lerp(n, h, z)
        outputs.append(h)
    return torch.stack(outputs), (h,)


def _gru_reset_after(inputs: Tensor, state: State, p: Weights) -> tuple[Tensor, State]:
    (h,) = state
    U, b_hn, H = p["U"].t(), p["b_hn"], h.shape[1]
    inputs_rz, inputs_n = inputs.split([2 * H, H], dim=2)
    outputs: list[Tensor] = []
    for x_rz, x_n in zip(inputs_rz.unbind(0), inputs_n.unbind(0), strict=True):
        h_rz, h_n = (h @ U).split([2 * H, H], dim=1)
        r, z = torch.sigmoid(x_rz + h_rz).chunk(2, 1)
        n = torch.tanh(x_n + r * (h_n + b_hn))
        h = torch.lerp(n, h, z)
        outputs.append(h)
    return torch.stack(outputs), (h,)


LOOPS: dict[str, Loop] = {
    "elman": Loop({"W": ["W"], "U": ["U"], "b": ["b"]}, _elman),
    "lstm": Loop({"W": _gates("W", "ifog"), "U": _gates("U", "ifog"), "b": _gates("b", "ifog")}, _lstm, states=2),
    "peephole_lstm": Loop(
        {
            "W": _gates("W", "ifog"),
            "U": _gates("U", "ifog"),
            "b": _gates("b", "ifog"),
            "p_if": _gates("p", "if"),
            "p_o": _gates("p", "o"),
        },
        _peephole_lstm,
        states=2,
    ),
    "gru": Loop({"W": _gates("W", "rzn"), "U": _gates("U", "rz"), "U_n": ["U_n"], "b": _gates("b", "rzn")}, _gru),
    "gru_reset_after": Loop(
        {"W": _gates("W", "rzn"), "U": _gates("U", "rzn"), "b": _gates("b", "rzn"), "b_hn": ["b_hn"]},
        _gru_reset_after,
    ),
}
