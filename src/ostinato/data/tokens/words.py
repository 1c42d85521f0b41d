"""Words, marks and line ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import DataError

__all__ = ["Words"]

_WORD = re.compile(r"\n|<\w+>|\w+(?:['’\-]\w+)*|[^\w\s]")
_END, _UNKNOWN = "\n", "<unk>"
_CLOSING = frozenset(".,;:!?)]}%’'”»")
_OPENING = frozenset("([{“«")


class Words:
    """The most frequent words of a text, by falling frequency; all others are `<unk>`.

    A word is a run of letters, digits and inner apostrophes or hyphens; every other sign that is no blank stands for
    itself; the end of a line is a token; `<unk>` and its like, as some corpora hold them, are one word.

    Args:
        words: without the end of a line and `<unk>`, which are tokens 0 and 1.

    Raises:
        DataError: a word that comes twice.

    >>> words = Words.of(["the cat saw the dog.\\n"], 4)
    >>> words.words, words.decode(words.encode("the dog sat.\\n"))
    (('the', '.'), 'the <unk> <unk>.\\n')
    """

    kind: ClassVar[str] = "words"
    unit: ClassVar[str] = "words"
    start = 0
    unknown = 1
    never: Sequence[int] = (1,)

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        every = (_END, _UNKNOWN, *self.words)
        self._numbers = {word: number for number, word in enumerate(every)}
        if len(self._numbers) != len(every):
            raise DataError("a vocabulary holds each word once; one comes twice.")
        self._every = every

    @classmethod
    def of(cls, pieces: Iterable[str], size: int) -> Words:
        """The most frequent words of a text.

        Args:
            pieces: the text; a piece ends behind the end of a line.
            size: V at most, the end of a line and `<unk>` included; 3 or more.

        Raises:
            DataError: a size below 3, or a text without words.
        """
        if size < 3:
            raise DataError(f"a vocabulary of {size} words was asked for; pass 3 or more.")
        counts: Counter[str] = Counter()
        for piece in pieces:
            counts.update(cls.split(piece))
        for token in (_END, _UNKNOWN):
            counts.pop(token, None)
        if not counts:
            raise DataError("the text has no words; pass another text, or --tokens characters.")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked[: size - 2])

    def __len__(self) -> int:
        """V."""
        return len(self._every)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    @staticmethod
    def split(text: str) -> list[str]:
        """The words of a text, as they stand in it."""
        return _WORD.findall(text)

    def encode(self, text: str) -> Tensor:
        """Tokens; a word outside the vocabulary becomes `<unk>`."""
        numbers = self._numbers
        return torch.tensor([numbers.get(word, 1) for word in self.split(text)], dtype=torch.int64)

    def encode_strictly(self, text: str) -> Tensor:
        """Tokens of a text that the user wrote."""
        unknown = [word for word in dict.fromkeys(self.split(text)) if word not in self._numbers]
        if unknown:
            shown = " ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
            raise DataError(f"the model does not know {shown}; leave them out, or write them as its text does.")
        return self.encode(text)

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The words, with blanks between them where one writes them."""
        decoder = self.decoder()
        return "".join(decoder.push(int(token)) for token in tokens)

    def decoder(self) -> _WordDecoder:
        """A text on its way out."""
        return _WordDecoder(self._every)

    def to_json(self) -> dict[str, Any]:
        """The words."""
        return {"kind": self.kind, "words": list(self.words)}


class _WordDecoder:
    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._last = _END

    def push(self, token: int) -> str:
        """The word, with the blank before it."""
        word, last = self._words[token], self._last
        self._last = word
        tight = last == _END or last in _OPENING or word == _END or word in _CLOSING
        return word if tight else f" {word}"
