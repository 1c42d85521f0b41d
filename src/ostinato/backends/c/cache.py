"""The folder of compiled kernels: the user's own, written atomically, bounded in size.

Code is loaded from it, so it must belong to the user alone. A file ends with the SHA-256 of what comes before; a
damaged one is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...errors import CacheError, UnsafeCacheError

LIMIT_BYTES = 64 << 20
LIMIT_FILES = 1024
_DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """``$XDG_CACHE_HOME/ostinato``, else ``~/.cache/ostinato``; made with mode 0700.

    Raises:
        CacheError: it cannot be made.
        UnsafeCacheError: another user owns it or can write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    home = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    path = home / "ostinato"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except (OSError, RuntimeError) as error:
        raise CacheError(
            f"the kernel cache {path} cannot be made ({error}); make the folder writable, "
            "or set XDG_CACHE_HOME to one that is"
        ) from error
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise UnsafeCacheError(
            f"the kernel cache {path} belongs to user {info.st_uid}, not to you (user {os.geteuid()}), and code is "
            "loaded from it; set XDG_CACHE_HOME to a folder of your own"
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeCacheError(
            f"the kernel cache {path} can be written by others (mode {stat.S_IMODE(info.st_mode):04o}), and code is "
            f"loaded from it; run: chmod 700 {path}"
        )
    return path


def fetch(key: str, build: Callable[[Path], None]) -> Path:
    """The library stored under `key`; built into a file of its own and moved into place if it is not there, or damaged.

    Raises:
        CacheError: the folder cannot be used.
    """
    home = folder()
    path = home / f"{key}.so"
    if _whole(path):
        with contextlib.suppress(OSError):  # another user of the cache may have removed it; the age is only a hint
            os.utime(path)
        return path
    try:
        with tempfile.TemporaryDirectory(dir=home, prefix=".build-") as work:
            made = Path(work) / "kernel.so"
            build(made)
            data = made.read_bytes()
            made.write_bytes(data + hashlib.sha256(data).digest())
            made.chmod(0o700)
            os.replace(made, path)
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(
            f"the kernel cache {home} cannot be written ({error}); free some space or make the folder writable, or set "
            "XDG_CACHE_HOME to one that is"
        ) from error
    _trim(home, path)
    return path


def _whole(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return len(data) > _DIGEST and hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]


def _trim(home: Path, newest: Path) -> None:
    """Remove the kernels that were not used for longest, until the folder is within its limits."""
    found: list[tuple[float, int, Path]] = []
    for path in home.glob("*.so"):
        with contextlib.suppress(OSError):
            info = path.stat()
            found.append((info.st_mtime, info.st_size, path))
    found.sort()
    total, count = sum(size for _, size, _ in found), len(found)
    for _, size, path in found:
        if total <= LIMIT_BYTES and count <= LIMIT_FILES:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size
            count -= 1
