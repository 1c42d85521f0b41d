"""The cells by `jax.lax.scan`: the peer called jax. Importing this module imports JAX.

The products are shared out as in the PyTorch loops: one product for the inputs of all steps before the scan,
one recurrent product per operand inside it. Everything is jitted, float32, on CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from torch import Tensor

__all__ = ["STEPS", "JaxScan"]

State = tuple[Array, ...]
Operands = dict[str, Array]
Step = Callable[[Operands, State, Array], State]


def _elman(p: Operands, state: State, x: Array) -> State:
    (h,) = state
    return (jnp.tanh(x + h @ p["U"].T),)


def _lstm(p: Operands, state: State, x: Array) -> State:
    h, c = state
    i, f, o, g = jnp.split(x + h @ p["U"].T, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _peephole_lstm(p: Operands, state: State, x: Array) -> State:
    h, c = state
    i, f, o, g = jnp.split(x + h @ p["U"].T, 4, axis=1)
    p_i, p_f = jnp.split(p["p_if"], 2)
    c = jax.nn.sigmoid(f + p_f * c) * c + jax.nn.sigmoid(i + p_i * c) * jnp.tanh(g)
    return jax.nn.sigmoid(o + p["p_o"] * c) * jnp.tanh(c), c


def _gru(p: Operands, state: State, x: Array) -> State:
    (h,) = state
    H = h.shape[1]
    r, z = jnp.split(jax.nn.sigmoid(x[:, : 2 * H] + h @ p["U"].T), 2, axis=1)
    n = jnp.tanh(x[:, 2 * H :] + (r * h) @ p["U_n"].T)
    return ((1 - z) * n + z * h,)


def _gru_reset_after(p: Operands, state: State, x: Array) -> State:
    (h,) = state
    H = h.shape[1]
    product = h @ p["U"].T
    r, z = jnp.split(jax.nn.sigmoid(x[:, : 2 * H] + product[:, : 2 * H]), 2, axis=1)
    n = jnp.tanh(x[:, 2 * H :] + r * (product[:, 2 * H :] + p["b_hn"]))
    return ((1 - z) * n + z * h,)


STEPS: dict[str, Step] = {
    "elman": _elman,
    "lstm": _lstm,
    "peephole_lstm": _peephole_lstm,
    "gru": _gru,
    "gru_reset_after": _gru_reset_after,
}


class JaxScan:
    """A jitted forward and a jitted forward-plus-gradients of one cell.

    step: one of STEPS; states: how many states it carries; hidden_size: H.
    """

    def __init__(self, step: Step, states: int, hidden_size: int) -> None:
        def run(operands: Operands, x: Array, state: State) -> tuple[Array, State]:
            inputs = x @ operands["W"].T + operands["b"]  # [T, B, G*H]

            def body(carry: State, inputs_t: Array) -> tuple[State, Array]:
                carry = step(operands, carry, inputs_t)
                return carry, carry[0]

            state, output = lax.scan(body, state, inputs)
            return output, state

        def train(operands: Operands, x: Array, state: State, grad: Array) -> tuple[Array, Any]:
            output, pull = jax.vjp(lambda operands, x: run(operands, x, state)[0], operands, x)
            return output, pull(grad)

        self.forward = jax.jit(run)
        self.train = jax.jit(train)
        self.states = states
        self.hidden_size = hidden_size

    def zeros(self, batch: int) -> State:
        return tuple(jnp.zeros((batch, self.hidden_size), jnp.float32) for _ in range(self.states))

    @staticmethod
    def take(tensor: Tensor) -> Array:
        """A copy of a torch tensor as a JAX array."""
        return jnp.array(tensor.detach().numpy())

    @staticmethod
    def give(array: Array) -> Tensor:
        """A copy of a JAX array as a torch tensor."""
        return torch.from_numpy(np.array(array))

    @staticmethod
    def wait(result: Any) -> Any:
        """The result, once it is there."""
        return jax.block_until_ready(result)
