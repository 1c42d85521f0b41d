"""What the catalogue says of a data set: its files, where they are from, and under which licence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .digest import content_of, sha256_of
from .origins import Origin

__all__ = ["Entry", "File", "Part"]


@dataclass(frozen=True)
class Part:
    """What a file is made from: all of an origin's file, or one member of an archive."""

    origin: Origin
    member: str | None = None


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Args:
        path: its place below `OSTINATO_DATA` and in the cache.
        size: in bytes.
        sha256: of its bytes.
        parts: what it is made from.
        convert: makes its bytes from those of the parts; None: it is the one part, byte for byte.
        content: where it is converted, the digest of what it says (see `content_of`), since its bytes depend on the
            library that packs them.
    """

    path: str
    size: int
    sha256: str
    parts: tuple[Part, ...]
    convert: Callable[[list[bytes]], bytes] | None = None
    content: str | None = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def fault(self, path: Path) -> str | None:
        """Why the file at `path` is not this one; None if it is."""
        size = path.stat().st_size
        if size == self.size and sha256_of(path) == self.sha256:
            return None
        if self.content is not None and content_of(path) == self.content:
            return None
        got = f"{size} bytes, sha256 {sha256_of(path)}"
        return f"it has {got}, but {self.name} has {self.size} bytes, sha256 {self.sha256}"


@dataclass(frozen=True)
class Entry:
    """A data set.

    Args:
        name: how it is asked for.
        title: what it is, in one line.
        kind: what is read from it: "text", "labelled text", "series", "images", "rolls", "beats", "timed table",
            "table", "pairs" or "arrays".
        files: all of them.
        licence: of the data.
        note: what one should know before using it.
    """

    name: str
    title: str
    kind: str
    files: tuple[File, ...]
    licence: str
    note: str = ""

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where the files are from, each once."""
        return tuple(dict.fromkeys(part.origin for file in self.files for part in file.parts))
