"""Answers at every step from arrays: piano rolls, features with tags, features with several labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ...data import Rolls, Sequences
from ...errors import DataError
from .found import Found

__all__ = ["from_rolls", "key_names", "read_arrays"]

_PIANO = 88  # keys, of which the lowest is A0


def key_names(count: int) -> list[str]:
    """The keys of a piano from the lowest, A0 to C8; numbers where it is not a piano that has so many.

    >>> key_names(88)[39], key_names(2)
    ('C4', ['1', '2'])
    """
    if count != _PIANO:
        return [str(n + 1) for n in range(count)]
    notes = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return [f"{notes[midi % 12]}{midi // 12 - 1}" for midi in range(21, 21 + count)]


def from_rolls(rolls: Rolls, name: str) -> Found:
    """Piano rolls in three parts; each frame is to be foretold from those before it."""
    parts = (rolls.train, rolls.valid, rolls.test)
    values = torch.cat([part.values for part in parts])
    lengths = torch.cat([part.lengths for part in parts])
    starts = np.cumsum([0, *map(len, parts)])
    rows = {part: torch.arange(starts[n], starts[n + 1]) for n, part in enumerate(("train", "validation", "test"))}
    frames = Sequences(values, lengths)
    return Found("multi", name, frames, answers=frames, labels=key_names(values.shape[1]), next_frame=True, parts=rows)


def read_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> Found:
    """Sequences one behind another.

    An .npz holds `values`, tokens [S] or features [S, D], and `lengths` [N], and beside them `tags` [S], numbers or
    texts, or `targets` [S, K] of 0 and 1 with, if they have names, `labels` [K]. With neither, values [S, K] of 0 and 1
    are frames, each to be foretold from those before it; these may also come in parts, `train_values`,
    `train_lengths`, and so on for valid and test.

    Raises:
        DataError: arrays that are missing or do not fit together.
    """
    if "train_values" in arrays:
        needed = [f"{part}_{what}" for part in ("train", "valid", "test") for what in ("values", "lengths")]
        missing = [key for key in needed if key not in arrays]
        if missing:
            raise DataError(f"{name} has no {', '.join(missing)}; it has {', '.join(arrays)}.")
        three = [_sequences(name, arrays, f"{part}_") for part in ("train", "valid", "test")]
        for part in three:
            _check_frames(name, part.values)
        if len({part.values.shape[1] for part in three}) != 1:
            raise DataError(f"{name}: its parts have frames of different widths; they must have equally many keys.")
        return from_rolls(Rolls(*three), name)
    inputs = _sequences(name, arrays, "")
    words: list[str] = []
    if inputs.values.dim() == 1:
        texts, numbers = np.unique(inputs.values.numpy(), return_inverse=True)
        words = [str(text) for text in texts.tolist()]
        inputs = Sequences(torch.from_numpy(numbers.astype(np.int64).reshape(-1)), inputs.lengths)
    if "tags" in arrays:
        tags = arrays["tags"]
        _check_steps(name, "tags", tags, len(inputs.values), 1)
        if tags.dtype.kind == "f" and np.isnan(tags).any():
            step = int(np.flatnonzero(np.isnan(tags))[0])
            raise DataError(f"{name}: tags[{step}] is missing; give each step a tag.")
        texts, numbers = np.unique(tags, return_inverse=True)
        answers = Sequences(torch.from_numpy(numbers.astype(np.int64).reshape(-1)), inputs.lengths)
        return Found("tags", name, inputs, words, answers, [str(text) for text in texts.tolist()])
    if "targets" in arrays:
        targets = arrays["targets"]
        _check_steps(name, "targets", targets, len(inputs.values), 2)
        values = torch.from_numpy(targets.astype(np.float32))
        _check_bits(name, "targets", values)
        labels = [str(label) for label in arrays.get("labels", np.array(key_names(values.shape[1]))).tolist()]
        if len(labels) != values.shape[1]:
            raise DataError(f"{name}: labels are {len(labels)}, targets [S, {values.shape[1]}]; name each of them.")
        return Found("multi", name, inputs, words, Sequences(values, inputs.lengths), labels)
    if words or not _is_bits(inputs.values):
        return Found("tags", name, inputs, words)  # without answers; the run that reads it says what they would be
    return Found("multi", name, inputs, [], inputs, key_names(inputs.values.shape[1]), next_frame=True)


def _sequences(name: str, arrays: Mapping[str, np.ndarray], prefix: str) -> Sequences:
    for key in ("values", "lengths"):
        if prefix + key not in arrays:
            raise DataError(
                f"{name} has no array {prefix}{key}; it has {', '.join(arrays) or 'none'}. Save values [S] or [S, D], "
                "lengths [N] and tags [S] or targets [S, K]; or signals with signal_NAME, events_NAME and fs."
            )
    values, lengths = arrays[prefix + "values"], arrays[prefix + "lengths"]
    if not len(values) or not len(lengths):
        raise DataError(f"{name} is empty: {prefix}values has {len(values)} steps; pass one or more.")
    if values.ndim not in (1, 2):
        raise DataError(
            f"{name}: {prefix}values is of shape {list(values.shape)}; pass [S] or [S, D], one sequence behind another."
        )
    if (
        lengths.ndim != 1
        or lengths.dtype.kind not in "iuf"
        or (lengths != np.floor(lengths)).any()
        or lengths.min() < 0
    ):
        raise DataError(f"{name}: {prefix}lengths is {lengths.tolist()[:5]}; pass whole numbers [N], each 0 or more.")
    if int(lengths.sum()) != len(values):
        raise DataError(
            f"{name}: {prefix}lengths sum to {int(lengths.sum())}, but there are {len(values)} steps; make them equal."
        )
    if values.ndim == 2 or values.dtype.kind == "f":
        values = values.astype(np.float32).reshape(len(values), -1)
        if not np.isfinite(values).all():
            step = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise DataError(f"{name}: {prefix}values[{step}] is not finite; fill it in or cut it out.")
    elif values.dtype.kind in "US":
        raise DataError(f"{name}: {prefix}values are texts; pass tokens as JSON lines or in columns.")
    return Sequences(torch.from_numpy(values), torch.from_numpy(lengths.astype(np.int64)))


def _check_steps(name: str, key: str, array: np.ndarray, steps: int, dimensions: int) -> None:
    if array.ndim != dimensions:
        raise DataError(f"{name}: {key} is of shape {list(array.shape)}; pass {['', '[S]', '[S, K]'][dimensions]}.")
    if len(array) != steps:
        raise DataError(f"{name} has {steps} steps of values and {len(array)} of {key}; pass one for each step.")


def _is_bits(values: torch.Tensor) -> bool:
    return values.dim() == 2 and bool(((values == 0) | (values == 1)).all())


def _check_bits(name: str, key: str, values: torch.Tensor) -> None:
    if not _is_bits(values):
        raise DataError(f"{name}: {key} hold values other than 0 and 1; a label holds or does not.")


def _check_frames(name: str, values: torch.Tensor) -> None:
    if values.dim() != 2:
        raise DataError(f"{name}: frames are of shape {list(values.shape)}; pass [S, K].")
    _check_bits(name, "the frames", values)
