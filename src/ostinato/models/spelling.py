"""What an encoder reads of words whose spelling counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import Lengths, check_sizes
from .checks import check_rates
from .sources import drop_words, unknown_token

__all__ = ["SpelledInput", "spelled"]

# A polynomial over a prime, so that a product of two numbers below it fits 64 bits.
_PRIME, _FACTOR = 2**31 - 1, 1_000_003
_NONE = _PRIME  # the hash of no piece
_AT_ONCE = 4096  # words whose pieces are counted side by side
_OPENING, _CLOSING = ord("<"), ord(">")


class SpelledInput(nn.Module):
    """Words as vectors, each of the word itself and of the pieces of its spelling.

        e_t = m[word_t] (E[word_t] + 1/√n Σ_g G[g])

    g runs over the n pieces of `<spelling>` that are known, of `shortest` to `longest` signs, a piece as often as it
    comes, so that words which are spelled alike have vectors alike, and a word that is not in the vocabulary has its
    pieces (Bojanowski, Grave, Joulin & Mikolov 2017, where pieces are hashed to fewer vectors). m as in `TokenInput`.

    Args:
        vocab_size: V, the number of words, unknown ones being one of them.
        size: D, the width of the vectors.
        pieces: the rows of G; `SpelledInput.of` counts them and says which they are.
        shortest, longest: signs of a piece, the marks `<` and `>` counting.
        dropout: the rate at which words are dropped, 0 <= dropout < 1.

    Attributes:
        known: hashes of the pieces, rising, [pieces] int64; of no piece before `of` or a state_dict gives them.

    Call:
        ``embedded = source(words, lengths=None)``, words [T, B, 1 + S] integers: the word's number in [0, V), then its
        spelling as `spelled` gives it, 0 behind its end; gives [T, B, D].

    Raises:
        ShapeError: a size or rate that cannot be; words that are no integers [T, B, 1 + S] or none of the V.

    >>> source = SpelledInput.of(["boring", "bore", "wordy"], 8)
    >>> source.vocab_size, source.pieces.num_embeddings  # <b, <bo, <bor, bo, bor, or
    (4, 6)
    >>> words = torch.tensor([[1, *spelled("boring", 8)], [0, *spelled("bored", 8)]])
    >>> source(words[:, None]).shape
    torch.Size([2, 1, 8])
    """

    def __init__(
        self,
        vocab_size: int,
        size: int,
        pieces: int,
        shortest: int = 2,
        longest: int = 6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, embedding_size=size, pieces=pieces, shortest=shortest, longest=longest)
        check_rates(embedding_dropout=dropout)
        if longest < shortest:
            raise ShapeError(f"pieces have {shortest} to {longest} signs; give shortest <= longest.")
        self.vocab_size = vocab_size
        self.size = size
        self.shortest, self.longest = shortest, longest
        self.dropout = float(dropout)
        self.embedding = nn.Embedding(vocab_size, size)
        self.pieces = nn.Embedding(pieces, size)
        self.known: Tensor
        self.register_buffer("known", torch.full((pieces,), _NONE))

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        size: int,
        least: int = 2,
        shortest: int = 2,
        longest: int = 6,
        dropout: float = 0.0,
    ) -> SpelledInput:
        """A source of these words, which are numbers 1, 2, ..., and 0 every other one.

        Args:
            words: the vocabulary, each word once.
            least: how many words have a piece that gets a vector.
            size, shortest, longest, dropout: as the class takes them.

        Raises:
            ShapeError: as the class; no piece is in so many words.
        """
        check_sizes(least=least, shortest=shortest, longest=longest)
        counts: Counter[int] = Counter()
        for start in range(0, len(words), _AT_ONCE):
            some = words[start : start + _AT_ONCE]
            signs = torch.tensor([spelled(word, max(map(len, some)) + 2) for word in some])
            hashes, real = _pieces(signs, shortest, longest)
            for row, own in zip(hashes, real, strict=True):
                counts.update(set(row[own].tolist()))
        known = sorted(piece for piece, count in counts.items() if count >= least)
        if not known:
            which = f"no piece of {shortest} to {longest} signs is in {least} of the {len(words)} words"
            raise ShapeError(f"{which}; give a smaller least, or more words.")
        source = cls(len(words) + 1, size, len(known), shortest, longest, dropout)
        source.known.copy_(torch.tensor(known))
        return source

    def forward(self, words: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class; what stands past a sequence's end is left to what reads it."""
        _check_spelled(words)
        numbers = words[..., 0].long()
        try:
            own = self.embedding(numbers)  # [T, B, D]
        except IndexError:
            raise unknown_token(numbers, self.vocab_size) from None
        embedded = own + self._spelling(words[..., 1:].flatten(0, 1)).view_as(own)
        return drop_words(embedded, numbers, self.vocab_size, self.dropout) if self.training else embedded

    def _spelling(self, signs: Tensor) -> Tensor:
        """The sum of the pieces' vectors over the root of their number, [N, D], of spellings [N, S]."""
        hashes, real = _pieces(signs, self.shortest, self.longest)  # [N, P]
        rows = torch.searchsorted(self.known, hashes).clamp(max=len(self.known) - 1)
        real = real & (self.known[rows] == hashes)
        count = real.sum(1)
        total = F.embedding_bag(rows[real], self.pieces.weight, count.cumsum(0) - count, mode="sum")
        return total / count.clamp(min=1).to(total.dtype).sqrt().unsqueeze(1)

    def spec(self) -> dict[str, Any]:
        """The arguments, in plain values."""
        return {
            "kind": "spelled",
            "vocab_size": self.vocab_size,
            "size": self.size,
            "pieces": self.pieces.num_embeddings,
            "shortest": self.shortest,
            "longest": self.longest,
            "dropout": self.dropout,
        }


def spelled(word: str, width: int) -> list[int]:
    """The signs of `<word>` as numbers, so many: what is longer is cut, what is shorter has zeros behind.

    >>> spelled("am", 6)
    [60, 97, 109, 62, 0, 0]
    """
    signs = [_OPENING, *map(ord, word), _CLOSING][:width]
    return signs + [0] * (width - len(signs))


def _pieces(signs: Tensor, shortest: int, longest: int) -> tuple[Tensor, Tensor]:
    """Hashes of all runs of so many signs, and which of them lie within the spelling: [N, P] each, of [N, S]."""
    signs = signs.long()
    hashes, rows, real = torch.zeros_like(signs), [signs[:, :0]], [signs[:, :0] > 0]
    for length in range(1, min(longest, signs.shape[1]) + 1):
        ends = signs[:, length - 1 :]  # of the runs of this length
        hashes = (hashes[:, : ends.shape[1]] * _FACTOR + ends) % _PRIME
        if length >= shortest:
            rows.append(hashes)
            real.append(ends > 0)
    return torch.cat(rows, 1), torch.cat(real, 1)


def _check_spelled(words: Any) -> None:
    if not isinstance(words, Tensor):
        raise ShapeError(f"spelled words are {type(words).__name__}; give a tensor [T, B, 1 + S] of integers.")
    if words.dim() != 3 or not words.shape[2] or words.dtype not in (torch.int32, torch.int64):
        got = f"{words.dtype} of shape {list(words.shape)}"
        raise ShapeError(f"spelled words are {got}; give int32 or int64 [T, B, 1 + S], number and spelling of each.")
