"""Readers, data sets by name, and batching."""

from __future__ import annotations

from .beats import Recording, read_beats
from .buckets import Buckets
from .decoding import Source, decode, name_of, read_bytes
from .idx import image_sequences, read_idx, step_order
from .named import Digits, Given, load
from .numbered import number
from .pieces import Pieces
from .rolls import Rolls, read_rolls
from .sequences import Sequences
from .series import Series, read_series
from .split import FewExamples, folds, split_by_class, split_rows, split_tails
from .streams import Streams, Windows
from .tables import Table, read_table
from .text import python_library_text, read_text
from .texts import Texts, read_lines, read_texts, read_zipped_texts
from .tokens import (
    UNKNOWN,
    BytePairs,
    Bytes,
    Decoder,
    Tokenizer,
    Vocabulary,
    Words,
    make_tokenizer,
    tokenizer_from_json,
)

__all__ = [
    "UNKNOWN",
    "Buckets",
    "BytePairs",
    "Bytes",
    "Decoder",
    "Digits",
    "FewExamples",
    "Given",
    "Pieces",
    "Recording",
    "Rolls",
    "Sequences",
    "Series",
    "Source",
    "Streams",
    "Table",
    "Texts",
    "Tokenizer",
    "Vocabulary",
    "Windows",
    "Words",
    "decode",
    "folds",
    "image_sequences",
    "load",
    "make_tokenizer",
    "name_of",
    "number",
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
    "split_tails",
    "step_order",
    "tokenizer_from_json",
]
