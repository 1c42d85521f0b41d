"""From options to an encoder."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...models import Encoder
from ..cell_option import find_cell, parse_init, parse_sizes
from .options import Layers

__all__ = ["make_encoder"]


def make_encoder(options: Layers, source: nn.Module, cell: Any, backend: str, **more: Any) -> Encoder:
    """The layers that the options describe, over a source.

    Args:
        options: the group.
        source: what reads the input: a `TokenInput` or a `FeatureInput`.
        cell: a `Cell` of one's own; None means the one that the options name.
        backend: which backend runs them.
        more: further options of `RNN`.

    Raises:
        CellError, ShapeError: layers that cannot be made.
    """
    found = find_cell(options.cell) if cell is None else cell
    return Encoder.of(
        source,
        found,
        options.hidden_size,
        num_layers=options.num_layers,
        bidirectional=options.bidirectional,
        connections=options.connections,
        input_dropout=options.input_dropout,
        hidden_dropout=options.hidden_dropout,
        dropout=options.dropout,
        weight_drop=options.weight_drop,
        sizes=parse_sizes(options.size, found),
        init=parse_init(options.init),
        backend=backend,
        **more,
    )
