"""Readers and batching."""

from __future__ import annotations

from .buckets import Buckets
from .sequences import Sequences
from .streams import Streams, split_tail, warm_windows
from .text import python_library_text, read_text
from .vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "UNKNOWN",
    "Buckets",
    "Sequences",
    "Streams",
    "Vocabulary",
    "python_library_text",
    "read_text",
    "split_tail",
    "warm_windows",
]
