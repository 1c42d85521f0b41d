"""Byte pair encoding, by the library `tokenizers`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import DataError

__all__ = ["BytePairs"]

_ALPHABET = 256


class BytePairs:
    """Pieces of words, merged from bytes by their frequency (Sennrich, Haddow and Birch 2016; over bytes as Radford
    et al. 2019); nothing is unknown, and decoding gives the very text.

    Args:
        document: what `tokenizers` writes of a tokenizer.

    Raises:
        DataError: a document that it cannot read.

    >>> pairs = BytePairs.of(["low lower lowest\\n"] * 9, 270)
    >>> pairs.decode(pairs.encode("slower!"))
    'slower!'
    """

    kind: ClassVar[str] = "bpe"
    unit: ClassVar[str] = "tokens"
    unknown = None
    never: Sequence[int] = ()

    def __init__(self, document: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(document)
        except Exception as error:  # noqa: BLE001 - the library raises no class of its own
            raise DataError(f"the tokenizer cannot be read: {error}.") from None
        self._document = document
        self.start = int(self.encode("\n")[0])

    @classmethod
    def of(cls, pieces: Iterable[str], size: int) -> BytePairs:
        """The merges that a text teaches.

        Args:
            pieces: the text.
            size: V at most; more than the 256 bytes.

        Raises:
            DataError: a size of 256 or less.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if size <= _ALPHABET:
            raise DataError(f"a vocabulary of {size} byte pairs was asked for; pass more than the {_ALPHABET} bytes.")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=2, show_progress=False
        )
        tokenizer.train_from_iterator(pieces, trainer)
        return cls(tokenizer.to_str())

    def __len__(self) -> int:
        """V."""
        return self._tokenizer.get_vocab_size()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BytePairs) and self._document == other._document

    def __hash__(self) -> int:
        return hash(self._document)

    def encode(self, text: str) -> Tensor:
        """Tokens, line by line: what they are does not depend on where a text is cut, if it is cut behind a line."""
        encoded = self._tokenizer.encode_batch(text.splitlines(keepends=True))
        return torch.tensor([token for line in encoded for token in line.ids], dtype=torch.int64)

    def encode_strictly(self, text: str) -> Tensor:
        """The same: nothing is unknown."""
        return self.encode(text)

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text; what is no UTF-8 becomes the replacement character."""
        return self._tokenizer.decode(list(map(int, tokens)), skip_special_tokens=False)

    def decoder(self) -> _PairDecoder:
        """A text on its way out."""
        return _PairDecoder(self)

    def to_json(self) -> dict[str, Any]:
        """The library's own document."""
        return {"kind": self.kind, "document": self._document}


class _PairDecoder:
    def __init__(self, pairs: BytePairs) -> None:
        self._pairs = pairs
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """What is whole: a sign of several bytes may need several tokens."""
        self._pending.append(token)
        text = self._pairs.decode(self._pending)
        if text.endswith("\ufffd") and len(self._pending) < 4:
            return ""
        self._pending.clear()
        return text
