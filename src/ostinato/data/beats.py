"""Electrocardiograms with every beat marked."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .npz import load_npz

__all__ = ["Recording", "read_beats"]


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording of a heart.

    Args:
        name: of the record, such as "100".
        signal: `[T]` float32, in millivolts.
        beats: the samples at which beats (R waves) stand, `[K]` int64, rising.
        ventricular: those of them that are premature ventricular contractions, `[P]` int64.
        rate: samples a second.
    """

    name: str
    signal: Tensor
    beats: Tensor
    ventricular: Tensor
    rate: float


def read_beats(path: str | os.PathLike[str]) -> list[Recording]:
    """The recordings of an .npz, in the order of their names.

    For each record NAME it holds `ecg_NAME` `[T]`, `R_NAME` `[K]` and, where they are known, `PVC_NAME` `[P]`; for all
    `fs`, samples a second, and, where the signals are not in millivolts, `units_per_mV`.

    Raises:
        DataError: a part that is missing, or beats that are not rising or lie outside the signal.
    """
    arrays = load_npz(path, ["fs"])
    names = sorted(key.removeprefix("ecg_") for key in arrays if key.startswith("ecg_"))
    if not names:
        raise DataError(f"{path} holds no ecg_NAME; it has {', '.join(arrays)}.")
    rate = _number(path, arrays, "fs")
    units = _number(path, arrays, "units_per_mV") if "units_per_mV" in arrays else 1.0
    found: list[Recording] = []
    for name in names:
        signal = arrays[f"ecg_{name}"]
        if signal.ndim != 1 or not len(signal):
            raise DataError(f"{path}: ecg_{name} is of shape {list(signal.shape)}; pass [T] with T of 1 or more.")
        if f"R_{name}" not in arrays:
            raise DataError(f"{path} has ecg_{name} and no R_{name}, the samples of its beats.")
        millivolts = (signal / units).astype(np.float32)
        if not np.isfinite(millivolts).all():
            at = int(np.flatnonzero(~np.isfinite(millivolts))[0])
            raise DataError(f"{path}: ecg_{name}[{at}] is {millivolts[at]}; cut the recording there, or fill it in.")
        beats = _samples(path, arrays, f"R_{name}", len(signal))
        ventricular = _samples(path, arrays, f"PVC_{name}", len(signal))
        found.append(Recording(name, torch.from_numpy(millivolts), beats, ventricular, rate))
    return found


def _number(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], key: str) -> float:
    array = arrays[key]
    if array.size != 1 or not float(array.reshape(())) > 0:
        raise DataError(f"{path}: {key} is {array.tolist()}; pass one number above 0.")
    return float(array.reshape(()))


def _samples(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], key: str, length: int) -> Tensor:
    samples = arrays.get(key, np.zeros(0, np.int64)).astype(np.int64)
    wrong = samples.ndim != 1 or (np.diff(samples) <= 0).any()
    if wrong or (len(samples) and not (samples[0] >= 0 and samples[-1] < length)):
        raise DataError(f"{path}: {key} must be rising sample numbers from 0 to {length - 1}.")
    return torch.from_numpy(samples)
