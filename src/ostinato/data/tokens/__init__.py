"""Texts as numbers: by characters, bytes, words, or byte pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...errors import DataError
from .base import Decoder, Tokenizer
from .bpe import BytePairs
from .characters import UNKNOWN, Vocabulary
from .raw import Bytes
from .words import Words

__all__ = [
    "UNKNOWN",
    "BytePairs",
    "Bytes",
    "Decoder",
    "Tokenizer",
    "Vocabulary",
    "Words",
    "make_tokenizer",
    "tokenizer_from_json",
]


def make_tokenizer(kind: str, pieces: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer, learned from a text where it has something to learn.

    Args:
        kind: "characters", "bytes", "words" or "bpe".
        pieces: the text to learn from; each piece ends behind the end of a line.
        size: V at most, of words and byte pairs.

    Raises:
        DataError: another kind, or a size that is too small.
    """
    if kind == Vocabulary.kind:
        return Vocabulary.of_pieces(pieces)
    if kind == Bytes.kind:
        return Bytes()
    if kind == Words.kind:
        return Words.of(pieces, size)
    if kind == BytePairs.kind:
        return BytePairs.of(pieces, size)
    raise DataError(f"there are no tokens {kind!r}; pass characters, bytes, words or bpe.")


def tokenizer_from_json(value: Any) -> Tokenizer:
    """A tokenizer from what `to_json` gave.

    Raises:
        DataError: anything else.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == Vocabulary.kind and isinstance(value.get("characters"), list):
        return Vocabulary(value["characters"])
    if kind == Bytes.kind:
        return Bytes()
    if kind == Words.kind and isinstance(value.get("words"), list):
        return Words(value["words"])
    if kind == BytePairs.kind and isinstance(value.get("document"), str):
        return BytePairs(value["document"])
    raise DataError(f"a tokenizer was expected, got {str(value)[:60]!r}.")
