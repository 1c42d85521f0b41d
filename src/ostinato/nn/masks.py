"""Random masks, drawn outside of the kernel and given to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from ..ir import Mask

_pieces: ContextVar[torch.Generator | None] = ContextVar("_pieces", default=None)


@contextmanager
def piece(generator: torch.Generator | None) -> Iterator[None]:
    """Within it masks that are one for all steps come from this generator, seeded alike for each piece of a sequence,
    so that they are one for all pieces too.
    """
    token = _pieces.set(generator)
    try:
        yield
    finally:
        _pieces.reset(token)


def draw(mask: Mask, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Values of a mask, ``scale * Bernoulli(probability)``: the same for every dtype, and on every device if the
    generator is the same.

    >>> draw(Mask("m", 1.0, 2.0), (3,), torch.zeros(()), torch.Generator().manual_seed(0))
    tensor([2., 2., 2.])
    """
    if not torch.compiler.is_compiling() and (mask.locked or len(shape) == 2):
        generator = _pieces.get() or generator
    device = like.device if generator is None else generator.device
    if torch._C._are_functorch_transforms_active():  # vmap draws others for each of its inputs out of place only
        chances = torch.full(shape, mask.probability, dtype=like.dtype, device=device)
        values = torch.bernoulli(chances, generator=generator)
    elif torch.compiler.is_compiling() or not _COARSEST <= mask.probability <= 1 - _COARSEST:
        values = torch.empty(shape, dtype=like.dtype, device=device).bernoulli_(mask.probability, generator=generator)
    else:
        values = torch.empty(shape, dtype=like.dtype, device=device)
        _quarters(mask.probability, values, generator)
    if mask.scale != 1:
        values = values * mask.scale
    return values if values.device == like.device else values.to(like.device)


_COARSEST = 0.01


def _quarters(probability: float, values: Tensor, generator: torch.Generator | None) -> None:
    """Fill `values` with 0 and 1, each by 16 bits of a random number of 64, so that one draw serves four.

    The probability is rounded to a multiple of 2^-16, by less than 1e-5.
    """
    count = values.numel()
    drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=values.device)
    drawn.random_(-(2**63), None, generator=generator)  # all of the range, which takes no division
    quarters = drawn.view(torch.int16)[:count].view(values.shape)
    torch.lt(quarters, round(probability * 2**16) - 2**15, out=values)  # without truth values in between
