"""Numeric sequences with labels: from .npz, a long table with a column that says whose step a row is, or .ts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import numpy as np
import torch

from ..errors import DataError
from .decoding import Source, name_of
from .npz import load_npz
from .sequences import Sequences
from .tables import read_table
from .ts import read_ts

__all__ = ["Missing", "Series", "read_series"]

Missing = Literal["refuse", "interpolate", "keep"]
"""What is done about missing values: an error, a straight line between the neighbours, or NaN."""

_Place = Callable[[int, int], str]  # sequence and step to where it stands, as errors say it


@dataclass(frozen=True)
class Series:
    """N numeric sequences.

    Args:
        values: `[S, D]` float32, one behind another.
        labels: one each, N of them; None where there are none.
        names: what the file calls each sequence, N of them; None where it does not.
        tags: one for each step, S of them; None where there are none.
        channels: the D channels' names; None where the file does not say.
    """

    values: Sequences
    labels: list[str] | None = None
    names: list[str] | None = None
    tags: list[str] | None = None
    channels: list[str] | None = None

    def __len__(self) -> int:
        return len(self.values)


def read_series(
    source: Source,
    *,
    missing: Missing = "refuse",
    id: str = "id",
    label: str | None = None,
    time: str | None = None,
    tag: str | None = None,
    values: Sequence[str] | None = None,
    format: str | None = None,
) -> Series:
    """Numeric sequences, by the file's ending.

    `.npz`: `values` `[S, D]` or `[S]` with `lengths` `[N]`, one sequence behind another; or `values` `[N, T, D]` or
    `[N, T]`, all equally long, of which `lengths` `[N]`, if `[N, T, D]` comes with them, says how much is meant. With
    either `labels` `[N]` and `tags` `[S]`.

    `.csv`, `.tsv`, `.jsonl`, `.parquet`, or a stream: a row is a step. Rows of one `id` are one sequence, in the order
    of the file; sequences come in the order of their first rows.

    `.ts`: as sktime and aeon write it (see `read_ts`).

    Args:
        source: a path, or an open stream with a table.
        missing: what is done about missing values.
        id: a table's column that says whose step a row is.
        label: a table's column of labels, the same in all rows of a sequence; None: there is none.
        time: a table's column that must rise within a sequence, numbers or ISO times; None: none is looked at.
        tag: a table's column with a tag for each step; None: there is none.
        values: a table's columns of numbers; None: all that are not named above.
        format: of a table, if the name does not say.

    Raises:
        DataError: what cannot be read, with file and line; values missing or not finite; labels that differ within a
            sequence; times that do not rise.
    """
    ending = PurePath(name_of(source)).suffix.lower() if isinstance(source, (str, os.PathLike)) else ""
    if format is None and ending == ".npz" and isinstance(source, (str, os.PathLike)):
        return _from_npz(source, missing)
    if format is None and ending == ".ts":
        found = read_ts(source)
        stacked = np.concatenate(found.cases)
        lines = found.lines
        filled = _filled(stacked, found.lengths, missing, lambda n, t: f"{found.name}, line {lines[n]}: step {t + 1}")
        return Series(_sequences(filled, found.lengths), found.labels)
    return _from_table(source, missing, id, label, time, tag, values, format)


def _from_npz(path: str | os.PathLike[str], missing: Missing) -> Series:
    arrays = load_npz(path, ["values"])
    values, lengths = arrays["values"], arrays.get("lengths")
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2, 3):
        raise DataError(f"{path}: values are {values.dtype} {list(values.shape)}; pass numbers, [S, D] or [N, T, D].")
    if lengths is not None and (lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any()):
        raise DataError(f"{path}: lengths are {lengths.dtype} {list(lengths.shape)}; pass [N] integers of 0 or more.")
    if lengths is None:
        if values.ndim == 1:
            raise DataError(f"{path}: values are [S] and there are no lengths; pass lengths [N] as well, or [N, T].")
        dense = values if values.ndim == 3 else values[:, :, None]
        lengths = np.full(len(dense), dense.shape[1], np.int64)
        flat = dense.reshape(-1, dense.shape[2])
    elif values.ndim == 3:
        if len(lengths) != len(values) or (lengths > values.shape[1]).any():
            raise DataError(
                f"{path}: values are {list(values.shape)}, but there are {len(lengths)} lengths up to "
                f"{int(lengths.max(initial=0))}; pass one for each sequence, at most T."
            )
        flat = values[np.arange(values.shape[1])[None, :] < lengths[:, None]]
    else:
        flat = values if values.ndim == 2 else values[:, None]
        if int(lengths.sum()) != len(flat):
            raise DataError(
                f"{path}: the lengths sum to {int(lengths.sum())}, but there are {len(flat)} steps; they must be equal."
            )
    lengths = lengths.astype(np.int64)
    filled = _filled(_single(flat), lengths, missing, lambda n, t: f"{path}: sequence {n + 1}, step {t + 1}")
    labels = _words(path, arrays, "labels", len(lengths))
    return Series(_sequences(filled, lengths), labels, tags=_words(path, arrays, "tags", len(flat)))


def _words(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], key: str, count: int) -> list[str] | None:
    """An array of labels as texts."""
    array = arrays.get(key)
    if array is None:
        return None
    if array.shape != (count,):
        raise DataError(f"{path}: {key} are {list(array.shape)}; pass [{count}], one for each.")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]


def _from_table(
    source: Source,
    missing: Missing,
    id: str,
    label: str | None,
    time: str | None,
    tag: str | None,
    values: Sequence[str] | None,
    format: str | None,
) -> Series:
    table = read_table(source, format=format)
    table.need(id)
    others = {id, label, time, tag}
    channels = [column for column in table.columns if column not in others] if values is None else list(values)
    if not channels:
        raise DataError(f"{table.name} has no columns of values beside {', '.join(filter(None, others))}.")
    keys = table.texts(id, empty=False)
    numbers = np.stack([table.numbers(column, missing=missing != "refuse") for column in channels], axis=1)
    names = list(dict.fromkeys(keys))
    number = {name: n for n, name in enumerate(names)}
    owner = np.array([number[key] for key in keys])
    order = np.argsort(owner, kind="stable")  # each sequence's rows together, in the order of the file
    lengths = np.bincount(owner, minlength=len(names))
    starts = np.cumsum(lengths) - lengths
    if time is not None:
        clock = table.numbers(time) if _numeric(table.texts(time)) else table.times(time)
        _see_that_it_rises(clock, owner, order, lambda row: f"{table.at(row)}: {time!r} of {keys[row]!r}")
    labels: list[str] | None = None
    if label is not None:
        each = table.texts(label, empty=False)
        labels = [each[order[start]] for start in starts]
        for row, found in enumerate(each):
            if found != labels[owner[row]]:
                raise DataError(
                    f"{table.at(row)}: the label of {keys[row]!r} is {found!r}, but {labels[owner[row]]!r} before; a "
                    "sequence has one label. Tags that change from step to step are given as tag."
                )
    tags = None if tag is None else [table.texts(tag, empty=False)[row] for row in order]
    filled = _filled(_single(numbers[order]), lengths, missing, lambda n, t: table.at(int(order[starts[n] + t])))
    return Series(_sequences(filled, lengths), labels, names, tags, channels)


def _numeric(texts: list[str]) -> bool:
    try:
        float(texts[0])
    except ValueError:
        return False
    return True


def _see_that_it_rises(times: np.ndarray, owner: np.ndarray, order: np.ndarray, place: Callable[[int], str]) -> None:
    before, after = order[:-1], order[1:]
    wrong = (owner[before] == owner[after]) & ~(times[before] < times[after])
    for k in np.flatnonzero(wrong).tolist():
        row = int(after[k])
        word = "comes twice" if times[before[k]] == times[row] else "goes back"
        raise DataError(
            f"{place(row)} {word} ({times[row]} after {times[before[k]]}); sort the rows and keep one each."
        )


def _filled(values: np.ndarray, lengths: np.ndarray, missing: Missing, place: _Place) -> np.ndarray:
    """The values with nothing missing, unless that is kept.

    Args:
        values: `[S, D]`, missing ones NaN.
        lengths: `[N]`.
        missing: what is done about them.
        place: sequence and step to where it stands.
    """
    if missing not in ("refuse", "interpolate", "keep"):
        raise DataError(f"missing is {missing!r}; pass refuse, interpolate or keep.")
    starts = np.cumsum(lengths) - lengths
    bad = ~np.isfinite(values)
    for step in np.flatnonzero((np.isinf(values) | (bad if missing == "refuse" else False)).any(axis=1)).tolist():
        n = int(np.searchsorted(starts + lengths, step, side="right"))
        channel = int(np.flatnonzero(bad[step])[0])
        value = values[step, channel]
        what, remedy = f"is {value}", "a value is a finite number"
        if np.isnan(value):
            what, remedy = "is missing", "ask for interpolation (--missing interpolate), or fill it in"
        raise DataError(f"{place(n, step - int(starts[n]))}: value {channel + 1} {what}; {remedy}.")
    if missing == "interpolate" and bad.any():
        values = values.copy()
        for n, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            piece, gone = values[start : start + length], bad[start : start + length]
            for channel in np.flatnonzero(gone.any(axis=0)).tolist():
                known = np.flatnonzero(~gone[:, channel])
                if not len(known):
                    raise DataError(
                        f"{place(n, 0)}: value {channel + 1} is missing in the whole sequence; leave it out."
                    )
                piece[:, channel] = np.interp(np.arange(length), known, piece[known, channel])
    return values


def _single(values: np.ndarray) -> np.ndarray:
    """As float32; what is too large becomes infinite, and is refused as that."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _sequences(values: np.ndarray, lengths: np.ndarray) -> Sequences:
    return Sequences(torch.from_numpy(values), torch.from_numpy(lengths.astype(np.int64)))
