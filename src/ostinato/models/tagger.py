"""A tagger: an answer at every step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..nn.checks import Lengths, check_sizes
from ..nn.state import State
from .checks import check_rates, entry
from .encoder import Encoder

__all__ = ["Tagger"]


class Tagger(nn.Module):
    """Encoder, dropout, linear: logits at every step, of tags that exclude each other or of several at once.

        y_t = encoder(x)_t
        logits_t = W dropout(y_t) + b

    Which of the two, the loss says: softmax over K, or a logistic function of each (piano rolls).

    Args:
        encoder: what reads the sequences.
        num_tags: K, one or more.
        dropout: the rate at which elements are dropped at each step, 0 <= dropout < 1; the encoder has its own.

    Call:
        ``logits, state = model(x, lengths=None, state=None)``

        x, lengths, state: as the encoder takes them.
        Returns logits [T, B, K] (past a sequence's end they mean nothing), and the state behind the last step.

    Raises:
        ShapeError: sizes or options that do not fit.

    >>> import torch
    >>> from ostinato.models import TokenInput
    >>> model = Tagger(Encoder.of(TokenInput(100, 8), "lstm", 8), num_tags=5)
    >>> logits, state = model(torch.zeros(7, 2, dtype=torch.long), lengths=[7, 3])
    >>> logits.shape
    torch.Size([7, 2, 5])
    """

    def __init__(self, encoder: Encoder, num_tags: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_sizes(num_tags=num_tags)
        check_rates(dropout=dropout)
        self.num_tags = num_tags
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(encoder.output_size, num_tags)

    @property
    def cell_name(self) -> str:
        """The name of the layers' cell."""
        return self.encoder.rnn.cell.name

    def forward(self, x: Tensor, lengths: Lengths | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """See the class."""
        output, after = self.encoder(x, lengths, state)  # [T, B, O]
        return self.decoder(self.dropout(output)), after  # [T, B, K]

    def spec(self) -> dict[str, Any]:
        """All that rebuilds this model but its weights, as plain JSON values; cells go as Programs."""
        return {
            "kind": "tagger",
            "encoder": self.encoder.spec(),
            "num_tags": self.num_tags,
            "dropout": self.dropout.p,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], backend: str | None = None) -> Tagger:
        """A model from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.
        """
        entry(spec, "kind", ("tagger",))
        encoder = Encoder.from_spec(entry(spec, "encoder"), backend)
        return cls(encoder, entry(spec, "num_tags"), entry(spec, "dropout"))
