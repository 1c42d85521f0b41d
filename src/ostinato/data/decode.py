"""From bytes to text: one encoding, checked, with the place of what does not fit it."""

from __future__ import annotations

import codecs
import gzip
import os
import stat
import zlib
from pathlib import Path
from typing import IO, Any

from ..errors import DataError

__all__ = ["Source", "decode", "name_of", "read_bytes"]

Source = str | os.PathLike[str] | IO[Any]
"""A path, or an open stream of bytes or of text such as `sys.stdin.buffer`."""

# Longest first: the mark of UTF-32 little-endian begins with that of UTF-16.
_FOREIGN_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(raw: bytes, name: str, encoding: str = "utf-8") -> str:
    """The text that bytes stand for, its line ends made "\\n" and a byte order mark left out.

    Args:
        raw: all of a file.
        name: what the errors call it.
        encoding: any that Python knows.

    Raises:
        DataError: no encoding, nothing but blanks, binary, or in another encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise DataError(f"{encoding!r} is no encoding that Python knows; pass one such as utf-8.") from None
    if not raw:
        raise DataError(f"{name} is empty (0 bytes); pass a file that holds text.")
    for mark, foreign in _FOREIGN_MARKS:
        if raw.startswith(mark) and not codec.startswith(("utf-16", "utf-32")):
            raise DataError(f"{name} begins with the mark of {foreign}, not {codec}; pass --encoding {foreign}.")
    if codec == "utf-8":
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        if b"\0" in raw:
            raise DataError(_binary(name, raw.index(b"\0"))) from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} is not {codec}: byte 0x{raw[error.start]:02x} at offset {error.start}, line {line} "
            f"({error.reason}). Pass its encoding, for example --encoding latin-1, or convert the file."
        ) from None
    except (UnicodeError, LookupError, ValueError, AssertionError) as error:
        raise DataError(f"{name} cannot be read as {codec}: {error}. Pass another --encoding.") from None
    if "\0" in text:
        raise DataError(_binary(name, text.index("\0")))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError(f"{name} holds nothing but blanks ({len(text)} characters); pass a file with text.")
    return text


def _binary(name: str, offset: int) -> str:
    return (
        f"{name} is not a text: it holds a zero byte (offset {offset}). "
        f"Pass a plain text file (one in UTF-16 goes with --encoding utf-16)."
    )


def name_of(source: Source) -> str:
    """What errors call it: a path as it was given, or a stream's own name."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the stream"


def read_bytes(source: Source, *, pipes: bool = True) -> bytes:
    """All bytes of a file or a stream; those of a name that ends in .gz are unpacked.

    Args:
        source: a path, or a stream of bytes or text (text is given back as UTF-8).
        pipes: whether a path may be a named pipe.

    Raises:
        DataError: missing, a folder, a device, not readable, or not gzip.
    """
    if not isinstance(source, (str, os.PathLike)):
        content = source.read()
        return content.encode("utf-8") if isinstance(content, str) else content
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path} is a folder; pass one text file (cat {path}/*.txt > all.txt joins them).")
        if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
            # A device may never end, a pipe may never begin.
            raise DataError(f"{path} is not a regular file; write what it gives into a file first.")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}); check the name.") from None
    except DataError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; check the path and its permissions.") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into memory; pass a smaller file.") from None
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; fetch or pack it again.") from None
