"""A recurrent language model: what comes next, given all that came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..errors import ShapeError
from ..nn import RNN
from ..nn.checks import check_causal, check_sizes
from .adaptive import AdaptiveInput, adaptive_nll, adaptive_softmax
from .checks import check_rates, entry, with_backend
from .encoder import Encoder, layers
from .sources import TokenInput
from .state import State

__all__ = ["IGNORED", "LanguageModel", "Scored", "activation_penalty"]

IGNORED = -100
"""A target that is not counted."""

_AT_ONCE = 2**25  # logits that a loss builds at a time, 128 MiB of them


class Scored(NamedTuple):
    """What targets cost, and what the regularisation of activations reads.

    Args:
        nll: the sum of `-log p(target)` over all that are counted, in nats; [].
        count: how many those are; [], int64.
        state: behind the last step.
        output: of the layers, before dropout, [T, B, O].
        dropped: the same behind it; what the decoder read.
    """

    nll: Tensor
    count: Tensor
    state: State
    output: Tensor
    dropped: Tensor


def activation_penalty(scored: Scored, alpha: float = 2.0, beta: float = 1.0) -> Tensor:
    """Activation regularisation, and temporal: of size, and of change (Merity, McCann & Socher 2017).

        alpha mean(dropped²) + beta mean((y_t - y_{t-1})²)

    Args:
        scored: of a `LanguageModel` that was given targets.
        alpha, beta: AWD-LSTM's; 0 leaves a term out.

    >>> import torch
    >>> y = torch.tensor([1.0, 3.0]).view(2, 1, 1)
    >>> activation_penalty(Scored(y.sum(), y.sum(), y, output=y, dropped=y), alpha=1.0, beta=10.0)
    tensor(45.)
    """
    penalty = scored.dropped.new_zeros(())
    if alpha:
        penalty = penalty + alpha * scored.dropped.square().mean()
    if beta and len(scored.output) > 1:
        penalty = penalty + beta * scored.output.diff(dim=0).square().mean()
    return penalty


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, decoder: `p(token[t+1] | token[0..t])`.

        e_t = m_e[token_t] E[token_t]
        y_t, s_t = rnn(m_in ⊙ e_t, s_{t-1})
        logits_t = W (m_out ⊙ y_t) + b

    With the dropouts in all places it is the AWD-LSTM (Merity, Keskar & Socher 2018).

    Args:
        vocab_size: V, the number of tokens.
        cell: a catalogue name or a `Cell`; a list gives each layer its own.
        hidden_size: H, the width of each recurrent layer; a list gives each its own.
        num_layers: how many recurrent layers stand on each other; None: as many as the lists have entries, else 1.
        embedding_size: D, the width of the embedding; None means the last layer's H.
        dropout: the rate of m_out, before the decoder.
        hidden_dropout: the rate between the layers (dropouth); None means that of `dropout`.
        input_dropout: the rate of m_in (dropouti).
        embedding_dropout: the rate of m_e: whole words (dropoute).
        weight_drop: the rate on the recurrent matrices (wdrop).
        locked: masks between and around the layers are one for all steps (Gal & Ghahramani 2016), else drawn at each.
        tied: the decoder's matrix is the embedding's, which needs the two to be as wide
            (Press and Wolf 2017; Inan et al. 2017); of an adaptive softmax see `AdaptiveInput`.
        adaptive: cutoffs of an adaptive softmax in the place of W, for large vocabularies numbered by falling
            frequency; see `adaptive_softmax`. None for the plain one.
        div_value: how much narrower each band of it is than the one before.
        backend: which backend runs the layers.
        sizes: numbers for the cell's own size symbols, such as `{"P": 32}`.
        connections: "plain", "residual" or "dense", as `RNN` takes it.
        init: how parameters of the cell start, by name or pattern, as `RNN` takes it.

    Call:
        ``logits, state = model(tokens, state=None)``
        ``scored = model(tokens, state, targets)``, a `Scored`

        tokens: [T, B], integers in [0, V).
        state: what the previous piece of the same B sequences returned; None starts them.
        targets: [T, B]; -100 (`IGNORED`) is not counted. With them no more logits than needed are built: none past a
            band's for an adaptive softmax, and of many a part at a time.
        Returns logits [T, B, V] (log p itself of an adaptive softmax), and the state behind the last step.

    Raises:
        ShapeError: sizes that do not fit together, or layers that cannot read a text piece by piece.
        CellError: an unknown cell.

    >>> import torch
    >>> model = LanguageModel(vocab_size=65, hidden_size=8)
    >>> tokens = torch.zeros(6, 2, dtype=torch.long)
    >>> logits, state = model(tokens[:5])
    >>> logits.shape
    torch.Size([5, 2, 65])
    >>> scored = model(tokens[:5], targets=tokens[1:])
    >>> scored.nll.shape, int(scored.count)
    (torch.Size([]), 10)
    """

    def __init__(
        self,
        vocab_size: int,
        cell: Any = "lstm",
        hidden_size: int | Sequence[int] = 256,
        num_layers: int | None = None,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        backend: str = "auto",
        sizes: Mapping[str, int] | None = None,
        *,
        hidden_dropout: float | None = None,
        input_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
        locked: bool = True,
        adaptive: Sequence[int] | None = None,
        div_value: float = 4.0,
        connections: Any = "plain",
        init: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if embedding_size is None:
            embedding_size = hidden_size if isinstance(hidden_size, int) else hidden_size[-1]
        check_sizes(vocab_size=vocab_size, embedding_size=embedding_size)
        check_rates(dropout=dropout)
        rnn = layers(
            embedding_size,
            cell,
            hidden_size,
            num_layers,
            hidden_dropout=dropout if hidden_dropout is None else hidden_dropout,
            weight_drop=weight_drop,
            locked=locked,
            backend=backend,
            sizes=sizes,
            connections=connections,
            init=init,
        )
        rates = {"input_dropout": input_dropout, "dropout": dropout, "locked": locked}
        self._assemble(rnn, vocab_size, tied, adaptive, div_value, embedding_dropout, rates)

    def _assemble(
        self,
        rnn: RNN,
        vocab_size: int,
        tied: bool,
        adaptive: Sequence[int] | None,
        div_value: float,
        embedding_dropout: float,
        rates: Mapping[str, Any],
    ) -> None:
        check_causal(rnn, "a language model")
        size = rnn.output_size
        if tied and rnn.input_size != size:
            raise ShapeError(
                f"tied weights need an embedding as wide as the layers' output, got {rnn.input_size} and {size}; "
                f"pass embedding_size={size}."
            )
        self.vocab_size = vocab_size
        self.tied = tied
        self.adaptive = None if adaptive is None else list(adaptive)
        self.div_value = float(div_value)
        self.embedding_dropout = float(embedding_dropout)
        if adaptive is not None and tied:
            softmax = adaptive_softmax(size, vocab_size, adaptive, div_value)
            self.encoder = Encoder(AdaptiveInput(softmax, embedding_dropout), rnn, **rates)
            self.decoder: nn.Module = softmax
            return
        source = TokenInput(vocab_size, rnn.input_size, dropout=embedding_dropout)
        self.encoder = Encoder(source, rnn, **rates)
        if adaptive is not None:
            self.decoder = adaptive_softmax(size, vocab_size, adaptive, div_value)
            return
        decoder = nn.Linear(size, vocab_size)
        nn.init.zeros_(decoder.bias)
        if tied:
            # The one matrix also writes logits, so it starts at the decoder's small scale, not at N(0, 1).
            nn.init.normal_(source.embedding.weight, std=size**-0.5)
            decoder.weight = source.embedding.weight
        self.decoder = decoder

    @property
    def rnn(self) -> RNN:
        """The recurrent layers."""
        return self.encoder.rnn

    @property
    def cell_name(self) -> str:
        """The name of the layers' cell."""
        return self.rnn.cell.name

    def forward(self, tokens: Tensor, state: State | None = None, targets: Tensor | None = None) -> Any:
        """See the class."""
        output, after = self.encoder.read(tokens, state=state)  # [T, B, O]
        dropped = self.encoder.drop_output(output)
        if targets is None:
            return self._logits(dropped), after  # [T, B, V]
        if targets.shape != tokens.shape:
            raise ShapeError(
                f"targets have shape {list(targets.shape)}, the tokens {list(tokens.shape)}; give the token that "
                f"follows each, or {IGNORED} where none is counted."
            )
        nll = self._nll(dropped.flatten(0, 1), targets.flatten())
        return Scored(nll, (targets != IGNORED).sum(), after, output, dropped)

    def next_log_probs(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """log p of the token behind the last of these, [B, V], and the state: what sampling and beams need.

        Args:
            tokens: [T, B], T >= 1.
            state: as in the call.
        """
        if not tokens.shape[0]:
            raise ShapeError(f"tokens have no steps (shape {list(tokens.shape)}); give at least one.")
        output, after = self.encoder(tokens, state=state, last=True)  # [B, O]
        return self._logits(output).log_softmax(-1), after

    def _logits(self, output: Tensor) -> Tensor:
        if isinstance(self.decoder, nn.AdaptiveLogSoftmaxWithLoss):
            return self.decoder.log_prob(output.flatten(0, -2)).view(*output.shape[:-1], self.vocab_size)
        return self.decoder(output)

    def _nll(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The summed loss of rows [N, O]."""
        try:
            if isinstance(self.decoder, nn.AdaptiveLogSoftmaxWithLoss):
                counted = targets != IGNORED
                return adaptive_nll(self.decoder, rows[counted], targets[counted])
            pieces = max(1, _AT_ONCE // self.vocab_size)
            if len(rows) <= pieces:
                return self._plain_nll(rows, targets)
            total = rows.new_zeros(())
            for own, its in zip(rows.split(pieces), targets.split(pieces), strict=True):
                # logits are computed again in backward rather than kept
                total = total + checkpoint(self._plain_nll, own, its, use_reentrant=False, preserve_rng_state=False)
            return total
        except (IndexError, RuntimeError):
            known = targets[targets != IGNORED]
            if known.numel() and not bool(((known >= 0) & (known < self.vocab_size)).all()):
                low, high = int(known.min()), int(known.max())
                raise ShapeError(
                    f"a target is {low if low < 0 else high}, but the vocabulary has {self.vocab_size}; give tokens in "
                    f"0..{self.vocab_size - 1}, or {IGNORED} for one that is not counted."
                ) from None
            raise

    def _plain_nll(self, rows: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.decoder(rows), targets, ignore_index=IGNORED, reduction="sum")

    def spec(self) -> dict[str, Any]:
        """All that rebuilds this model but its weights, as plain JSON values; cells go as Programs."""
        return {
            "kind": "language_model",
            "vocab_size": self.vocab_size,
            "rnn": self.rnn.spec(),
            "tied": self.tied,
            "adaptive": self.adaptive,
            "div_value": self.div_value,
            "embedding_dropout": self.embedding_dropout,
            "input_dropout": self.encoder.input_dropout,
            "dropout": self.encoder.dropout,
            "locked": self.encoder.locked,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], backend: str | None = None) -> LanguageModel:
        """A model from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.
        """
        entry(spec, "kind", ("language_model",))
        rnn = RNN.from_spec(with_backend(entry(spec, "rnn"), backend))
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        rates = {name: entry(spec, name) for name in ("input_dropout", "dropout", "locked")}
        names = ("vocab_size", "tied", "adaptive", "div_value", "embedding_dropout")
        model._assemble(rnn, rates=rates, **{name: entry(spec, name) for name in names})
        return model
