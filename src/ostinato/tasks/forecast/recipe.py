"""What a run learned of how its series are read: columns, frequency, units. It goes into the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError, OptionError
from .config import CALENDAR, ForecastConfig
from .frequency import Frequency
from .parts import Cuts
from .table import Columns, Rows

__all__ = ["Recipe"]

_PROBES = 32  # rows by which a series is known again
_EXACT = 1e-9  # of a deviation: a seasonal naive forecast that errs less is exact but for rounding


@dataclass(frozen=True, eq=False)
class Recipe:
    """How tables become what the model reads. All of it is of the training parts alone, but for `learned`.

    Args:
        columns: of a table.
        frequency: of its rows.
        period: rows of a season.
        calendar: what of the stamps the model reads.
        context, horizon: rows of a window, and ahead of it.
        names: of the N series.
        shared: whether all series have the same units, so that others may be read too.
        shift, scale: `[N, S]`, value = shift + scale z.
        helper_shift, helper_scale: `[P + F]`, of the columns that help, over all series.
        seasonal: `[N, S]`, the mean error of the seasonal naive forecast one step ahead, in z; of the naive one where
            that is exact. The unit of MASE.
        learned: for each series the stamps and first targets of some rows up to the validation part's last, by which
            new data that hold them are known.
    """

    columns: Columns
    frequency: Frequency
    period: int
    calendar: tuple[str, ...]
    context: int
    horizon: int
    names: tuple[str, ...]
    shared: bool
    shift: np.ndarray
    scale: np.ndarray
    helper_shift: np.ndarray
    helper_scale: np.ndarray
    seasonal: np.ndarray
    learned: tuple[tuple[tuple[int, ...], tuple[float | None, ...]], ...]

    @property
    def lookback(self) -> int:
        """Rows that stand before each forecast that is evaluated: for the model and for the seasonal naive one."""
        return max(self.context, self.period)

    @classmethod
    def of(
        cls,
        config: ForecastConfig,
        columns: Columns,
        frequency: Frequency,
        period: int,
        context: int,
        every: Sequence[Rows],
        cuts: Sequence[Cuts],
    ) -> Recipe:
        """What the training parts of some series say.

        Raises:
            DataError: a column that is constant, or no counts where counts are forecast.
            OptionError: a calendar of numbered steps.
        """
        trained = [rows.target[: own.train] for rows, own in zip(every, cuts, strict=True)]
        for rows, target in zip(every, trained, strict=True):
            _see_that_it_varies(rows.title, columns.target, target)
        if config.forecast.head == "negative_binomial":
            _see_that_it_counts(columns, every)
        scaling = config.series.scaling
        if scaling == "auto":
            scaling = "none" if config.forecast.head == "negative_binomial" else "series"
        pieces = [np.concatenate(trained)] * len(trained) if scaling == "shared" else trained
        shift = np.stack([np.nanmean(piece, axis=0) for piece in pieces])
        scale = np.stack([np.nanstd(piece, axis=0) for piece in pieces])
        if scaling == "none":
            shift, scale = np.zeros_like(shift), np.ones_like(scale)
        helpers = np.concatenate(
            [
                np.hstack((rows.past[: own.train], rows.future[: own.train]))
                for rows, own in zip(every, cuts, strict=True)
            ]
        )
        names = (*columns.past, *columns.future)
        _see_that_it_varies("all series together" if len(every) > 1 else every[0].title, names, helpers)
        return cls(
            columns,
            frequency,
            period,
            _calendar(config.series.calendar, frequency),
            context,
            config.windows.horizon,
            tuple(rows.name for rows in every),
            scaling != "series",
            shift,
            scale,
            np.nanmean(helpers, axis=0) if names else np.zeros(0),
            np.nanstd(helpers, axis=0) if names else np.ones(0),
            np.stack([_seasonal(target, period) for target in trained]) / scale,
            tuple(_probes(rows, own.validation) for rows, own in zip(every, cuts, strict=True)),
        )

    def number(self, rows: Rows) -> int:
        """Which of its series this is; -1 for a new one.

        Raises:
            DataError: a new one, and series have units of their own.
        """
        if rows.name in self.names:
            return self.names.index(rows.name)
        if self.shared:
            return -1
        raise DataError(
            f"{rows.at(0)}: {rows.title} is none that the run was trained with ({', '.join(self.names[:5])}"
            f"{', ...' if len(self.names) > 5 else ''}), so its units are not known; leave it out, or train with "
            "--scaling shared."
        )

    def units(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shift, scale and seasonal error of a series, each `[S]`; of a new one those that all share."""
        if number < 0:
            return self.shift[0], self.scale[0], self.seasonal.mean(axis=0)
        return self.shift[number], self.scale[number], self.seasonal[number]

    def unit(self) -> str:
        """Of the values that are measured, in words."""
        plain = not self.shift.any() and bool((self.scale == 1).all())
        return "in the series' own units" if plain else "z-scored by the training part"

    def first_new(self, rows: Rows, number: int) -> int:
        """The first row that the run did not learn from: behind the last that it did, where the rows hold it."""
        if number < 0:
            return 0
        stamps, values = self.learned[number]
        own = {int(stamp): row for row, stamp in enumerate(rows.stamps[: len(rows)].astype(np.int64).tolist())}
        pairs = [
            (rows.target[own[stamp], 0], value) for stamp, value in zip(stamps, values, strict=True) if stamp in own
        ]
        same = [found == value for found, value in pairs if value is not None]
        if not same or not all(same):
            return 0
        return int(np.searchsorted(rows.stamps.astype(np.int64), stamps[-1], side="right"))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        arrays = ("shift", "scale", "helper_shift", "helper_scale", "seasonal")
        return {
            "columns": self.columns.to_json(),
            "frequency": {"kind": self.frequency.kind, "text": self.frequency.text},
            "period": self.period,
            "calendar": list(self.calendar),
            "context": self.context,
            "horizon": self.horizon,
            "names": list(self.names),
            "shared": self.shared,
            **{name: getattr(self, name).tolist() for name in arrays},
            "learned": [[list(stamps), list(values)] for stamps, values in self.learned],
        }

    @classmethod
    def from_json(cls, value: Any) -> Recipe:
        """From what `to_json` gave."""
        count, targets = len(value["names"]), len(value["columns"]["target"])
        units = {name: np.array(value[name], float).reshape(count, targets) for name in ("shift", "scale", "seasonal")}
        return cls(
            Columns.from_json(value["columns"]),
            Frequency(**value["frequency"]),
            period=int(value["period"]),
            calendar=tuple(value["calendar"]),
            context=int(value["context"]),
            horizon=int(value["horizon"]),
            names=tuple(value["names"]),
            shared=bool(value["shared"]),
            helper_shift=np.array(value["helper_shift"], float),
            helper_scale=np.array(value["helper_scale"], float),
            learned=tuple((tuple(stamps), tuple(values)) for stamps, values in value["learned"]),
            **units,
        )


