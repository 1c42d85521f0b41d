"""Writing files so that a reader sees the old one or the new one, and never half of either."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RunError

__all__ = ["explained", "is_leftover", "make_folder", "remove_leftovers", "write_atomically", "write_json"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LEFTOVER = ".partial"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file as one step: written beside it, forced to the disk, then renamed over it.

    Args:
        path: the file; its folder exists.
        content: all of it; text goes as UTF-8.

    Raises:
        RunError: the disk is full, or the folder cannot be written. The old file stands as it was.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    # One writer at a time holds the run's lock, so the process's id is name enough.
    partial = path.with_name(f".{path.name}.{os.getpid()}{_LEFTOVER}")
    with explained(path):
        try:
            with open(partial, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinity, which JSON does not know, are a programming error."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a message that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(
                f"the disk is full: {path} could not be written ({error.strerror}). What was written before "
                f"is whole; free some space and go on with --resume."
            ) from error
        raise RunError(
            f"{path} could not be written: {error.strerror or error}; check the folder and its permissions."
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        RunError: a file stands there, or it may not be made.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is what a killed process left half-written."""
    return path.name.startswith(".") and path.name.endswith(_LEFTOVER)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder and the folders in it."""
    for partial in folder.rglob(f".*{_LEFTOVER}"):
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no handle for a folder
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot; the rename is done
            raise
    finally:
        os.close(handle)
