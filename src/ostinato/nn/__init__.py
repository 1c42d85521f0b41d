"""Layers."""

from __future__ import annotations

from .exchange import from_torch, to_torch
from .initialize import chrono_, chrono_rules
from .keras import from_keras
from .parallel import parallel_apply
from .rnn import RNN
from .scan import scan
from .state import detach_state
from .truncation import truncate
from .vendor import GRU, LSTM, Elman

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Elman",
    "chrono_",
    "chrono_rules",
    "detach_state",
    "from_keras",
    "from_torch",
    "parallel_apply",
    "scan",
    "to_torch",
    "truncate",
]
