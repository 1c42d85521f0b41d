"""What a call runs over, as kernels are given it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...errors import TooLargeError
from ..base import Inputs, on_device
from .layout import Layout

__all__ = ["MOST", "Call", "aligned"]

MOST = (1 << 31) - 1  # that a kernel counts to


class Call:
    """The extents of a call, and its tensors.

    Args:
        layout: the Plan at its sizes.
        inputs: see the protocol; all float32.
        zeroed: x has zeros behind the ends of sequences, whatever the user left there: gradients of weights multiply
            it by gradients that are zeros, and NaN would stay NaN.

    Attributes:
        steps, batch, rows: T, B, and how many rows x has.
    """

    def __init__(self, layout: Layout, inputs: Inputs, zeroed: bool = False) -> None:
        x, self.states, self.lengths, self.reverse, self.masks = inputs
        self.layout = layout
        self.packed = x.dim() == 2
        self.device = x.device
        if self.packed:
            assert self.lengths is not None
            self.steps, self.batch = int(self.lengths[0]), len(self.lengths)
        else:
            self.steps, self.batch = x.shape[:2]
        self.rows = x.shape[0] if self.packed else self.steps * self.batch
        if zeroed and self.lengths is not None and not self.packed:
            steps = torch.arange(self.steps, device=self.device)[:, None]
            x = x.masked_fill((steps >= on_device(self.lengths, self.device))[:, :, None], 0.0)
        self.x = aligned(x.reshape(self.rows, x.shape[-1]))

    @cached_property
    def begin(self) -> Tensor:
        """Where the rows of each step begin."""
        if not self.packed or self.lengths is None:
            return torch.arange(self.steps, device="cpu") * self.batch
        running = (self.lengths[None] > torch.arange(self.steps, device="cpu")[:, None]).sum(1)
        return torch.cat([running.new_zeros(1), running.cumsum(0)])[:-1]

    def new(self, *shape: int) -> Tensor:
        """Memory of its own, with anything in it."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros."""
        return torch.zeros(shape, dtype=torch.float32, device=self.device)

    def start(self, i: int) -> Tensor:
        """What state i starts from, [B, S]."""
        return self.zeros(self.batch, self.layout.state_sizes[i]) if self.states is None else self.states[i][0]

    def check(self, width: int) -> None:
        """Refuse a batch with so many numbers for each sequence that kernels cannot count them.

        Raises:
            TooLargeError: see above.
        """
        if self.batch * width > MOST:
            raise TooLargeError(
                f"{self.batch} sequences with {width} numbers each are more than the {MOST} that a kernel counts; use "
                "smaller batches, or backend='eager'"
            )

    def constants(self) -> dict[str, bool]:
        """What kernels are compiled for."""
        return {
            "HAS_LENGTHS": self.lengths is not None,
            "PACKED": self.packed,
            "REVERSE": self.reverse,
            "HAS_START": self.states is not None,
        }

    def given(self, vectors: Sequence[Tensor], scalars: Sequence[Tensor]) -> dict[str, Any]:
        """What kernels are given of it, by the names of `arguments`."""
        none = self.x.new_empty(4)
        found: dict[str, Any] = {"x": self.x, "T": self.steps, "B": self.batch, "rows": self.rows}
        found["lengths"] = none if self.lengths is None else on_device(self.lengths, self.device)
        found["begin"] = on_device(self.begin, self.device) if self.packed else none
        found |= {f"v{i}": aligned(v) for i, v in enumerate(vectors)}
        found |= {f"c{i}": aligned(v) for i, v in enumerate(scalars)}
        for i, mask in enumerate(self.masks):
            found[f"k{i}"] = aligned(mask)
            found[f"k{i}_steps"] = mask.shape[0] if mask.dim() == 3 else self.rows
        starts = [none] * len(self.layout.state_sizes) if self.states is None else self.states
        return found | {f"start{i}": aligned(start) for i, start in enumerate(starts)}


def aligned(given: Tensor) -> Tensor:
    """A tensor without gaps that begins at 16 bytes, as kernels that read by its address take for granted."""
    whole = given.contiguous()
    return whole.clone() if whole.data_ptr() % 16 else whole
