"""A text piece by piece, so that one larger than the memory can be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import DataError
from .decoding import blocks, check_file, decode_blocks

__all__ = ["Pieces"]

_LONGEST = 1 << 24  # characters of a line that is not cut


class Pieces:
    """A text that can be read from its beginning as often as is asked, some million characters at a time.

    Args:
        name: what it is called.
        read: gives the text anew, in pieces of any length.

    >>> pieces = Pieces("two lines", lambda: iter(["one\\ntw", "o\\n"]))
    >>> list(pieces), pieces.measure()[0]
    (['one\\n', 'two\\n'], 8)
    """

    def __init__(self, name: str, read: Callable[[], Iterator[str]]) -> None:
        self.name = name
        self._read = read

    @classmethod
    def of_file(cls, path: str | os.PathLike[str], encoding: str = "utf-8") -> Pieces:
        """A text file, its line ends made "\\n" and a byte order mark left out.

        Args:
            path: a regular file; one whose name ends in .gz is unpacked.
            encoding: any that Python knows.

        Raises:
            DataError: missing or not a regular file; and where it is read, what `decode` raises.
        """
        check_file(path)
        return cls(Path(path).name, lambda: decode_blocks(blocks(path), str(path), encoding))

    def __iter__(self) -> Iterator[str]:
        """The pieces; each ends behind the end of a line, so that no word is cut."""
        rest = ""
        for text in self._read():
            rest += text
            cut = rest.rfind("\n") + 1
            if not cut and len(rest) > _LONGEST:
                cut = (rest.rfind(" ") + 1) or len(rest)
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
        if rest:
            yield rest

    def first(self, characters: int) -> Pieces:
        """The beginning of it."""

        def read() -> Iterator[str]:
            left = characters
            for piece in self:
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return

        return Pieces(self.name, read)

    def after(self, characters: int) -> Pieces:
        """All but the beginning of it."""

        def read() -> Iterator[str]:
            skipped = 0
            for piece in self:
                start = max(0, characters - skipped)
                skipped += len(piece)
                if start < len(piece):
                    yield piece[start:]

        return Pieces(self.name, read)

    def measure(self) -> tuple[int, str]:
        """How many characters it has, and the SHA-256 of them in UTF-8.

        Raises:
            DataError: it holds nothing but blanks.
        """
        digest = hashlib.sha256()
        count, blank = 0, True
        for piece in self:
            digest.update(piece.encode("utf-8", "surrogatepass"))
            count += len(piece)
            blank = blank and not piece.strip()
        if blank:
            raise DataError(f"{self.name} holds nothing but blanks ({count} characters); pass a file with text.")
        return count, digest.hexdigest()
