"""Moving as many bytes as a cell must: the least time of a cell that has next to nothing to compute."""

from __future__ import annotations

import torch
from torch import Tensor

from .contest import Call, Problem
from .ours import Ours

__all__ = ["Copying", "copying"]


class Copying:
    """`torch.Tensor.copy_` of one buffer to another, by all of torch's threads.

    Args:
        bytes: read and written together: half of them are read, half written.
    """

    def __init__(self, bytes: float) -> None:
        count = max(1, round(bytes / 8))
        self.source, self.target = torch.ones(count), torch.empty(count)

    def call(self, pass_: str) -> Call:
        return lambda: self.target.copy_(self.source)

    def outcome(self, pass_: str) -> dict[str, Tensor]:
        return {"output": self.target.copy_(self.source)}


def copying(problem: Problem, ours: Ours) -> Copying:
    """The bytes that a pass of the cell must move; see `work_of`."""
    return Copying(ours.work("train" if ours.layer.training else "infer").bytes)
