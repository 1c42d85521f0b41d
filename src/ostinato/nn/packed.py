"""PackedSequence in, PackedSequence out, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ShapeError


def run_packed(call: Callable[..., Any], packed: PackedSequence, batch_first: bool, sequence: bool) -> tuple[Any, ...]:
    """What ``call(x, lengths)`` gives for the sequences of `packed`, its tensors over time packed again.

    One index for all rows, there and back: torch's own conversions cut and join step by step, their gradients too.

    Args:
        call: gives output, state and, if they are wanted, the states at every step, all in the callers' order.
        sequence: the output has steps, else it is the last one of each sequence and stays a tensor.
    """
    sizes, order = packed.batch_sizes, packed.sorted_indices
    steps, batch = len(sizes), int(sizes[0])
    running = sizes.unsqueeze(1) > torch.arange(batch)  # [T, B], longest first
    time, place = running.nonzero(as_tuple=True)  # in the order of the packed rows
    own = running.sum(0)
    if order is not None:
        place, own = order.cpu()[place], own[order.cpu().argsort()]
    rows = (place * steps + time if batch_first else time * batch + place).to(packed.data.device)
    width = packed.data.shape[1:]
    whole = _unpacked(packed.data, rows, steps * batch)
    output, final, *more = call(whole.view(*((batch, steps) if batch_first else (steps, batch)), *width), own)

    def pack(value: Tensor) -> PackedSequence:
        data = value.reshape(steps * batch, *value.shape[2:]).index_select(0, rows)
        return PackedSequence(data, sizes, order, packed.unsorted_indices)

    every = [[{name: pack(value) for name, value in layer.items()} for layer in layers] for layers in more]
    return of_each(pack, output) if sequence else output, final, *every


def _unpacked(data: Tensor, rows: Tensor, count: int) -> Tensor:
    """`count` rows, those of `data` at the places `rows` among them. No others are read.

    Without gradients each takes the row it needs, and the others any: torch copies so three times faster than it puts
    rows at their places. With them that would add up the gradients of rows that none needs.
    """
    if torch.is_grad_enabled() and data.requires_grad:
        return data.new_zeros((count, *data.shape[1:])).index_copy(0, rows, data)
    taken = rows.new_zeros(count)
    taken[rows] = torch.arange(len(rows), device=rows.device)
    return data.index_select(0, taken)


def of_each(function: Callable[[Tensor], Any], output: Any) -> Any:
    """A function of an output, or of both of a pair."""
    return tuple([function(value) for value in output]) if isinstance(output, tuple) else function(output)


def check_unpacked(lengths: Any) -> None:
    """No lengths beside those of the PackedSequence."""
    if lengths is not None:
        raise ShapeError("lengths were given with a PackedSequence, which has its own; leave them out")
