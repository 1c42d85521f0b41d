"""How little time a call can take: its operations and its bytes over what the machine was measured to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...ir import Program, size_value
from ..task.shapes import Shape

__all__ = ["Need", "bytes_of", "floor_ms"]

SIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


class Need(NamedTuple):
    """What a call has to do: operations in products of matrices, and bytes, where each is read or written once."""

    flops: float
    bytes: float


def bytes_of(program: Program, sizes: Mapping[str, int], shape: Shape, pass_: str, dtype: str) -> float:
    """x, the output and the weights; in training also their gradients. Masks, states and the tape are not counted."""
    numbers = dict(sizes)
    weights = 0
    for each in program.params.values():
        values = 1
        for size in each:
            values *= size_value(size, numbers)
        weights += values
    row = size_value(program.input_size, numbers) + size_value(program.output_size, numbers)
    values = shape.T * shape.B * row + weights
    return float(SIZE[dtype] * values * (2 if pass_ == "train" else 1))


def floor_ms(need: Need, dtype: str, ceilings: Mapping[str, float]) -> float:
    """The longer of the two: operations at the rate of large products, bytes at that of a copy. That steps wait for one
    another is no part of it.
    """
    return 1e3 * max(need.flops / ceilings[dtype], need.bytes / ceilings["copy"])
