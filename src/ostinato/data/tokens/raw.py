"""Bytes: the text in UTF-8, nothing unknown."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Bytes"]


class Bytes:
    """The 256 bytes; a text is its UTF-8.

    >>> Bytes().encode("né").tolist(), Bytes().decode([110, 195, 169])
    ([110, 195, 169], 'né')
    """

    kind: ClassVar[str] = "bytes"
    unit: ClassVar[str] = "bytes"
    start = 10  # the end of a line
    never: Sequence[int] = ()
    unknown = None

    def __len__(self) -> int:
        """256."""
        return 256

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bytes)

    def __hash__(self) -> int:
        return hash(Bytes)

    def encode(self, text: str) -> Tensor:
        """The bytes of a text."""
        raw = text.encode("utf-8", "surrogatepass")
        return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).astype(np.int64))

    def encode_strictly(self, text: str) -> Tensor:
        """The same: nothing is unknown."""
        return self.encode(text)

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """The text; what is no UTF-8 becomes the replacement character."""
        return bytes(map(int, tokens)).decode("utf-8", "replace")

    def decoder(self) -> _ByteDecoder:
        """A text on its way out."""
        return _ByteDecoder()

    def to_json(self) -> dict[str, Any]:
        """Its kind says all."""
        return {"kind": self.kind}


class _ByteDecoder:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """What is whole."""
        return self._decoder.decode(bytes([token]))
