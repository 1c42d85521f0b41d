"""Polyphonic music as piano rolls, with the split of Boulanger-Lewandowski, Bengio and Vincent (2012)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch

from ..errors import DataError
from .mat import load_mat
from .npz import load_npz
from .sequences import Sequences

__all__ = ["Rolls", "read_rolls"]

_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Rolls:
    """Piano rolls: at each step a 1 for each key that sounds, `[S, K]` float32; K is 88 in these data.

    Args:
        train: to learn from.
        valid: to choose by.
        test: to report on.
    """

    train: Sequences
    valid: Sequences
    test: Sequences


def read_rolls(path: str | os.PathLike[str]) -> Rolls:
    """Piano rolls in three parts.

    From a .mat: `traindata`, `validdata` and `testdata`, each a row of cells that hold `[T, K]`. From a .npz: for each
    of train, valid and test the arrays `train_values` `[S, K]` and `train_lengths` `[N]`, rolls one behind another.

    Raises:
        DataError: no such file, another format, a part that is missing, or values other than 0 and 1.
    """
    parts = _from_npz(path) if PurePath(path).suffix == ".npz" else _from_mat(path)
    widths = {name: part.values.shape[-1] for name, part in zip(_PARTS, parts, strict=True)}
    if len(set(widths.values())) != 1:
        raise DataError(f"{path}: the parts have {widths} keys; they must have equally many.")
    for name, part in zip(_PARTS, parts, strict=True):
        if not bool(((part.values == 0) | (part.values == 1)).all()):
            raise DataError(f"{path}: the part {name} holds values other than 0 and 1; a key sounds or does not.")
    return Rolls(*parts)


def _from_npz(path: str | os.PathLike[str]) -> list[Sequences]:
    arrays = load_npz(path, [f"{name}_{what}" for name in _PARTS for what in ("values", "lengths")])
    return [
        Sequences(
            torch.from_numpy(arrays[f"{name}_values"].astype(np.float32)),
            torch.from_numpy(arrays[f"{name}_lengths"].astype(np.int64)),
        )
        for name in _PARTS
    ]


def _from_mat(path: str | os.PathLike[str]) -> list[Sequences]:
    found = load_mat(path)
    parts: list[Sequences] = []
    for name in _PARTS:
        cells = found.get(f"{name}data")
        if cells is None:
            names = ", ".join(found) or "nothing"
            raise DataError(f"{path} has no {name}data; it has {names}.")
        rolls = list(cells.flat) if cells.dtype == object else []
        if not rolls or any(getattr(roll, "ndim", 0) != 2 for roll in rolls):
            raise DataError(f"{path}: {name}data holds no cells of [T, K]; pass piano rolls, one a cell.")
        parts.append(Sequences.of([torch.from_numpy(roll.astype(np.float32)) for roll in rolls]))
    return parts
