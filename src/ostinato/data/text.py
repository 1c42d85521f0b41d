"""Text to learn from: a file of one's own, or what every Python installation holds."""

from __future__ import annotations

import codecs
import os
import stat
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError

__all__ = ["python_library_text", "read_text"]

# Longest first: the mark of UTF-32 little-endian begins with that of UTF-16.
_FOREIGN_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The whole of a text file, its line ends made "\\n" and a byte order mark left out.

    Args:
        path: a regular file.
        encoding: any that Python knows.

    Raises:
        DataError: missing, not a file, not readable, empty, binary, or in another encoding.
    """
    path = Path(path)
    try:
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise DataError(f"{encoding!r} is no encoding that Python knows; pass one such as utf-8.") from None
    raw = _read_bytes(path)
    if not raw:
        raise DataError(f"{path} is empty (0 bytes); pass a file that holds text.")
    for mark, name in _FOREIGN_MARKS:
        if raw.startswith(mark) and not codec.startswith(("utf-16", "utf-32")):
            raise DataError(f"{path} begins with the mark of {name}, not {codec}; pass --encoding {name}.")
    if codec == "utf-8":
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        if b"\0" in raw:
            raise DataError(_binary(path, raw.index(b"\0"))) from None
        raise DataError(
            f"{path} is not {codec}: byte 0x{raw[error.start]:02x} at offset {error.start} "
            f"({error.reason}). Pass its encoding, for example --encoding latin-1, or convert the file."
        ) from None
    except (UnicodeError, LookupError, ValueError, AssertionError) as error:
        raise DataError(f"{path} cannot be read as {codec}: {error}. Pass another --encoding.") from None
    if "\0" in text:
        raise DataError(_binary(path, text.index("\0")))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError(f"{path} holds nothing but blanks ({len(text)} characters); pass a file with text.")
    return text


def _binary(path: Path, offset: int) -> str:
    return (
        f"{path} is not a text: it holds a zero byte (offset {offset}). "
        f"Pass a plain text file (one in UTF-16 goes with --encoding utf-16)."
    )


def _read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path} is a folder; pass one text file (cat {path}/*.txt > all.txt joins them).")
        if not stat.S_ISREG(mode):
            # A device may never end, a pipe may never begin.
            raise DataError(f"{path} is not a regular file; write what it gives into a file first.")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}); check the name.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; check the path and its permissions.") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into memory; pass a smaller file.") from None


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
