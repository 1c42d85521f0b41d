"""What a file says, whatever its compression: a digest that does not depend on who packed it."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

__all__ = ["content_of", "sha256_of"]

_BLOCK = 1 << 20
# A TypeError where an .npz is one array alone, a RuntimeError where a zip asks for what zipfile does not know.
_DAMAGED = (OSError, EOFError, ValueError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def content_of(path: Path) -> str | None:
    """The SHA-256 of what a packed file holds; None if it cannot be unpacked.

    Two deflate libraries pack the same bytes differently, so a file that is packed here is known by this instead.

        .gz    of the bytes inside
        .npz   of each array's name, dtype, shape and bytes (C order), in the order of the names
    """
    total = hashlib.sha256()
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                while block := stream.read(_BLOCK):
                    total.update(block)
        elif path.suffix == ".npz":
            # Opened here, since numpy leaves a broken one open.
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                for name in sorted(arrays.files):
                    array = np.ascontiguousarray(arrays[name])
                    total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
                    total.update(array.tobytes())
        else:
            return None
    except _DAMAGED:
        return None
    return total.hexdigest()
