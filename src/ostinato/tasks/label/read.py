"""What a file of sequences with their answers holds, before anything is numbered or scaled by what was learned."""

from __future__ import annotations

import io
import os
from pathlib import PurePath

from ...data import Recording, Rolls, Source, load, name_of, read_bytes, read_rolls
from ...data.npz import load_npz
from ...errors import DataError
from .arrays import from_rolls, read_arrays
from .columns import read_columns, read_lines
from .config import LabelConfig
from .found import Found
from .records import from_recordings, read_records

__all__ = ["read_source", "read_training"]


def read_training(config: LabelConfig) -> Found:
    """What a run learns from.

    Raises:
        DataError: none is given, it cannot be read, is of another kind, or has no answers.
    """
    source = config.label.data
    if source is None:
        raise DataError(
            "the task label has no data of its own; pass a file, or a data set's name such as jsb_chorales or mitbih."
        )
    found = _named(source) if not os.path.exists(source) and _is_name(source) else read_source(source, config)
    asked = config.label.kind
    if asked not in ("auto", found.kind):
        raise DataError(f"{found.name} holds {_KINDS[found.kind]}, but kind is {asked!r}; pass --kind {found.kind}.")
    rate = config.events.rate
    if rate is not None and found.rate != rate:
        got = "has no samples in time" if found.rate is None else f"says {found.rate:g} samples a second"
        raise DataError(f"{found.name} {got}, but rate is {rate:g}; leave --rate out.")
    found.need_answers()
    if found.kind == "tags" and len(found.labels) < 2:
        raise DataError(f"{found.name} has one tag alone, {found.labels[0]!r}; there is nothing to tell apart.")
    return found


_KINDS = {"tags": "a tag at each step", "multi": "several answers at each step", "events": "events in signals"}


def read_source(source: Source, config: LabelConfig) -> Found:
    """What a file or a stream holds; its format is found from its content.

    Raises:
        DataError: it cannot be read, with the place of the fault.
    """
    name = PurePath(name_of(source)).name
    if isinstance(source, str | os.PathLike) and PurePath(source).suffix == ".mat":
        return from_rolls(read_rolls(source), name)
    raw = read_bytes(source)
    if not raw:
        raise DataError(f"{name} is empty (0 bytes); pass a file that holds sequences.")
    if raw.startswith(b"PK\x03\x04") or name.endswith(".npz"):
        arrays = load_npz(source if isinstance(source, str | os.PathLike) else io.BytesIO(raw))
        is_signal = any(key.startswith(("ecg_", "signal_")) for key in arrays)
        return read_records(name, arrays, config.events.rate) if is_signal else read_arrays(name, arrays)
    if raw.startswith(b"MATLAB"):
        raise DataError(f"{name} is a .mat, which is not read from a stream; pass its path, named .mat.")
    if raw.lstrip()[:1] == b"{":
        return read_lines(raw, name, config)
    return read_columns(raw, name, config)


def _is_name(source: str) -> bool:
    return PurePath(source).name == source and not PurePath(source).suffix


def _named(name: str) -> Found:
    held = load(name)
    if isinstance(held, Rolls):
        return from_rolls(held, name)
    if isinstance(held, list) and held and isinstance(held[0], Recording):
        return from_recordings(held, name)
    raise DataError(f"the data set {name} has no answers at each step; those that do are jsb_chorales and mitbih.")
