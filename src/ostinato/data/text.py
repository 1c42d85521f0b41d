"""Text to learn from: a file of one's own, or what every Python installation holds."""

from __future__ import annotations

import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .decoding import decode, read_bytes

__all__ = ["python_library_text", "read_text"]


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The whole of a text file, its line ends made "\\n" and a byte order mark left out.

    Args:
        path: a regular file.
        encoding: any that Python knows.

    Raises:
        DataError: missing, not a file, not readable, empty, binary, or in another encoding.
    """
    return decode(read_bytes(path, pipes=False), str(path), encoding)


def python_library_text(max_characters: int = 5_000_000, root: str | os.PathLike[str] | None = None) -> str:
    """The source of Python's own standard library: text that every installation holds.

    The modules of the running interpreter, joined in the order of their paths and cut after
    `max_characters`. Left out: tests, installed packages, and `encodings`, whose modules are tables of
    numbers. The text depends on the version of Python, not on the machine's files or locale.

    Args:
        max_characters: at most so many characters; 1 or more.
        root: the folder of the library; None means the running interpreter's.

    Raises:
        DataError: an installation without sources, or a cap below 1.
    """
    if max_characters < 1:
        raise DataError(f"max_characters is {max_characters}; pass 1 or more.")
    root = Path(sysconfig.get_path("stdlib") if root is None else root)
    parts: list[str] = []
    total = 0
    for path in _library_files(root):
        try:
            with tokenize.open(path) as stream:  # honours the file's own coding line
                part = stream.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue  # a module that Python itself could not read teaches nothing
        if "\0" in part:
            continue
        parts.append(part)
        total += len(part)
        if total >= max_characters:
            break
    if not total:
        raise DataError(f"{root} holds no Python sources to train on; pass a text file of your own.")
    return "".join(parts)[:max_characters]


_LEFT_OUT = {"__pycache__", "encodings", "idle_test", "site-packages", "dist-packages", "test", "tests"}


def _library_files(root: Path) -> Iterator[Path]:
    found: list[str] = []
    for folder, subfolders, names in os.walk(root):
        # A name with a dash (config-3.11-x86_64-linux-gnu) is no module's; such folders differ by machine.
        subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT and "-" not in name]
        relative = Path(folder).relative_to(root)
        found += [(relative / name).as_posix() for name in names if name.endswith(".py")]
    return (root / name for name in sorted(found))
