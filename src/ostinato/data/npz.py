"""Arrays by name from an .npz, without running code: arrays of Python objects are refused."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from .decoding import Source, name_of

__all__ = ["load_npz"]


def load_npz(source: Source, needed: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """All arrays of a file by name.

    Args:
        source: an .npz, as a path or an open stream of bytes.
        needed: names that must be there.

    Raises:
        DataError: no such file, no .npz, an array of objects, or a name that is missing.
    """
    path = name_of(source)
    try:
        with _opened(source) as stream:
            if stream.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} holds one array without a name; save with numpy.savez(path, values=...).")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}); check the name.") from None
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error) or "pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are not loaded since they can run code; save sequences of unequal "
                "lengths one behind another: values [S, D] and lengths [N]."
            ) from None
        raise DataError(f"{path} is not a whole .npz file: {error}; save it with numpy.savez.") from None
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {', '.join(missing)}; it has {', '.join(arrays) or 'none'}.")
    return arrays


def _opened(source: Source) -> IO[bytes]:
    """A file of which any place can be read: a pipe is read to its end first."""
    return open(source, "rb") if isinstance(source, str | os.PathLike) else io.BytesIO(source.read())
