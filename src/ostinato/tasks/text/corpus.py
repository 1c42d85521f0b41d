"""The text of a run: where it comes from, and how it is cut for training and evaluation."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ...data import Vocabulary, python_library_text, read_text, split_tail
from ...errors import DataError
from .config import TextData
from .held_out import HeldOut

__all__ = ["Corpus"]

_LIBRARY_CHARACTERS = 5_000_000


@dataclass(frozen=True)
class Corpus:
    """A text, its first part to train on and its tail to evaluate on, both numbered by a vocabulary."""

    source: str
    sha256: str
    train: Tensor  # [N] int16
    tail: Tensor  # [M] int16
    vocabulary: Vocabulary

    @classmethod
    def read(cls, config: TextData, vocabulary: Vocabulary | None = None) -> Corpus:
        """Read the text that a config names.

        Args:
            config: names the text and the share that is held out.
            vocabulary: of the run that is resumed; None makes one from the part that is trained on.

        Raises:
            DataError: a text that cannot be used.
        """
        if config.data is None:
            text = python_library_text(config.max_characters or _LIBRARY_CHARACTERS)
            source = f"the standard library of Python {platform.python_version()}"
        else:
            text = read_text(config.data, config.encoding)[: config.max_characters]
            source = str(Path(config.data).name)
        if len(text) < 2:
            raise DataError(f"{source} has {len(text)} characters; a text to learn from needs thousands.")
        train, tail = split_tail(text, config.held_out)
        if vocabulary is None:
            vocabulary = Vocabulary.of(train)
        return cls(
            source,
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            vocabulary.encode_compact(train),
            vocabulary.encode_compact(tail),
            vocabulary,
        )

    @cached_property
    def unknown(self) -> int:
        """How many characters of the text are outside the vocabulary."""
        return int((self.train == 0).sum() + (self.tail == 0).sum())

    def held_out(self) -> HeldOut:
        """The tail."""
        return HeldOut(self.train, self.tail)

    def to_json(self) -> dict[str, Any]:
        """What a run writes down of its text, as plain JSON values."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "train_characters": len(self.train),
            "held_out_characters": len(self.tail),
            "unknown_characters": self.unknown,
        }
