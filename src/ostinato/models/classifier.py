"""A sequence classifier: one answer for each sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import Lengths, check_sizes
from .checks import check_rates, entry
from .encoder import Encoder
from .pooling import Pooling, check_nonempty

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """Encoder, pooling, dropout, linear: logits of the classes of each sequence.

        y_t = encoder(x)_t
        logits = W dropout(pool(y)) + b

    Args:
        encoder: what reads the sequences.
        num_classes: K, one or more.
        pooling: "last", "mean", "max" or "attention", or several of them (see `Pooling`). Of a bidirectional encoder
            "last" is each direction's output at its own end.
        dropout: the rate on what was pooled, 0 <= dropout < 1; the encoder has its own.
        attention_size: the width of "attention"; None means that of the encoder's output.

    Call:
        ``logits = model(x, lengths=None)``, x as the encoder takes it; gives [B, K].

    Raises:
        ShapeError: sizes or options that do not fit; a sequence without steps.

    >>> import torch
    >>> from ostinato.models import FeatureInput
    >>> model = Classifier(Encoder.of(FeatureInput(3), "gru", 8, bidirectional=True), num_classes=4, pooling="max")
    >>> model(torch.zeros(5, 2, 3), lengths=[5, 3]).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        pooling: str | Sequence[str] = "last",
        dropout: float = 0.0,
        attention_size: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        check_rates(dropout=dropout)
        rnn = encoder.rnn
        directions = 2 if rnn.bidirectional and rnn.merge == "concat" else 1
        self.num_classes = num_classes
        self.attention_size = attention_size
        self.encoder = encoder
        self.pooling = Pooling(pooling, encoder.output_size, directions, attention_size)
        if len(self.pooling.kinds) > 1 and "last" in self.pooling.kinds and rnn.bidirectional and directions == 1:
            raise ShapeError(
                f"pooling {self.pooling.kinds} needs the directions apart, whose ends are not at one step, got merge="
                f"{rnn.merge!r}; use merge='concat', or pooling='last' alone."
            )
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(self.pooling.output_size, num_classes)

    @property
    def cell_name(self) -> str:
        """The name of the layers' cell."""
        return self.encoder.rnn.cell.name

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class."""
        if self.pooling.kinds == ("last",):  # the outputs before the last are not needed
            check_nonempty(x, lengths)
            pooled, _ = self.encoder(x, lengths, last=True)
        else:
            output, _ = self.encoder(x, lengths)  # [T, B, O]
            pooled = self.pooling(output, lengths)
        return self.decoder(self.dropout(pooled))  # [B, K]

    def spec(self) -> dict[str, Any]:
        """All that rebuilds this model but its weights, as plain JSON values; cells go as Programs."""
        return {
            "kind": "classifier",
            "encoder": self.encoder.spec(),
            "num_classes": self.num_classes,
            "pooling": list(self.pooling.kinds),
            "dropout": self.dropout.p,
            "attention_size": self.attention_size,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], backend: str | None = None) -> Classifier:
        """A model from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.
        """
        entry(spec, "kind", ("classifier",))
        encoder = Encoder.from_spec(entry(spec, "encoder"), backend)
        names = ("num_classes", "pooling", "dropout", "attention_size")
        return cls(encoder, *(entry(spec, name) for name in names))
