"""The parts of each series, by time: what is later is held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from .config import ForecastParts
from .table import Rows

__all__ = ["Cuts", "cut"]


class Cuts(NamedTuple):
    """Where the parts of a series end, in rows from its beginning: train <= validation <= test."""

    train: int
    validation: int
    test: int

    def part(self, name: str) -> tuple[int, int]:
        """The first row of a part, and the first behind it."""
        return {
            "train": (0, self.train),
            "validation": (self.train, self.validation),
            "test": (self.validation, self.test),
        }[name]


def cut(every: Sequence[Rows], config: ForecastParts, context: int, horizon: int) -> list[Cuts]:
    """The parts of each series.

    Raises:
        DataError: a series that is too short for its parts, or a part that is too short for one forecast.
    """
    found = [_cut(rows, config) for rows in every]
    for rows, cuts in zip(every, found, strict=True):
        for name, least in (("train", context + horizon), ("validation", horizon), ("test", horizon)):
            first, end = cuts.part(name)
            if end - first < least and not (name == "test" and first == end):
                need = f"context {context} and horizon {horizon}" if name == "train" else f"a horizon of {horizon}"
                short = sum(c.part(name)[1] - c.part(name)[0] < least for c in found)
                others = f" ({short} of {len(found)} series are too short)" if len(found) > 1 else ""
                raise DataError(
                    f"{rows.title} has {len(rows)} rows and {end - first} of them in the {name} part, fewer than "
                    f"{need} need{others}; pass a smaller --context or --horizon, other parts, or longer series."
                )
    return found


def _cut(rows: Rows, config: ForecastParts) -> Cuts:
    count = len(rows)
    if config.train_rows is not None and config.validation_rows is not None:
        held = config.train_rows + config.validation_rows
        end = count if config.test_rows is None else held + config.test_rows
        if max(held, end) > count:
            raise DataError(
                f"{rows.title} has {count} rows, but the parts were to have {max(held, end)}; pass smaller "
                "--train-rows, --validation-rows and --test-rows."
            )
        return Cuts(config.train_rows, held, end)
    if config.validation_from is not None:
        stamps = rows.stamps[:count]
        train = _place(stamps, config.validation_from, "validation-from")
        end = count if config.test_until is None else _place(stamps, config.test_until, "test-until")
        validation = end if config.test_from is None else _place(stamps, config.test_from, "test-from")
        if not train < validation <= end:
            raise DataError(
                f"{rows.title} is cut at {config.validation_from}, {config.test_from} and {config.test_until}, which "
                "do not follow each other; pass stamps that rise."
            )
        return Cuts(train, validation, end)
    return Cuts(round(count * (1.0 - config.validation - config.test)), round(count * (1.0 - config.test)), count)


def _place(stamps: np.ndarray, text: str, option: str) -> int:
    """The first row that is not before a stamp."""
    try:
        stamp = np.datetime64(text.strip().replace(" ", "T"), "ns") if stamps.dtype.kind == "M" else int(text)
    except ValueError:
        kind = "a time as ISO 8601 writes it" if stamps.dtype.kind == "M" else "a whole number, as the steps are"
        raise DataError(f"--{option} is {text!r}; pass {kind}.") from None
    return int(np.searchsorted(stamps, stamp))
