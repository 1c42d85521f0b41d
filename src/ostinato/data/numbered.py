"""A text as numbers, in memory or, where it would not fit, in a file without a name."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .catalogue.cache import cache_folder
from .pieces import Pieces
from .tokens import Tokenizer

__all__ = ["number"]

_IN_MEMORY = 1 << 29  # bytes of tokens


def number(pieces: Pieces, tokenizer: Tokenizer, in_memory: int = _IN_MEMORY) -> Tensor:
    """The tokens of a text, `[N]`, as the smallest integers that hold them.

    Args:
        pieces: the text.
        tokenizer: numbers it.
        in_memory: how many bytes of tokens may stand in memory; of more, all stand in a temporary file that vanishes
            with the tensor.

    Raises:
        DataError: the text cannot be read, or there is no room for the file.
    """
    dtype = np.dtype(np.int16 if len(tokenizer) <= np.iinfo(np.int16).max else np.int32)
    parts: list[np.ndarray] = []
    held = 0
    spill = None
    folder = cache_folder().parent
    try:
        for piece in pieces:
            numbers = tokenizer.encode(piece).numpy().astype(dtype)
            parts.append(numbers)
            held += numbers.nbytes
            if held > in_memory and spill is None:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                spill = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
            if spill is not None:
                for part in parts:
                    spill.write(part.tobytes())
                parts.clear()
        if spill is not None:
            spill.flush()
            return torch.from_numpy(np.memmap(spill, dtype=dtype, mode="r+"))  # the map outlives the file's handle
    except OSError as error:
        raise DataError(
            f"the tokens of {pieces.name} could not be written to {folder}: {error.strerror or error}; free some "
            "space, or set XDG_CACHE_HOME to a folder on a larger disk."
        ) from None
    finally:
        if spill is not None:
            spill.close()
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, dtype=dtype))
