"""Records: signals, and the moments at which something happens in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...data import Recording, Sequences
from ...errors import DataError
from .found import Found

__all__ = ["from_recordings", "read_records"]

_SIGNALS, _EVENTS = ("signal_", "ecg_"), ("events_", "R_")


def from_recordings(recordings: Sequence[Recording], name: str) -> Found:
    """Hearts and their beats."""
    return Found(
        "events",
        name,
        Sequences.of([one.signal[:, None] for one in recordings]),
        labels=["beat"],
        names=[one.name for one in recordings],
        events=[one.beats for one in recordings],
        rate=recordings[0].rate,
    )


def read_records(name: str, arrays: Mapping[str, np.ndarray], rate: float | None = None) -> Found:
    """The records of an .npz, in the order of their names.

    For each record NAME it holds `signal_NAME` (or `ecg_NAME`) [T] or [T, C] and, where they are known, `events_NAME`
    (or `R_NAME`) [K], the samples at which events stand; for all `fs`, samples a second.

    Args:
        name: what the errors call it.
        arrays: of the file.
        rate: samples a second, where there is no `fs`.

    Raises:
        DataError: no rate; signals of different channels; events that are not whole, not rising, or outside.
    """
    if "fs" not in arrays and rate is None:
        raise DataError(f"{name} has no fs, samples a second; add it, or pass --rate.")
    if "fs" in arrays:
        fs = arrays["fs"]
        if fs.size != 1 or not float(fs.reshape(())) > 0:
            raise DataError(f"{name}: fs is {fs.tolist()}; pass one number above 0.")
        rate = float(fs.reshape(()))
    signals = _by_record(arrays, _SIGNALS)
    marked = _by_record(arrays, _EVENTS)
    stray = sorted(marked.keys() - signals.keys())
    if stray:
        raise DataError(f"{name} has events of {stray[0]} and no signal of it; it has {', '.join(sorted(signals))}.")
    names = sorted(signals)
    without = [record for record in names if record not in marked]
    if marked and without:
        raise DataError(f"{name} has no events of {without[0]}, but of others; give an empty list if none happened.")
    found = [_signal(f"{name}: {signals[record][0]}", signals[record][1]) for record in names]
    for record, signal in zip(names, found, strict=True):
        if signal.shape[1] != found[0].shape[1]:
            raise DataError(
                f"{name}: {record} has {signal.shape[1]} channels, {names[0]} has {found[0].shape[1]}; they must agree."
            )
    events = [
        _samples(f"{name}: {marked[record][0]}", marked[record][1], len(signal))
        for record, signal in zip(names, found, strict=True)
        if marked
    ]
    label = "beat" if "ecg_" + names[0] in arrays else "event"
    return Found(
        "events", name, Sequences.of(found), labels=[label], names=names, events=events if marked else None, rate=rate
    )


def _by_record(arrays: Mapping[str, np.ndarray], prefixes: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
    found: dict[str, tuple[str, np.ndarray]] = {}
    for prefix in prefixes:
        for key, array in arrays.items():
            if key.startswith(prefix):
                found.setdefault(key.removeprefix(prefix), (key, array))
    return found


def _signal(where: str, array: np.ndarray) -> Tensor:
    if array.ndim not in (1, 2) or not len(array) or array.dtype.kind not in "iuf":
        raise DataError(f"{where} is of shape {list(array.shape)} and {array.dtype}; pass numbers [T] or [T, C].")
    signal = array.astype(np.float32).reshape(len(array), -1)
    if not np.isfinite(signal).all():
        at = int(np.flatnonzero(~np.isfinite(signal).all(1))[0])
        raise DataError(f"{where}[{at}] is not finite; cut the record there, or fill it in.")
    return torch.from_numpy(signal)


def _samples(where: str, array: np.ndarray, length: int) -> Tensor:
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.floor(array)).all()))
    if array.ndim != 1 or (len(array) and not whole):
        raise DataError(f"{where} is of shape {list(array.shape)} and {array.dtype}; pass sample numbers [K].")
    samples = array.astype(np.int64)
    wrong = np.flatnonzero(np.diff(samples) <= 0)
    if len(wrong):
        k = int(wrong[0]) + 1
        raise DataError(
            f"{where}[{k}] = {samples[k]} comes after {samples[k - 1]}; events must rise. Sort them, each once."
        )
    outside = np.flatnonzero((samples < 0) | (samples >= length))
    if len(outside):
        k = int(outside[0])
        raise DataError(
            f"{where}[{k}] = {samples[k]} lies outside of the signal, which has samples 0 to {length - 1}; are the "
            "events counted at another rate?"
        )
    return torch.from_numpy(samples)