def _calendar(asked: tuple[str, ...], frequency: Frequency) -> tuple[str, ...]:
    if asked == ("none",):
        return ()
    if asked == ("auto",):
        return frequency.calendar()
    if frequency.kind != "time":
        what = "numbers" if frequency.kind == "number" else "counted in rows"
        raise OptionError(f"calendar is {', '.join(asked)}, but the steps are {what}; pass --calendar none.")
    return tuple(word for word in CALENDAR if word in asked)


def _see_that_it_varies(title: str, names: Sequence[str], values: np.ndarray) -> None:
    for column, name in enumerate(names):
        known = values[~np.isnan(values[:, column]), column]
        if not len(known) or known.min() == known.max():
            got = f"is always {known[0]:g}" if len(known) else "has no value"
            raise DataError(
                f"{name!r} of {title} {got} in the training part ({len(values)} rows): from a constant nothing is "
                "learned; leave the column out (--target names those that are forecast), or the series."
            )


def _see_that_it_counts(columns: Columns, every: Sequence[Rows]) -> None:
    for rows in every:
        for row, column in np.argwhere((rows.target < 0) | (rows.target != np.round(rows.target))).tolist():
            value = rows.target[row, column]
            if not np.isnan(value):
                raise DataError(
                    f"{rows.at(row)}: {columns.target[column]!r} is {value:g}, no count, and the head is "
                    "negative_binomial; pass --head gaussian or student_t."
                )


def _seasonal(target: np.ndarray, period: int) -> np.ndarray:
    """The mean size of the difference to a period before; to the row before where that is nothing."""
    spread = np.nanstd(target, axis=0)
    found = np.zeros(target.shape[1])
    for lag in (period, 1):
        difference = np.abs(target[lag:] - target[:-lag])
        known = (~np.isnan(difference)).sum(axis=0)
        mean = np.nansum(difference, axis=0) / np.maximum(known, 1)
        found = np.where(found > _EXACT * spread, found, mean)
    return np.where(found > 0, found, spread)


def _probes(rows: Rows, end: int) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    places = np.unique(np.linspace(0, end - 1, min(_PROBES, end)).round().astype(int))
    values = rows.target[places, 0]
    stamps = rows.stamps[places].astype(np.int64)
    return tuple(stamps.tolist()), tuple(None if np.isnan(v) else float(v) for v in values)
