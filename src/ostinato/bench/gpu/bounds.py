"""How little time a call can take: its operations and its bytes over what the machine was measured to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Need", "floor_ms"]


class Need(NamedTuple):
    """What a call has to do: operations in products of matrices, all operations, and bytes to and from memory."""

    flops: float
    operations: float
    bytes: float


def floor_ms(need: Need, dtype: str, ceilings: Mapping[str, float]) -> float:
    """The longer of the two: operations at the rate of large products, bytes at that of a copy. That steps wait for one
    another is no part of it.
    """
    return 1e3 * max(need.operations / ceilings[dtype], need.bytes / ceilings["copy"])
