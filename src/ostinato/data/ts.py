"""The .ts format of sktime and aeon: a header of @keys, then a line for each sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .decoding import Source, decode, name_of, read_bytes

__all__ = ["Cases", "read_ts"]


@dataclass(frozen=True, eq=False)
class Cases:
    """What a .ts file holds.

    Args:
        cases: N sequences, each `[T_n, D]` float32; what is missing is NaN.
        labels: N of them; None where the file has none.
        lines: the line on which each stands.
        name: what the errors call the file.
    """

    cases: list[np.ndarray]
    labels: list[str] | None
    lines: list[int]
    name: str

    @property
    def lengths(self) -> np.ndarray:
        """`[N]` int64."""
        return np.array([len(case) for case in self.cases], np.int64)


def read_ts(source: Source) -> Cases:
    """The sequences of a .ts file (Löning et al. 2019; Middlehurst et al. 2024).

    Lines that begin with # are left out. Of the header are read `@timeStamps`, `@dimensions`, `@classLabel` (or
    `@targetLabel`) and `@data`; capitals do not matter. After `@data` a line is a sequence: its channels are separated
    by colons, their values by commas, ? is a missing value, and the label, if there are any, stands last. Sequences may
    be of unequal lengths, the channels of one may not.

    Raises:
        DataError: time stamps, a header without `@data`, a line that does not fit the header, or no sequences.
    """
    name = name_of(source)
    text = decode(read_bytes(source), name)
    header: dict[str, list[str]] = {}
    cases: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    for line, content in enumerate(text.split("\n"), 1):
        content = content.strip()
        if not content or content.startswith("#"):
            continue
        place = f"{name}, line {line}"
        if "data" not in header:
            if not content.startswith("@"):
                raise DataError(f"{place}: {content[:40]!r} stands before @data; a .ts file has a header of @keys.")
            key, *words = content[1:].split() or [""]
            header[key.lower()] = words
            if key.lower() == "data":
                _check(header, name)
            continue
        *channels, last = content.split(":")
        if _labelled(header):
            labels.append(_label(header, last.strip(), place))
        else:
            channels.append(last)
        cases.append(_case(channels, header, place))
        lines.append(line)
        if cases[-1].shape[1] != cases[0].shape[1]:
            raise DataError(f"{place}: {cases[-1].shape[1]} channels, but {cases[0].shape[1]} before.")
    if "data" not in header:
        raise DataError(f"{name} has no @data; pass a file in the .ts format of sktime and aeon.")
    if not cases:
        raise DataError(f"{name} has a header and no sequences; pass a file with one or more.")
    return Cases(cases, labels if _labelled(header) else None, lines, name)


def _true(header: dict[str, list[str]], key: str) -> bool:
    return [word.lower() for word in header.get(key, [])[:1]] == ["true"]


def _labelled(header: dict[str, list[str]]) -> bool:
    return _true(header, "classlabel") or _true(header, "targetlabel")


def _check(header: dict[str, list[str]], name: str) -> None:
    if _true(header, "timestamps"):
        raise DataError(
            f"{name} has time stamps (@timeStamps true), which are not read; write it without them, or as a table with "
            "a column for the sequence and one for the time."
        )


def _label(header: dict[str, list[str]], label: str, place: str) -> str:
    known = header.get("classlabel", [])[1:]
    if not label or (known and label not in known):
        listed = f"; @classLabel lists {', '.join(known)}" if known else ""
        raise DataError(f"{place}: the label is {label[:40]!r}{listed}. It stands last, behind a colon.")
    return label


def _case(channels: list[str], header: dict[str, list[str]], place: str) -> np.ndarray:
    """One sequence, `[T, D]` float32."""
    said = header.get("dimensions") or header.get("dimension") or []
    if said and said[0].isdigit() and len(channels) != int(said[0]):
        raise DataError(
            f"{place}: {len(channels)} channels, but @dimensions says {said[0]}; write as many, separated by colons."
        )
    if not channels:
        raise DataError(f"{place}: a label and no values; channels stand before it, separated by colons.")
    rows: list[list[float]] = []
    for d, channel in enumerate(channels, 1):
        words = channel.split(",") if channel.strip() else []
        try:
            rows.append([np.nan if word.strip() == "?" else float(word) for word in words])
        except ValueError:
            word = next(word for word in words if not _is_number(word))
            remedy = "time stamps are not read" if "(" in channel else "a missing value is written ?"
            raise DataError(
                f"{place}: channel {d} holds {word.strip()[:40]!r}, which is no number; {remedy}."
            ) from None
        if len(rows[-1]) != len(rows[0]):
            raise DataError(
                f"{place}: channel {d} has {len(rows[-1])} values, but channel 1 has {len(rows[0])}; the channels of a "
                "sequence are equally long."
            )
    return np.array(rows, np.float32).reshape(len(rows), -1).T.copy()


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.strip() == "?"
    return True
