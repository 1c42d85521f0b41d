"""Transforms: a cell becomes another cell, on the same kernels.

    from ostinato import RNN, cells, transforms

    cell = transforms.zoneout(transforms.layer_norm(cells.lstm), 0.1)
    layer = RNN(cell, input_size=64, hidden_size=256)

They compose: each takes any cell, also one that a transform made. The random numbers that a transform asks for are
drawn by the layer in training, from the generator it is given, and stand at their expectations in evaluation.
"""

from __future__ import annotations

from .depth import deep_transition, residual, skip_in_time
from .dropout import recurrent_dropout, variational_dropout, weight_drop
from .integration import multiplicative_integration
from .norm import batch_norm, layer_norm
from .zoneout import zoneout

__all__ = [
    "batch_norm",
    "deep_transition",
    "layer_norm",
    "multiplicative_integration",
    "recurrent_dropout",
    "residual",
    "skip_in_time",
    "variational_dropout",
    "weight_drop",
    "zoneout",
]
