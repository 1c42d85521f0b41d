"""What an encoder reads: tokens, by a table of vectors, or features as they are measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..ir import Mask
from ..nn.checks import Lengths, check_input, check_sizes
from ..nn.masks import draw
from .checks import check_rates, real_steps

__all__ = ["FeatureInput", "TokenInput", "check_tokens", "drop_words", "unknown_token"]


class TokenInput(nn.Module):
    """Tokens as vectors: `e_t = m[token_t] E[token_t]`.

    m, in training, is a mask over the vocabulary, Bernoulli(1 - rate) / (1 - rate), drawn once a call: a word that is
    dropped is dropped wherever it stands (Gal & Ghahramani 2016; Merity, Keskar & Socher 2018, dropoute).

    Args:
        vocab_size: V, the number of tokens.
        size: D, the width of their vectors.
        padding_idx: a token whose vector is 0 and stays so; None for none.
        dropout: the rate at which words are dropped, 0 <= dropout < 1.

    Call:
        ``embedded = source(tokens, lengths=None)``, tokens [T, B] integers in [0, V); gives [T, B, D].

    Raises:
        ShapeError: a size, rate or index that cannot be; tokens that are no integers [T, B] or none of the V.

    >>> TokenInput(65, 8)(torch.zeros(5, 2, dtype=torch.long)).shape
    torch.Size([5, 2, 8])
    """

    def __init__(self, vocab_size: int, size: int, padding_idx: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, embedding_size=size)
        check_rates(embedding_dropout=dropout)
        if padding_idx is not None and not 0 <= padding_idx < vocab_size:
            raise ShapeError(f"padding_idx is {padding_idx}; give a token, 0 <= padding_idx < {vocab_size}, or None.")
        self.vocab_size = vocab_size
        self.size = size
        self.padding_idx = padding_idx
        self.dropout = float(dropout)
        self.embedding = nn.Embedding(vocab_size, size, padding_idx)

    def forward(self, tokens: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class; padding is a token like others, and is left to what reads it."""
        check_tokens(tokens)
        try:
            embedded = self.embedding(tokens)  # [T, B, D]
        except IndexError:
            raise unknown_token(tokens, self.vocab_size) from None
        return drop_words(embedded, tokens, self.vocab_size, self.dropout) if self.training else embedded

    def spec(self) -> dict[str, Any]:
        """The arguments, in plain values."""
        return {
            "kind": "tokens",
            "vocab_size": self.vocab_size,
            "size": self.size,
            "padding_idx": self.padding_idx,
            "dropout": self.dropout,
        }


class FeatureInput(nn.Module):
    """Vectors as they are measured: x_t, or `W norm(x_t) + b` where that is asked for.

    Args:
        input_size: D, the width of x.
        projection_size: the width to which a learned linear map takes them; None for none.
        normalize: normalise the features of each step before that (Ba, Kiros & Hinton 2016), with a learned gain and
            bias.

    Attributes:
        size: of what comes out.

    Call:
        ``features = source(x, lengths=None)``, x [T, B, D]; gives [T, B, size]. What stands past a sequence's end has
        no effect, also on the gradients of W.

    Raises:
        ShapeError: a size that cannot be; x of another width, dtype or device.

    >>> FeatureInput(3, projection_size=8, normalize=True)(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 2, 8])
    """

    def __init__(self, input_size: int, projection_size: int | None = None, normalize: bool = False) -> None:
        super().__init__()
        check_sizes(input_size=input_size)
        if projection_size is not None:
            check_sizes(projection_size=projection_size)
        self.input_size = input_size
        self.projection_size = projection_size
        self.size = input_size if projection_size is None else projection_size
        self.norm = nn.LayerNorm(input_size) if normalize else None
        self.projection = None if projection_size is None else nn.Linear(input_size, projection_size)

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class."""
        weight = next(self.parameters(), None)
        if not isinstance(x, Tensor) or x.dim() != 3:
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"features are a tensor [T, B, D], got {got}; for one sequence give x[:, None].")
        check_input(x, self.input_size, x if weight is None else weight, False)
        if weight is not None and lengths is not None:  # 0 times what is no number would be no number
            x = x.masked_fill(~real_steps(x, lengths).unsqueeze(2), 0.0)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.projection is None else self.projection(x)

    def spec(self) -> dict[str, Any]:
        """The arguments, in plain values."""
        return {
            "kind": "features",
            "input_size": self.input_size,
            "projection_size": self.projection_size,
            "normalize": self.norm is not None,
        }


def drop_words(embedded: Tensor, tokens: Tensor, vocab_size: int, rate: float) -> Tensor:
    """Vectors [T, B, D] of tokens [T, B], those of some words 0 and the rest scaled so that the mean stays."""
    if not rate:
        return embedded
    # a mask over words, looked up by token, spares a copy of the whole table
    words = draw(Mask("words", 1 - rate, 1 / (1 - rate), True), (vocab_size, 1), embedded, None)
    return embedded * words[tokens]


def check_tokens(tokens: Any) -> None:
    """Tokens are integers [T, B].

    Raises:
        ShapeError: they are not.
    """
    if not isinstance(tokens, Tensor):
        raise ShapeError(f"tokens are {type(tokens).__name__}; give a tensor [T, B] of integers.")
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ShapeError(f"tokens are {tokens.dtype} of shape {list(tokens.shape)}; give integers [T, B], time first.")


def unknown_token(tokens: Tensor, vocab_size: int) -> ShapeError:
    """What is raised where one of the tokens is none of the vocabulary."""
    low, high = int(tokens.min()), int(tokens.max())
    worst = low if low < 0 else high
    return ShapeError(f"a token is {worst}, but the vocabulary has {vocab_size}; give tokens in 0..{vocab_size - 1}.")
