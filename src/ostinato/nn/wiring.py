"""How layers hang together: the two directions merged, what a layer reads, what is added to what it puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError
from ..ir import Mask
from ..runtime import extent_of, last_rows, on_device, packed
from .masks import draw
from .options import Connections, Merge


def merged_size(size: int, merge: Merge, directions: int) -> int:
    """The width of what a layer passes on, from the width of each direction's output."""
    return size * directions if merge in ("concat", None) else size


def merged(outputs: Sequence[Tensor], merge: Merge) -> Tensor:
    """The outputs of a layer's directions as one; ``merge=None``, which holds for the last layer, concatenates."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    if merge == "sum":
        return forward + backward
    if merge == "mul":
        return forward * backward
    if merge == "mean":
        return (forward + backward) / 2
    return torch.cat((forward, backward), -1)


def check_residual(layer: int, reads: int, gives: int) -> None:
    """What a layer reads can be added to what it puts out.

    Raises:
        ShapeError: they differ in width.
    """
    if reads != gives:
        raise ShapeError(
            f"connections='residual' adds what layer {layer} reads ({reads} values) to what it puts out ({gives}); "
            "make the widths of the layers equal, or use connections='dense' or 'plain'"
        )


def next_reading(reading: Tensor, output: Tensor, connections: Connections) -> Tensor:
    """What the next layer reads: this one's output; in dense connections all that this one read as well."""
    return torch.cat((reading, output), -1) if connections == "dense" else output


def drop(
    x: Tensor,
    probability: float,
    locked: bool = False,
    generator: torch.Generator | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Dropout: zeros with this probability, the rest scaled so that the mean stays.

    Args:
        x: [T, B, S], or the packed rows [N, S] of sequences of these lengths.
        locked: one mask for all steps of a sequence, else one for each step.
    """
    if generator is None and not locked:
        return functional.dropout(x, probability)
    steps, batch = extent_of(x, lengths)
    shape = (1, batch, x.shape[-1]) if locked else tuple(x.shape)
    mask = draw(Mask("dropout", 1 - probability, 1 / (1 - probability), locked), shape, x, generator)
    if locked and x.dim() == 2 and lengths is not None:
        mask = packed(mask.expand(steps, -1, -1), lengths)
    return x * mask


def at_the_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last step [B, S] of each sequence of x [T, B, S], or of packed rows [N, S]; 0 for one without steps."""
    if x.dim() == 2 and lengths is not None:
        return last_rows(x, lengths)
    if not x.shape[0]:
        return x.new_zeros(x.shape[1:])
    if lengths is None:
        return x[-1]
    ends = on_device(lengths, x.device)
    found = x.gather(0, (ends - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, x.shape[2]))[0]
    return torch.where((ends > 0).unsqueeze(1), found, torch.zeros_like(found))
