"""Layers."""

from __future__ import annotations

from .rnn import RNN
from .state import detach_state
from .truncation import truncate
from .vendor import GRU, LSTM, Elman

__all__ = ["GRU", "LSTM", "RNN", "Elman", "detach_state", "truncate"]
