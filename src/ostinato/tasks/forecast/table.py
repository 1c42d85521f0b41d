"""From a table to series on a grid of time, with the place of every fault."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...data import Source, Table, read_bytes, read_table
from ...data.catalogue import entries, fetch
from ...errors import DataError
from .config import ForecastData
from .frequency import Frequency, shown

__all__ = ["Columns", "Rows", "digest", "located", "on_grid", "read_rows"]

_TIMES = ("date", "time", "timestamp", "datetime", "ds", "step")


@dataclass(frozen=True)
class Columns:
    """What each column of a table is.

    Args:
        time: of stamps.
        target: S of them, which are forecast.
        past, future: P and F of them, which help: known up to now, and ahead too.
        series: says whose row it is; None: there is one series.
    """

    time: str
    target: tuple[str, ...]
    past: tuple[str, ...]
    future: tuple[str, ...]
    series: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Any) -> Columns:
        """From what `to_json` gave."""
        tuples = {name: tuple(value[name]) for name in ("target", "past", "future")}
        return cls(time=value["time"], series=value["series"], **tuples)

    @classmethod
    def of(cls, table: Table, config: ForecastData) -> Columns:
        """Those of a table, as a config names them.

        Raises:
            DataError: one is not there.
        """
        time = _time_column(table, config)
        others = {time, config.series, *config.past, *config.future}
        target = config.target or tuple(name for name in table.columns if name not in others)
        if not target:
            raise DataError(
                f"{table.name} has no columns to forecast beside {', '.join(map(repr, filter(None, others)))}."
            )
        found = cls(time, target, config.past, config.future, config.series)
        table.need(*target, *config.past, *config.future, *filter(None, [config.series]))
        return found


@dataclass(frozen=True, eq=False)
class Rows:
    """A series as its file has it, in the order of time. Missing values are NaN.

    Args:
        name: what the file calls it; "" where there is one series.
        stamps: `[T + A]`, datetime64[ns] or int64; of T rows and of A more in which only the future is known.
        target: `[T, S]` float64.
        past: `[T, P]`.
        future: `[T + A, F]`.
        at: where a row stands, as errors say it.
    """

    name: str
    stamps: np.ndarray
    target: np.ndarray
    past: np.ndarray
    future: np.ndarray
    at: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def ahead(self) -> int:
        """A."""
        return len(self.stamps) - len(self.target)

    @property
    def title(self) -> str:
        """Its name, as errors say it."""
        return f"series {self.name!r}" if self.name else "the series"


def located(data: str) -> str:
    """The file that an argument stands for: a path, or a data set of the catalogue, fetched if need be.

    Raises:
        DataError: a data set that is more than one table.
    """
    if os.path.exists(data) or data not in {entry.name for entry in entries()}:
        return data
    paths = list(fetch(data).values())
    if len(paths) != 1:
        raise DataError(f"the data set {data!r} is {len(paths)} files and no table of series; pass one table.")
    return str(paths[0])


def digest(path: str) -> str:
    """The sha256 of a file's content."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_rows(source: Source, config: ForecastData, columns: Columns | None = None) -> tuple[Columns, list[Rows]]:
    """The series of a table, each in the order of the file; series come in the order of their first rows.

    Args:
        source: a path, or an open stream.
        config: what the columns are called.
        columns: of the run that reads a new table; None finds them.

    Raises:
        DataError: what cannot be read, with file and line: a column that is not there, a stamp that is none or that
            does not rise, a text among numbers.
    """
    table = read_table(source, encoding=config.encoding)
    chosen = Columns.of(table, config) if columns is None else columns
    table.need(chosen.time, *filter(None, [chosen.series]), *chosen.target, *chosen.past, *chosen.future)
    stamps = _stamps(table, chosen.time, config.time_format)
    keys = [""] * len(table) if chosen.series is None else table.texts(chosen.series, empty=False)
    values = {name: _numbers(table, name, config) for name in (*chosen.target, *chosen.past, *chosen.future)}
    names = list(dict.fromkeys(keys))
    number = {name: n for n, name in enumerate(names)}
    owners = np.array([number[key] for key in keys])
    order = np.argsort(owners, kind="stable")  # each series' rows together, in the order of the file
    each = np.split(order, np.cumsum(np.bincount(owners))[:-1])
    found = [_one(table, chosen, name, own, stamps, values) for name, own in zip(names, each, strict=True)]
    return chosen, found


