"""PackedSequence in, PackedSequence out, in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..errors import ShapeError


def run_packed(call: Callable[..., Any], packed: PackedSequence, batch_first: bool, sequence: bool) -> tuple[Any, ...]:
    """What ``call(x, lengths)`` gives for the sequences of `packed`, its tensors over time packed again.

    Args:
        call: gives output, state and, if they are wanted, the states at every step, all in the callers' order.
        sequence: the output has steps, else it is the last one of each sequence and stays a tensor.
    """
    x, own = pad_packed_sequence(packed, batch_first=batch_first)
    output, final, *more = call(x, own)
    order = packed.sorted_indices  # sorted once: another sort might order equal lengths otherwise
    ends = own if order is None else own[order.cpu()]

    def pack(value: Tensor) -> PackedSequence:
        if order is not None:
            value = value.index_select(0 if batch_first else 1, order)
        again = pack_padded_sequence(value, ends, batch_first=batch_first)
        return PackedSequence(again.data, packed.batch_sizes, order, packed.unsorted_indices)

    every = [[{name: pack(value) for name, value in layer.items()} for layer in layers] for layers in more]
    return of_each(pack, output) if sequence else output, final, *every


def of_each(function: Callable[[Tensor], Any], output: Any) -> Any:
    """A function of an output, or of both of a pair."""
    return tuple([function(value) for value in output]) if isinstance(output, tuple) else function(output)


def check_unpacked(lengths: Any) -> None:
    """No lengths beside those of the PackedSequence."""
    if lengths is not None:
        raise ShapeError("lengths were given with a PackedSequence, which has its own; leave them out")
