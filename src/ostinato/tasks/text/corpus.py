"""The text of a run: where it comes from, and how it is cut for training and evaluation."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ...data import Pieces, Tokenizer, make_tokenizer, number, python_library_text
from ...data.catalogue import entries, fetch, find
from ...errors import DataError
from .config import TextData
from .held_out import HeldOut

__all__ = ["Corpus", "open_pieces"]

_LIBRARY_CHARACTERS = 5_000_000
_AT_ONCE = 1 << 20  # tokens that are counted at once: a sum takes 8 bytes for each, and the text may fill a disk


@dataclass(frozen=True)
class Corpus:
    """A text, its first part to train on and its tail to evaluate on, both numbered by a tokenizer."""

    source: str
    sha256: str
    train_characters: int
    tail_characters: int
    train: Tensor  # [N] int16 or int32
    tail: Tensor  # [M]
    tokenizer: Tokenizer

    @classmethod
    def read(cls, config: TextData, tokenizer: Tokenizer | None = None) -> Corpus:
        """Read the text that a config names.

        Args:
            config: names the text and the share that is held out.
            tokenizer: of the run that is resumed; None makes one from the part that is trained on.

        Raises:
            DataError: a text that cannot be used.
        """
        pieces = open_pieces(config)
        characters, sha256 = pieces.measure()
        if characters < 2:
            raise DataError(f"{pieces.name} has {characters} characters; a text to learn from needs thousands.")
        cut = int(characters * (1.0 - config.held_out))
        train, tail = pieces.first(cut), pieces.after(cut)
        if tokenizer is None:
            tokenizer = make_tokenizer(config.tokens, train, config.vocab_size)
        return cls(
            pieces.name,
            sha256,
            cut,
            characters - cut,
            number(train, tokenizer),
            number(tail, tokenizer),
            tokenizer,
        )

    @cached_property
    def unknown(self) -> int:
        """How many tokens of the text are outside the vocabulary."""
        code = self.tokenizer.unknown
        if code is None:
            return 0
        parts = (part for text in (self.train, self.tail) for part in text.split(_AT_ONCE))
        return sum(int((part == code).sum()) for part in parts)

    def held_out(self) -> HeldOut:
        """The tail."""
        return HeldOut(self.train, self.tail)

    def to_json(self) -> dict[str, Any]:
        """What a run writes down of its text, as plain JSON values."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "train_characters": self.train_characters,
            "held_out_characters": self.tail_characters,
            "train_tokens": len(self.train),
            "held_out_tokens": len(self.tail),
            "unknown_tokens": self.unknown,
        }


def open_pieces(config: TextData) -> Pieces:
    """The text that a config names, from its beginning to `max_characters`.

    Raises:
        DataError: there is no such text, or a data set of another kind.
    """
    if config.data is None:
        text = python_library_text(config.max_characters or _LIBRARY_CHARACTERS)
        return Pieces(f"the standard library of Python {platform.python_version()}", lambda: iter([text]))
    path = config.data
    if not os.path.exists(path) and path in {entry.name for entry in entries()}:
        files = fetch(find(path))
        if len(files) != 1 or next(iter(files.values())).suffix != ".txt":
            raise DataError(f"{path} is a data set of another kind; ostinato data list shows which task takes it.")
        path = str(next(iter(files.values())))
    pieces = Pieces.of_file(path, config.encoding)
    return pieces if config.max_characters is None else pieces.first(config.max_characters)
