"""What a tokenizer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

__all__ = ["Decoder", "Tokenizer"]


class Decoder(Protocol):
    """A text on its way out: tokens go in one by one, text comes as soon as it is certain."""

    def push(self, token: int) -> str:
        """The text that is certain now; empty while a sign is not whole."""
        ...


class Tokenizer(Protocol):
    """A text as numbers 0 to V - 1, and back."""

    kind: ClassVar[str]
    """What `--tokens` calls it."""
    unit: ClassVar[str]
    """What its tokens are called, in the plural."""

    def __len__(self) -> int:
        """V, the number of tokens."""
        ...

    @property
    def start(self) -> int:
        """The token before a text: what the model has read where a sample begins with nothing."""
        ...

    @property
    def never(self) -> Sequence[int]:
        """Tokens that are never drawn."""
        ...

    @property
    def unknown(self) -> int | None:
        """The token for all that it does not know; None where it knows everything."""
        ...

    def encode(self, text: str) -> Tensor:
        """Tokens [N] (int64). A text that ends behind the end of a line has the tokens of its lines."""
        ...

    def encode_strictly(self, text: str) -> Tensor:
        """Tokens [N] (int64) of a text that the user wrote.

        Raises:
            DataError: something in it is unknown: to go on from it would answer another text than was asked.
        """
        ...

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text of tokens."""
        ...

    def decoder(self) -> Decoder:
        """A new one."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with its kind."""
        ...
