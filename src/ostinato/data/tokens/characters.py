"""Characters and their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError

__all__ = ["UNKNOWN", "Vocabulary"]

UNKNOWN = "\ufffd"
"""Unicode's own sign for a character that cannot be represented; it is token 0."""

_SLICE = 1 << 22  # characters numbered at a time, so that a large text does not need eight times its size


class Vocabulary:
    """The characters a model knows, in the order of their tokens.

    Token 0 stands for every other character and prints as `UNKNOWN` ("\\ufffd"); a model is never asked to
    write it.

    Args:
        characters: each a single character, all different, without `UNKNOWN`.

    Raises:
        DataError: an entry that is not one character, or one that comes twice.

    >>> vocabulary = Vocabulary.of("banana")
    >>> vocabulary.encode("nab")
    tensor([3, 1, 2])
    >>> vocabulary.decode([3, 1, 2])
    'nab'
    """

    kind: ClassVar[str] = "characters"
    unit: ClassVar[str] = "characters"
    unknown = 0
    never: Sequence[int] = (0,)

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters: tuple[str, ...] = tuple(characters)
        for character in self.characters:
            if not isinstance(character, str) or len(character) != 1 or character == UNKNOWN:
                raise DataError(f"a vocabulary holds single characters, got {character!r}.")
        self._codes = np.array([ord(c) for c in self.characters], dtype=np.int64)
        self._order = np.argsort(self._codes)
        self._sorted = self._codes[self._order]
        if (self._sorted[1:] == self._sorted[:-1]).any():
            raise DataError("a vocabulary holds each character once; one comes twice.")

    @classmethod
    def of(cls, text: str, *, min_size: int = 128, max_size: int = 4095, coverage: float = 0.9999) -> Vocabulary:
        """The characters of a text; see `of_pieces`."""
        return cls.of_pieces([text], min_size=min_size, max_size=max_size, coverage=coverage)

    @classmethod
    def of_pieces(
        cls, pieces: Iterable[str], *, min_size: int = 128, max_size: int = 4095, coverage: float = 0.9999
    ) -> Vocabulary:
        """The characters of a text that comes in pieces.

        All of them while they are at most `min_size`. Beyond that the most frequent, until they cover
        the share `coverage` of the text, but never more than `max_size`: a few stray signs of a large text
        would otherwise each cost a row of the decoder that learns nothing.
        """
        counts = np.zeros(0x110000, dtype=np.int64)
        for text in pieces:
            for start in range(0, len(text), _SLICE):
                counts += np.bincount(_codes(text[start : start + _SLICE]), minlength=counts.size)
        length = int(counts.sum())
        counts[ord(UNKNOWN)] = 0
        ranked = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]  # ties by code point
        covered = np.cumsum(counts[ranked]) / max(1, length)
        enough = int(np.searchsorted(covered, coverage)) + 1
        kept = ranked[: min(max(enough, min_size), max_size)]
        return cls([chr(code) for code in sorted(kept)])

    def __len__(self) -> int:
        """V: the characters and the unknown one."""
        return len(self.characters) + 1

    def __contains__(self, character: object) -> bool:
        return character in self.characters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def encode(self, text: str) -> Tensor:
        """Tokens `[N]` (int64); a character outside the vocabulary becomes token 0."""
        return torch.from_numpy(self._numbers(text).astype(np.int64))

    def encode_strictly(self, text: str) -> Tensor:
        """Tokens `[N]` (int64) of a text that the user wrote.

        Raises:
            DataError: a character outside the vocabulary. The model has learned nothing about it, so going on
                from token 0 would answer another text than the one that was asked.
        """
        tokens = self.encode(text)
        unknown = [character for character in dict.fromkeys(text) if character not in self.characters]
        if unknown:
            shown = " ".join(repr(character) for character in unknown[:10])
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise DataError(
                f"the model never saw {shown}{more}; leave them out. "
                f"It knows {len(self.characters)} characters: {self.preview()}"
            )
        return tokens

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text of tokens."""
        return "".join(UNKNOWN if t == 0 else self.characters[t - 1] for t in map(int, tokens))

    def preview(self, width: int = 100) -> str:
        """The visible characters, for a message."""
        shown = "".join(c for c in self.characters if c.isprintable() and not c.isspace())
        return shown if len(shown) <= width else shown[:width] + " ..."

    @property
    def start(self) -> int:
        """A text begins as a line does; without lines, as its first character."""
        return self.characters.index("\n") + 1 if "\n" in self else min(1, len(self) - 1)

    def decoder(self) -> _CharacterDecoder:
        """A text on its way out."""
        return _CharacterDecoder(self)

    def to_json(self) -> dict[str, Any]:
        """The characters, as plain JSON values."""
        return {"kind": self.kind, "characters": list(self.characters)}

    def _numbers(self, text: str) -> np.ndarray:
        codes = _codes(text)
        if not len(self.characters):
            return np.zeros(len(codes), dtype=np.int64)
        place = np.minimum(np.searchsorted(self._sorted, codes), len(self._sorted) - 1)
        return np.where(self._sorted[place] == codes, self._order[place] + 1, 0)


class _CharacterDecoder:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def push(self, token: int) -> str:
        """The character."""
        return self._vocabulary.decode([token])


def _codes(text: str) -> np.ndarray:
    """Code points; a lone surrogate, which no encoding can say, counts as any other."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
