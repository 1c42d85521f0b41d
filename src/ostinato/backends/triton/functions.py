"""What rendered kernels call. Needs triton."""

from __future__ import annotations

import triton
import triton.language as tl

# pyright: basic, reportMissingImports=false
# ruff: noqa: ANN001, ANN201
# Triton compiles what stands here; its language has no types that a checker could follow.


@triton.jit
def tanh(x):
    """tanh: near 0 an odd polynomial (least squares of the relative error up to 9/16), beyond it 1 - 2 / (exp(2x) + 1).

    What is subtracted from 1 is small where tanh is near 1, and its rounding smaller: gradients are made of 1 - tanh².
    """
    size = tl.abs(x)
    square = x * x
    rest = 0.13332445919513702 + square * (
        -0.05383696034550667 + square * (0.021006036549806595 - square * 0.006178273353725672)
    )
    near = x + x * (square * (-0.3333331346511841 + square * rest))
    e = tl.exp(-2.0 * size)
    far = 1.0 - 2.0 * (e / (1.0 + e))
    return tl.where(size < 0.5625, near, tl.where(x < 0, -far, far))


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), by exp(-|x|), which does not overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def softplus(x):
    """log(1 + exp(x)): log(1 + e) = 2 artanh(s) with s = e / (2 + e), at most 1/3, by its series; and 2 s = e - s e."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    rest = 0.14285714286 + q * (0.11111111111 + q * (0.09090909091 + q * (0.07692307692 + q * 0.06666666667)))
    series = q * (0.33333333333 + q * (0.2 + q * rest))
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + (e - s * (e - 2.0 * series))


@triton.jit
def relu(x):
    """max(x, 0); NaN stays."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def maximum(x, y):
    """The greater; NaN stays."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(x, y):
    """The smaller; NaN stays."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def power(x, exponent: tl.constexpr):
    """x to a number: by its logarithm; a negative x has a power where the exponent is whole."""
    if exponent == 0:
        return tl.full(x.shape, 1.0, tl.float32)
    by_log = tl.exp(exponent * tl.log(tl.abs(x)))
    if exponent == exponent // 1:
        if exponent % 2 == 1:
            by_log = tl.where(x < 0, -by_log, by_log)
        return tl.where(x == 0, 0.0 if exponent > 0 else float("inf"), by_log)
    lost = (x < 0) & (x > float("-inf"))
    return tl.where(lost, float("nan"), tl.where(x == 0, 0.0 if exponent > 0 else float("inf"), by_log))


@triton.jit
def added_up(parts):
    """The sum over the first axis of [2 or 4 or 8, batch, lanes].

    Each thread adds up parts of elements of its own, where `tl.sum` would leave every warp with all sums, and all that
    is computed with them.
    """
    rest = tl.permute(parts, (1, 2, 0))
    a, b = tl.split(tl.reshape(rest, [rest.shape[0], rest.shape[1], rest.shape[2] // 2, 2]))
    rest = a + b
    if rest.shape[2] > 1:
        a, b = tl.split(tl.reshape(rest, [rest.shape[0], rest.shape[1], rest.shape[2] // 2, 2]))
        rest = a + b
    if rest.shape[2] > 1:
        a, b = tl.split(tl.reshape(rest, [rest.shape[0], rest.shape[1], rest.shape[2] // 2, 2]))
        rest = a + b
    return tl.reshape(rest, [rest.shape[0], rest.shape[1]])


@triton.jit
def arrive(counter):
    """Say that this program has come so far. What it stored before is seen by all that wait for it, by the release."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, target, patience):
    """Wait until all programs of a group have come so far; give up when the patience is spent, which is given back."""
    seen = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
    while (seen < target) & (patience > 0):
        seen = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
        patience -= 1
    tl.debug_barrier()
    return patience