def on_grid(rows: Rows, frequency: Frequency, columns: Columns, missing: str) -> Rows:
    """A series without missing rows: refused, or put in with missing values.

    What comes before the first row by which every column has had a value is left out, where gaps are allowed.

    Raises:
        DataError: stamps that do not fit the frequency; missing rows or values that are refused.
    """
    frequency.check(rows.stamps, rows.at, gaps=missing != "refuse")
    if missing == "refuse":
        for part, names in ((rows.target, columns.target), (rows.past, columns.past), (rows.future, columns.future)):
            gone = np.argwhere(np.isnan(part))
            if len(gone):
                row, column = gone[0].tolist()
                raise DataError(
                    f"{rows.at(row)}: {names[column]!r} is missing; fill it in, or train with --missing interpolate."
                )
        return rows
    if frequency.kind != "rows":
        rows = _inserted(rows, frequency.steps(rows.stamps[0], rows.stamps[-1]))
    seen = ~np.isnan(np.concatenate((rows.target, rows.past, rows.future[: len(rows)]), axis=1))
    if not seen.any(axis=0).all():
        column = int(np.flatnonzero(~seen.any(axis=0))[0])
        name = (*columns.target, *columns.past, *columns.future)[column]
        raise DataError(f"{rows.title} has no value of {name!r} in {len(rows)} rows; leave one of them out.")
    first = int(seen.argmax(axis=0).max())
    at = rows.at
    return replace(
        rows,
        stamps=rows.stamps[first:],
        target=rows.target[first:],
        past=rows.past[first:],
        future=rows.future[first:],
        at=lambda row: at(row + first),
    )


def _time_column(table: Table, config: ForecastData) -> str:
    if config.time is not None:
        table.need(config.time)
        return config.time
    for name in _TIMES:
        for column in table.columns:
            if column.lower() == name and column not in (*config.target, *config.past, *config.future, config.series):
                return column
    raise DataError(
        f"{table.name} has no column of time stamps that is called {', '.join(_TIMES[:-1])} or {_TIMES[-1]}; its "
        f"columns are {', '.join(map(repr, table.columns))}. Pass --time with the name of one."
    )


def _stamps(table: Table, column: str, format: str | None) -> np.ndarray:
    """Times, or numbers of steps."""
    texts = table.texts(column, empty=False)
    if format is not None or not _numeric(texts[0]):
        return table.times(column, format)
    numbers = table.numbers(column)
    for row in np.flatnonzero(numbers != np.round(numbers)).tolist():
        raise DataError(f"{table.at(row)}: {column!r} is {numbers[row]}; steps are counted in whole numbers.")
    if len(texts[0]) == 8 and ((numbers > 1e7) & (numbers % 100 <= 31) & (numbers // 100 % 100 <= 12)).all():
        raise DataError(
            f"{table.name}: {column!r} holds numbers that look like dates, such as {texts[0]}; pass --time-format "
            "%Y%m%d."
        )
    return numbers.astype(np.int64)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(table: Table, column: str, config: ForecastData) -> np.ndarray:
    try:
        return table.numbers(column, missing=True)
    except DataError as error:
        if config.target:
            raise
        raise DataError(
            f"{error} All columns that are not named else are forecast; name those that are meant by --target."
        ) from None


def _one(
    table: Table, columns: Columns, name: str, own: np.ndarray, stamps: np.ndarray, values: dict[str, np.ndarray]
) -> Rows:
    """A series of the rows `own` of a table."""

    def at(row: int) -> str:
        return table.at(int(own[row]))

    def block(names: Sequence[str], count: int) -> np.ndarray:
        empty = np.zeros((count, 0))
        return np.stack([values[each][own[:count]] for each in names], axis=1) if names else empty

    times = stamps[own]
    for row in np.flatnonzero(times[1:] <= times[:-1]).tolist():
        twice = times[row] == times[row + 1]
        many = "" if columns.series is not None else " Where the rows are of several series, pass --series."
        raise DataError(
            f"{at(row + 1)}: the stamp {shown(times[row + 1])} "
            f"{'comes twice' if twice else f'goes back, after {shown(times[row])}'}; "
            f"{'keep one row of each' if twice else 'sort the rows by time'}.{many}"
        )
    target = block(columns.target, len(own))
    # Rows at the end in which the future alone is known are for forecasting.
    known = len(own)
    while columns.future and known and np.isnan(target[known - 1]).all():
        known -= 1
    return Rows(name, times, target[:known], block(columns.past, known), block(columns.future, len(own)), at)


def _inserted(rows: Rows, grid: np.ndarray) -> Rows:
    """The rows on a grid, the missing ones with NaN."""
    place = np.searchsorted(grid, rows.stamps)
    known = int(place[len(rows) - 1]) + 1 if len(rows) else 0

    def spread(values: np.ndarray, count: int) -> np.ndarray:
        found = np.full((count, values.shape[1]), np.nan)
        found[place[: len(values)]] = values
        return found

    before = np.searchsorted(rows.stamps, grid).clip(max=len(rows.stamps) - 1)
    at = rows.at
    return Rows(
        rows.name,
        grid,
        spread(rows.target, known),
        spread(rows.past, known),
        spread(rows.future, len(grid)),
        lambda row: at(int(before[row])),
    )
