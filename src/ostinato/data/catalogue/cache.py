"""The folder of downloaded data: files appear whole or not at all, and two processes do not fetch the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import DataError

try:
    import fcntl
except ImportError:  # not on POSIX: two processes may fetch the same, and the one that ends later wins
    fcntl = None

__all__ = ["cache_folder", "put", "workplace"]


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ostinato/data``, else ``~/.cache/ostinato/data``; not made here."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        home = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    except RuntimeError as error:
        raise DataError(f"there is no folder for downloaded data ({error}); set XDG_CACHE_HOME to one.") from error
    return home / "ostinato" / "data"


@contextmanager
def workplace(name: str) -> Iterator[Path]:
    """A folder of one's own within the cache, while no other process works for the same name; removed at the end.

    Raises:
        DataError: the cache cannot be made or written.
    """
    cache = cache_folder()
    try:
        # Kernels lie in the folder above, which must therefore be the user's alone.
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
        with open(cache / f".{name}.lock", "w") as lock:
            if fcntl is not None:
                with suppress(OSError):  # some network disks know no locks; files still appear whole
                    fcntl.flock(lock, fcntl.LOCK_EX)
            for left in cache.glob(f".{name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as work:
                yield Path(work)
    except OSError as error:
        raise DataError(
            f"the folder of downloaded data, {cache}, cannot be written ({error.strerror or error}); free some space, "
            "make it writable, or set XDG_CACHE_HOME to a folder that is."
        ) from error


def put(made: Path, path: Path) -> None:
    """Move a finished file to its place in the cache, as one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(made, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(made, path)
