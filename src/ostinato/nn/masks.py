"""Random masks, drawn outside of the kernel and given to it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ir import Mask


def draw(mask: Mask, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Values of a mask, ``scale * Bernoulli(probability)``: the same for every dtype, and on every device if the
    generator is the same.

    >>> draw(Mask("m", 1.0, 2.0), (3,), torch.zeros(()), torch.Generator().manual_seed(0))
    tensor([2., 2., 2.])
    """
    device = like.device if generator is None else generator.device
    values = torch.empty(shape, dtype=like.dtype, device=device)
    if torch._C._are_functorch_transforms_active():  # vmap draws others for each of its inputs out of place only
        values = torch.bernoulli(torch.full_like(values, mask.probability), generator=generator)
    else:
        values.bernoulli_(mask.probability, generator=generator)
    if mask.scale != 1:
        values = values * mask.scale
    return values if values.device == like.device else values.to(like.device)
