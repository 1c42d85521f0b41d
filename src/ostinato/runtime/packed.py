"""Packed rows [N, S] as padded tensors [T, B, S] and back, for what does not run over rows as kernels do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends.base import Inputs, Outputs, on_device

__all__ = ["last_rows", "on_padded", "packed", "unpacked"]


def on_padded(run: Callable[[Inputs], Outputs], inputs: Inputs, shapes: Sequence[Sequence[Any]]) -> Outputs:
    """What `run` gives for packed inputs, padded for it; `shapes` are those of the step's masks."""
    x, states, lengths, reverse, _ = inputs
    assert lengths is not None

    def whole(mask: Tensor, shape: Sequence[Any]) -> Tensor:
        return unpacked(mask, lengths) if mask.dim() == 2 and len(shape) == 1 else mask

    masks = [whole(mask, shape) for mask, shape in zip(inputs.masks, shapes, strict=True)]
    output, finals, statistics = run(Inputs(unpacked(x, lengths), states, lengths, reverse, masks))
    return Outputs(packed(output, lengths), finals, statistics)


def unpacked(rows: Tensor, lengths: Tensor) -> Tensor:
    """Rows [N, S] of sequences whose lengths fall as [T, B, S]; past an end stands some row.

    Without gradients each step takes the row it needs: torch copies so three times faster than it puts rows at their
    places. With them that would add up the gradients of rows that none needs.
    """
    running, number = _numbered(lengths)
    steps, batch = running.shape
    if torch.is_grad_enabled() and rows.requires_grad:
        places = on_device(running.flatten().nonzero()[:, 0], rows.device)
        found = rows.new_zeros((steps * batch, rows.shape[1])).index_copy(0, places, rows)
    else:
        found = rows.index_select(0, on_device(torch.where(running, number, 0).flatten(), rows.device))
    return found.view(steps, batch, rows.shape[1])


def packed(whole: Tensor, lengths: Tensor) -> Tensor:
    """The rows [N, S] of a [T, B, S] that lie before the ends of sequences whose lengths fall."""
    places = on_device(_numbered(lengths)[0].flatten().nonzero()[:, 0], whole.device)
    return whole.flatten(0, 1).index_select(0, places)


def last_rows(rows: Tensor, lengths: Tensor) -> Tensor:
    """The last row of each sequence, [B, S]."""
    number = _numbered(lengths)[1]
    return rows.index_select(0, on_device(number[lengths - 1, torch.arange(len(lengths), device="cpu")], rows.device))


def _numbered(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Which sequences run at a step, [T, B], and the number of the row of each."""
    batch = len(lengths)
    running = torch.arange(int(lengths[0]), device="cpu").unsqueeze(1) < lengths
    count = running.sum(1)
    return running, (count.cumsum(0) - count).unsqueeze(1) + torch.arange(batch, device="cpu")
