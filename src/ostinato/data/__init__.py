"""Readers, data sets by name, and batching."""

from __future__ import annotations

from .beats import Recording, read_beats
from .buckets import Buckets
from .decode import Source, decode, name_of, read_bytes
from .idx import image_sequences, read_idx, step_order
from .named import Digits, Given, load
from .rolls import Rolls, read_rolls
from .sequences import Sequences
from .series import Series, read_series
from .split import FewExamples, folds, split_by_class, split_rows, split_tails
from .streams import Streams, split_tail, warm_windows
from .tables import Table, read_table
from .text import python_library_text, read_text
from .texts import Texts, read_lines, read_texts, read_zipped_texts
from .vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "UNKNOWN",
    "Buckets",
    "Digits",
    "FewExamples",
    "Given",
    "Recording",
    "Rolls",
    "Sequences",
    "Series",
    "Source",
    "Streams",
    "Table",
    "Texts",
    "Vocabulary",
    "decode",
    "folds",
    "image_sequences",
    "load",
    "name_of",
    "python_library_text",
    "read_beats",
    "read_bytes",
    "read_idx",
    "read_lines",
    "read_rolls",
    "read_series",
    "read_table",
    "read_text",
    "read_texts",
    "read_zipped_texts",
    "split_by_class",
    "split_rows",
    "split_tail",
    "split_tails",
    "step_order",
    "warm_windows",
]
