"""From bytes to text: one encoding, checked, with the place of what does not fit it; a piece at a time if need be."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import DataError

__all__ = ["Source", "blocks", "check_file", "decode", "decode_blocks", "name_of", "read_bytes"]

Source = str | os.PathLike[str] | IO[Any]
"""A path, or an open stream of bytes or of text such as `sys.stdin.buffer`."""

_BLOCK = 1 << 22  # bytes

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
    text = "".join(decode_blocks([raw], name, encoding))
    if not text.strip():
        raise DataError(f"{name} holds nothing but blanks ({len(text)} characters); pass a file with text.")
    return text


def decode_blocks(raws: Iterable[bytes], name: str, encoding: str = "utf-8") -> Iterator[str]:
    """What `decode` gives, of bytes that come in blocks: for a file larger than the memory.

    Raises:
        DataError: as `decode`, but that blanks are let pass.
    """
    try:
        codec = codecs.lookup(encoding).name
        plain = codecs.getincrementaldecoder(codec)("strict")
    except (LookupError, ValueError):
        raise DataError(f"{encoding!r} is no encoding that Python knows; pass one such as utf-8.") from None
    lines = io.IncrementalNewlineDecoder(None, translate=True)
    before, ends = 0, 0  # bytes and line ends of the blocks before
    for raw in raws:
        if not raw:
            continue
        block = _without_mark(raw, name, codec) if not before else raw
        pending = len(plain.getstate()[0])  # bytes of a sign that the block before cut
        try:
            text = plain.decode(block)
        except UnicodeError as error:
            raise _undecodable(error, raw, name, codec, before - pending + len(raw) - len(block), ends) from None
        except (LookupError, ValueError, AssertionError) as error:
            raise DataError(f"{name} cannot be read as {codec}: {error}. Pass another --encoding.") from None
        if "\0" in text:
            raise _binary(name, before + raw.find(b"\0"))
        before += len(raw)
        ends += raw.count(b"\n")
        yield lines.decode(text)  # pyright: ignore[reportArgumentType]
    if not before:
        raise DataError(f"{name} is empty (0 bytes); pass a file that holds text.")
    try:
        yield lines.decode(plain.decode(b"", final=True), final=True)  # pyright: ignore[reportArgumentType]
    except UnicodeError as error:
        raise _undecodable(error, b"", name, codec, before - len(plain.getstate()[0]), ends) from None


def _without_mark(raw: bytes, name: str, codec: str) -> bytes:
    for mark, foreign in _FOREIGN_MARKS:
        if raw.startswith(mark) and not codec.startswith(("utf-16", "utf-32")):
            raise DataError(f"{name} begins with the mark of {foreign}, not {codec}; pass --encoding {foreign}.")
    return raw.removeprefix(codecs.BOM_UTF8) if codec == "utf-8" else raw


def _undecodable(error: UnicodeError, raw: bytes, name: str, codec: str, before: int, ends: int) -> DataError:
    """What does not fit the encoding, and where; `before` is the place in the file of the error's own beginning."""
    if b"\0" in raw:
        return _binary(name, before + raw.index(b"\0"))
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{name} cannot be read as {codec}: {error}. Pass another --encoding.")
    line = ends + error.object.count(b"\n", 0, error.start) + 1
    place = f"byte 0x{error.object[error.start]:02x} at offset {before + error.start}, line {line} ({error.reason})"
    fit, misfit = _beyond_ascii(error.object, codec)
    if codec == "utf-8" and fit and misfit:
        return DataError(
            f"{name} mixes encodings: {place} is not utf-8, but {_lines(fit)} around it can be read as that. Convert "
            f"the {_lines(misfit)} that cannot, or drop what does not fit: iconv -c -f utf-8 -t utf-8."
        )
    return DataError(
        f"{name} is not {codec}: {place}. Pass its encoding in training, for example --encoding latin-1, or convert "
        "the file to utf-8."
    )


def _beyond_ascii(block: bytes, codec: str) -> tuple[int, int]:
    """Of the lines with signs beyond ASCII: how many fit an encoding, and how many do not."""
    fit, misfit = 0, 0
    for line in block.split(b"\n"):
        if not line.isascii():
            try:
                line.decode(codec)
                fit += 1
            except UnicodeError:
                misfit += 1
    return fit, misfit


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _binary(name: str, offset: int) -> DataError:
    return DataError(
        f"{name} is not a text: it holds a zero byte (offset {offset}). "
        f"Pass a plain text file (in training, one in UTF-16 goes with --encoding utf-16)."
    )


def name_of(source: Source) -> str:
    """What errors call it: a path as it was given, or a stream's own name."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    name = getattr(source, "name", None)
    return {"<stdin>": "standard input"}.get(name, name) if isinstance(name, str) else "the stream"


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
    try:
        return b"".join(blocks(source, pipes=pipes))
    except MemoryError:
        raise DataError(f"{source} does not fit into memory; pass a smaller file.") from None


def blocks(path: str | os.PathLike[str], *, pipes: bool = True) -> Iterator[bytes]:
    """The bytes of a file in blocks; `read_bytes` says the rest."""
    path = Path(path)
    check_file(path, pipes=pipes)
    try:
        with _explained(path), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            while raw := stream.read(_BLOCK):
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}; fetch or pack it again.") from None


def check_file(path: str | os.PathLike[str], *, pipes: bool = False) -> None:
    """See that a path leads to a file that can be read.

    Raises:
        DataError: missing, a folder, a device, or (unless `pipes`) a named pipe.
    """
    path = Path(path)
    with _explained(path):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder; pass one text file (cat {path}/*.txt > all.txt joins them).")
    if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
        # A device may never end, a pipe may never begin.
        raise DataError(f"{path} is not a regular file; write what it gives into a file first.")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}); check the name.") from None
    except gzip.BadGzipFile:  # an OSError too
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; check the path and its permissions.") from None
