"""Layers."""

from __future__ import annotations

from .rnn import RNN
from .vendor import GRU, LSTM, Elman

__all__ = ["GRU", "LSTM", "RNN", "Elman"]
