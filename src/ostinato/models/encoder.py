"""What every model begins with: an input, recurrent layers over it, and dropout around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ShapeError
from ..lang import Cell
from ..nn import RNN
from ..nn.checks import Lengths
from ..nn.options import cell_of, each_layer, is_list, layer_count
from ..nn.state import State
from ..nn.wiring import drop
from ..transforms import weight_drop as with_weight_drop
from .checks import check_rates, entry, with_backend
from .sources import FeatureInput, TokenInput
from .spelling import SpelledInput

__all__ = ["Encoder", "layers"]


class Encoder(nn.Module):
    """An input, recurrent layers, and dropout before and behind them.

        e_t = source(x_t)
        y_t, s_t = rnn(m_in ⊙ e_t, s_{t-1})
        o_t = m_out ⊙ y_t

    In training m is Bernoulli(1 - rate) / (1 - rate): locked, one mask for all steps of a sequence (Gal & Ghahramani
    2016; Merity, Keskar & Socher 2018), or drawn anew at each (Zaremba, Sutskever & Vinyals 2014). In evaluation it
    is 1.

    Args:
        source: what reads x: a `TokenInput`, a `SpelledInput` or a `FeatureInput`.
        rnn: the layers, as wide as the source, time first and with one output; see `Encoder.of`.
        input_dropout: the rate of m_in (dropouti of AWD-LSTM), 0 <= input_dropout < 1.
        dropout: the rate of m_out.
        locked: one mask for all steps.

    Attributes:
        output_size: O, the width of the output.

    Call:
        ``output, state = encoder(x, lengths=None, state=None, last=False)``

        x: tokens [T, B], spelled words [T, B, 1 + S] or features [T, B, D], as the source takes them.
        lengths: steps of each sequence, [B]; what stands past an end has no effect.
        state: of the layers, what the previous piece of the same B sequences returned; None starts them.
        last: give the last output of each sequence alone, [B, O] (in the reverse direction that at its start): the
            stack of the last layer's outputs is never built.
        Returns output [T, B, O], 0 past a sequence's end, and the state behind the last step.

    Raises:
        ShapeError: sizes that do not fit together, rates that are none, layers with an option that is not to be had.

    >>> import torch
    >>> from ostinato.models import FeatureInput
    >>> encoder = Encoder(FeatureInput(3), RNN("gru", 3, 8, bidirectional=True), dropout=0.5)
    >>> output, state = encoder(torch.zeros(5, 2, 3), lengths=[5, 4])
    >>> output.shape, encoder.output_size
    (torch.Size([5, 2, 16]), 16)
    """

    def __init__(
        self,
        source: nn.Module,
        rnn: RNN,
        *,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        locked: bool = True,
    ) -> None:
        super().__init__()
        check_rates(input_dropout=input_dropout, dropout=dropout)
        _check_layers(source, rnn)
        self.source = source
        self.rnn = rnn
        self.input_dropout = float(input_dropout)
        self.dropout = float(dropout)
        self.locked = bool(locked)

    @classmethod
    def of(
        cls,
        source: nn.Module,
        cell: Cell | str | Sequence[Cell | str] = "lstm",
        hidden_size: int | Sequence[int] = 256,
        *,
        num_layers: int | None = None,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        locked: bool = True,
        **options: Any,
    ) -> Encoder:
        """An encoder by its cell and its numbers.

        Args:
            source, input_dropout, dropout, locked: as the class takes them.
            cell: a catalogue name, "zoneout(lstm, 0.1)", or a `Cell`; a list gives each layer its own.
            hidden_size: H; a list gives each layer its own.
            num_layers: how many layers stand on each other.
            hidden_dropout: the rate between the layers (dropouth); has no place where there is one.
            weight_drop: the rate at which elements of the recurrent matrices are dropped, by `transforms.weight_drop`.
            options: further ones of `RNN`: bidirectional, merge, connections, lookahead, init, sizes, backend, ...

        Raises:
            ShapeError: as the class, and as `RNN`.
            CellError: an unknown cell, or weight drop of one without recurrent matrices.

        >>> from ostinato.models import TokenInput
        >>> Encoder.of(TokenInput(65, 16), "gru", 32, num_layers=2, weight_drop=0.5).rnn.cell.name
        'weight_drop(gru, 0.5)'
        """
        rnn = layers(
            source.size,  # pyright: ignore[reportArgumentType]
            cell,
            hidden_size,
            num_layers,
            hidden_dropout=hidden_dropout,
            weight_drop=weight_drop,
            locked=locked,
            **options,
        )
        return cls(source, rnn, input_dropout=input_dropout, dropout=dropout, locked=locked)

    @property
    def output_size(self) -> int:
        """O, the width of the output."""
        return self.rnn.output_size

    def forward(
        self, x: Tensor, lengths: Lengths | None = None, state: State | None = None, last: bool = False
    ) -> tuple[Tensor, State]:
        """See the class."""
        output, after = self.read(x, lengths, state, last)
        return self.drop_output(output), after

    def read(
        self, x: Tensor, lengths: Lengths | None = None, state: State | None = None, last: bool = False
    ) -> tuple[Tensor, State]:
        """As the call, with the output as the layers give it, before its dropout."""
        embedded = self._drop(self.source(x, lengths), self.input_dropout)  # [T, B, D]
        return self.rnn(embedded, state, lengths, return_sequences=False if last else None)  # [T, B, O] or [B, O]

    def drop_output(self, output: Tensor) -> Tensor:
        """What dropout leaves of an output [T, B, O] or of a last one [B, O]; all of it in evaluation."""
        if output.dim() == 2:
            return self._drop(output.unsqueeze(0), self.dropout).squeeze(0)
        return self._drop(output, self.dropout)

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        # masks of x itself stay outside of the step: its products with W go over all steps at once
        return drop(x, rate, self.locked) if rate and self.training else x

    def spec(self) -> dict[str, Any]:
        """All that rebuilds it but the weights, as plain JSON values; cells go as Programs."""
        return {
            "kind": "encoder",
            "source": self.source.spec(),  # pyright: ignore[reportCallIssue]
            "rnn": self.rnn.spec(),
            "input_dropout": self.input_dropout,
            "dropout": self.dropout,
            "locked": self.locked,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], backend: str | None = None) -> Encoder:
        """An encoder from its `spec`, with fresh weights; no code of the cell's author is run.

        Args:
            spec: as `spec()` gave it.
            backend: which backend shall run it here; None keeps the one it was built with.

        Raises:
            ProgramError: the spec is damaged or of another version.
        """
        entry(spec, "kind", ("encoder",))
        source = _source_from_spec(entry(spec, "source"))
        rnn = RNN.from_spec(with_backend(entry(spec, "rnn"), backend))
        return cls(source, rnn, **{name: entry(spec, name) for name in ("input_dropout", "dropout", "locked")})


def layers(
    input_size: int,
    cell: Cell | str | Sequence[Cell | str],
    hidden_size: int | Sequence[int],
    num_layers: int | None = None,
    *,
    hidden_dropout: float = 0.0,
    weight_drop: float = 0.0,
    locked: bool = True,
    **options: Any,
) -> RNN:
    """Recurrent layers with dropout between them and on their recurrent matrices; see `Encoder.of`."""
    check_rates(hidden_dropout=hidden_dropout, weight_drop=weight_drop)
    count = layer_count(num_layers, cell=cell, hidden_size=hidden_size, lookahead=options.get("lookahead", 0))
    if weight_drop:
        cells = [with_weight_drop(cell_of(one), weight_drop) for one in each_layer(cell, count)]
        cell = cells if is_list(cell) else cells[0]
    between = {"dropout": hidden_dropout, "locked": locked} if count > 1 else {}
    return RNN(cell, input_size, hidden_size, num_layers, **between, **options)


def _source_from_spec(spec: Any) -> nn.Module:
    kinds = {
        "tokens": (TokenInput, ("vocab_size", "size", "padding_idx", "dropout")),
        "spelled": (SpelledInput, ("vocab_size", "size", "pieces", "shortest", "longest", "dropout")),
        "features": (FeatureInput, ("input_size", "projection_size", "normalize")),
    }
    made, names = kinds[entry(spec, "kind", tuple(kinds))]
    return made(*(entry(spec, name) for name in names))


def _check_layers(source: nn.Module, rnn: RNN) -> None:
    width: Any = source.size
    if rnn.input_size != width:
        raise ShapeError(f"the layers read vectors of {rnn.input_size}, the input gives {width}; make them equal.")
    for name, fits in (
        ("batch_first", not rnn.batch_first),
        ("return_states", not rnn.return_states),
        ("return_sequences", rnn.return_sequences),
        ("merge", rnn.merge is not None),
    ):
        if not fits:
            raise ShapeError(
                f"the layers of an encoder put out one tensor [T, B, O], got {name}={getattr(rnn, name)!r}; leave "
                f"{name} as it is by default."
            )
