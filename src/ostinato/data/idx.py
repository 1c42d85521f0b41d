"""Images in the idx format of MNIST, and images as sequences."""

from __future__ import annotations

import math
import os
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .decoding import read_bytes
from .sequences import Sequences

__all__ = ["image_sequences", "read_idx", "step_order"]


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """An array of bytes in the idx format (LeCun, Cortes and Burges 1998), gzipped where the name ends in .gz.

    Returns:
        uint8, of the shape that the file says: `[N, height, width]` for images, `[N]` for labels.

    Raises:
        DataError: not idx, not of unsigned bytes, or cut short.
    """
    raw = read_bytes(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[3] == 0:
        raise DataError(f"{path} is not idx: it begins with {raw[:4].hex(' ')}; pass a file such as MNIST's.")
    if raw[2] != 0x08:
        raise DataError(f"{path} holds numbers of type 0x{raw[2]:02x}; only unsigned bytes (0x08) are read.")
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * d : 8 + 4 * d], "big") for d in range(rank)]
    body = raw[4 + 4 * rank :]
    if len(raw) < 4 + 4 * rank or len(body) != math.prod(shape):
        raise DataError(f"{path} says {shape}, {math.prod(shape)} bytes, but holds {len(body)}; fetch it again.")
    return torch.from_numpy(np.frombuffer(body, np.uint8).reshape(shape).copy())


def image_sequences(images: Tensor, by: Literal["rows", "pixels"] = "pixels", order: Tensor | None = None) -> Sequences:
    """Images as sequences, 0 to 255 becoming 0 to 1.

    By rows a step is one row of pixels (T the height, D the width); by pixels one pixel, row after row from the top
    left (T height times width, D = 1; Le, Jaitly and Hinton 2015).

    Args:
        images: `[N, height, width]` uint8.
        by: "rows" or "pixels".
        order: the order of the steps, `[T]`, the same for all images (see `step_order`); None: as they come.

    Raises:
        DataError: another shape or dtype, another word, or an order that is no permutation of the steps.
    """
    if images.dim() != 3 or images.dtype != torch.uint8:
        raise DataError(f"images are {list(images.shape)} {images.dtype}; pass [N, height, width] uint8.")
    if by not in ("rows", "pixels"):
        raise DataError(f"images are read by {by!r}; pass rows or pixels.")
    steps = images if by == "rows" else images.flatten(1).unsqueeze(2)  # [N, T, D]
    n, length, width = steps.shape
    if order is not None:
        if not torch.equal(order.sort().values, torch.arange(length)):
            raise DataError(f"the order of the steps has {len(order)} numbers; pass each of 0 to {length - 1} once.")
        steps = steps[:, order]
    return Sequences((steps.float() / 255).reshape(n * length, width), torch.full((n,), length))


def step_order(length: int, seed: int) -> Tensor:
    """A permutation of the steps that is the same for all images, `[T]` int64; it depends on the seed alone."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))
