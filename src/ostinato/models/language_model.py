"""A recurrent language model: what comes next, given all that came before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ShapeError
from ..nn import RNN
from ..nn.checks import check_statistics
from .state import State

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, linear decoder: `p(token[t+1] | token[0..t])`.

        e_t = E[token_t]
        y_t, s_t = rnn(e_t, s_{t-1})
        logits_t = W dropout(y_t) + b

    Args:
        vocab_size: V, the number of tokens.
        cell: a catalogue name or a `Cell`.
        hidden_size: H, the width of each recurrent layer.
        num_layers: how many recurrent layers stand on each other.
        embedding_size: D, the width of the embedding; None means `hidden_size`.
        dropout: the probability with which an element between the layers, or before the decoder, is zeroed.
        tied: the decoder's matrix is the embedding's, which needs the two to be as wide
            (Press and Wolf 2017; Inan et al. 2017).
        backend: which backend runs the layers.
        sizes: numbers for the cell's own size symbols, such as `{"P": 32}`.

    Raises:
        ShapeError: sizes that do not fit together, or a cell with batch_norm: texts are read piece by piece.
        CellError: an unknown cell.

    >>> import torch
    >>> model = LanguageModel(vocab_size=65, hidden_size=8)
    >>> logits, state = model(torch.zeros(5, 2, dtype=torch.long))
    >>> logits.shape
    torch.Size([5, 2, 65])
    """

    def __init__(
        self,
        vocab_size: int,
        cell: Any = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        backend: str = "auto",
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        if vocab_size < 1:
            raise ShapeError(f"vocab_size is {vocab_size}; a language model needs at least 1 token.")
        if embedding_size is None:
            embedding_size = hidden_size
        _check(embedding_size, dropout)
        inner = dropout if num_layers > 1 else 0.0  # between layers; the last one's output is dropped below
        rnn = RNN(
            cell,
            embedding_size,
            hidden_size,
            num_layers=num_layers,
            dropout=inner,
            backend=backend,
            sizes=sizes,
        )
        super().__init__()
        self._assemble(vocab_size, rnn, dropout, tied)

    def _assemble(self, vocab_size: int, rnn: RNN, dropout: float, tied: bool) -> None:
        check_statistics(rnn, "a language model")
        if tied and rnn.input_size != rnn.output_size:
            raise ShapeError(
                f"tied weights need an embedding as wide as the layers' output, got {rnn.input_size} and "
                f"{rnn.output_size}; pass embedding_size={rnn.output_size}."
            )
        self.vocab_size = vocab_size
        self.tied = tied
        self.embedding = nn.Embedding(vocab_size, rnn.input_size)
        self.rnn = rnn
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(rnn.output_size, vocab_size)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            # The one matrix also writes logits, so it starts at the decoder's small scale, not at N(0, 1).
            nn.init.normal_(self.embedding.weight, std=rnn.output_size**-0.5)
            self.decoder.weight = self.embedding.weight

    @property
    def cell_name(self) -> str:
        """The name of the layers' cell."""
        return self.rnn.cell.name

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of each next token, and the state after the last.

        Args:
            tokens: `[T, B]`, integers in `[0, V)`.
            state: what the previous piece of the same B sequences returned; None starts them.

        Returns:
            logits `[T, B, V]` and the state, which may be passed to the next call.
        """
        embedded = self.embedding(tokens)  # [T, B, D]
        output, after = self.rnn(embedded, state)  # [T, B, H]
        return self.decoder(self.dropout(output)), after  # [T, B, V]

    def spec(self) -> dict[str, Any]:
        """All that rebuilds this model but its weights, as plain JSON values; the cell goes as a Program."""
        return {
            "kind": "language_model",
            "vocab_size": self.vocab_size,
            "dropout": self.dropout.p,
            "tied": self.tied,
            "rnn": self.rnn.spec(),
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any], backend: str | None = None) -> LanguageModel:
        """A model from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.
        """
        rnn_spec = spec["rnn"] if backend is None else {**spec["rnn"], "backend": backend}
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._assemble(spec["vocab_size"], RNN.from_spec(rnn_spec), spec["dropout"], spec["tied"])
        return model


def _check(embedding_size: int, dropout: float) -> None:
    if embedding_size < 1:
        raise ShapeError(f"embedding_size is {embedding_size}; it must be 1 or more.")
    if not 0.0 <= dropout < 1.0:
        raise ShapeError(f"dropout is {dropout}; it is a probability: pass 0 <= dropout < 1.")
