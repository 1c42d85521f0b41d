"""The options of the task forecast. This file imports no torch, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...training.config import Batching, Evaluation, Length, Machine, Optimization
from ...training.options import Config, Group, option
from ..common.options import Layers

__all__ = ["CALENDAR", "ForecastConfig", "ForecastData", "ForecastHead", "ForecastParts", "ForecastWindows"]

CALENDAR = ("hour", "weekday", "month")


@dataclass(frozen=True)
class ForecastData(Group):
    """Series."""

    data: str | None = option(
        None,
        "A table with a column of time stamps (CSV, TSV, JSON lines or Parquet), or a name of the catalogue.",
        may_change=True,
        shown="none, it is needed",
    )  # the file may have moved; its content is checked
    encoding: str = option("utf-8", "Of a table of text.", may_change=True)
    time: str | None = option(
        None, "The column of time stamps, or of numbers of steps.", shown="date, time, timestamp, datetime, ds or step"
    )
    time_format: str | None = option(None, "How stamps are written, such as %d/%m/%Y.", shown="as ISO 8601 says")
    target: tuple[str, ...] = option((), "A column to forecast; may be repeated.", shown="all that are not named else")
    past: tuple[str, ...] = option((), "A column that helps and is known up to now; may be repeated.")
    future: tuple[str, ...] = option((), "A column that helps and is known ahead too; may be repeated.")
    series: str | None = option(
        None, "The column that says whose row it is, in a table of many series.", shown="one series"
    )
    frequency: str | None = option(
        None,
        "Of the stamps: 15min, h, D, B, W, MS, ...; or rows: count rows, whatever the stamps.",
        shown="found from the stamps",
    )
    period: int | None = option(
        None, "Rows of a season, for the seasonal naive forecast and MASE.", low=1, shown="by the frequency"
    )
    calendar: tuple[str, ...] = option(
        ("auto",),
        f"Of the stamps, as sine and cosine: {', '.join(CALENDAR)}, or none; may be repeated.",
        shown="what suits the frequency",
    )
    missing: str = option(
        "refuse",
        "Of missing values and rows: refuse, or interpolate (never from what comes after a forecast's beginning).",
        choices=("refuse", "interpolate"),
    )
    scaling: str = option(
        "auto",
        "To mean 0 and deviation 1 of the training part: of each series, shared by all, none, or auto (each; none for "
        "counts).",
        choices=("auto", "series", "shared", "none"),
    )

    def check(self) -> None:
        """No column has two parts to play, and the calendar is one."""
        named = [*self.target, *self.past, *self.future, *filter(None, (self.time, self.series))]
        for name in named:
            if named.count(name) > 1:
                raise OptionError(
                    f"the column {name!r} is named {named.count(name)} times; pass it once, as time, series, target, "
                    "past or future."
                )
        words = (*CALENDAR, "auto", "none")
        wrong = [word for word in self.calendar if word not in words]
        if wrong or (len(self.calendar) != 1 and {"auto", "none"} & set(self.calendar)):
            raise OptionError(
                f"calendar is {', '.join(self.calendar)}; pass some of {', '.join(CALENDAR)}, or auto or none alone."
            )


@dataclass(frozen=True)
class ForecastWindows(Group):
    """Windows."""

    context: int | None = option(
        None, "Rows that are read before a forecast.", low=1, shown="twice the longer of horizon and season"
    )
    horizon: int = option(24, "Rows that are forecast.", low=1)
    stride: int = option(1, "Rows between the beginnings of windows to train on.", low=1)
    eval_stride: int = option(1, "Rows between the beginnings of forecasts that are evaluated.", low=1)


@dataclass(frozen=True)
class ForecastParts(Group):
    """Parts, by time: shares, or numbers of rows, or stamps."""

    validation: float = option(0.15, "Share of each series that decides which weights are best.", above=0, below=1)
    test: float = option(0.15, "Share of each series, its end, that is kept for the end.", low=0, below=1)
    train_rows: int | None = option(None, "Instead of shares: rows of the training part.", low=1, shown="by shares")
    validation_rows: int | None = option(
        None, "With --train-rows: rows of the validation part behind it.", low=1, shown="by shares"
    )
    test_rows: int | None = option(
        None, "With --train-rows: rows of the test part behind that.", low=1, shown="all the others"
    )
    validation_from: str | None = option(
        None, "Instead of shares: the stamp at which the validation part begins.", shown="by shares"
    )
    test_from: str | None = option(
        None, "With --validation-from: the stamp at which the test part begins.", shown="no test part"
    )
    test_until: str | None = option(None, "With --test-from: the stamp before which it ends.", shown="with the series")

    def check(self) -> None:
        """One way of cutting."""
        rows = (self.train_rows, self.validation_rows)
        stamps = (self.test_from, self.test_until)
        if (rows[0] is None) != (rows[1] is None) or (self.test_rows is not None and rows[0] is None):
            raise OptionError("parts by rows were begun; pass --train-rows and --validation-rows, --test-rows or none.")
        if (any(stamps) and self.validation_from is None) or (self.test_until and not self.test_from):
            raise OptionError(
                "parts by stamps were begun; pass --validation-from, then --test-from, then --test-until."
            )
        if self.validation_from is not None and rows[0] is not None:
            raise OptionError("parts by rows and by stamps were asked for; pass one of them.")
        if self.validation + self.test >= 1.0:
            raise OptionError(
                f"validation is {self.validation:g} and test {self.test:g}; pass shares that leave some to train on."
            )


@dataclass(frozen=True)
class ForecastHead(Group):
    """Forecast."""

    mode: str = option(
        "direct",
        "direct: all steps of one reading; recursive: step by step, each read as if it had been seen.",
        choices=("direct", "recursive"),
    )
    head: str = option(
        "gaussian",
        "What is said of each value: a point, a distribution (gaussian, student_t, negative_binomial for counts), or "
        "quantiles.",
        choices=("point", "gaussian", "student_t", "negative_binomial", "quantiles"),
    )
    loss: str = option("mse", "Of a point: mse, mae or huber.", choices=("mse", "mae", "huber"))
    delta: float = option(1.0, "Where huber turns linear, in deviations.", above=0)
    level: tuple[float, ...] = option(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "A quantile to learn; may be repeated.", shown="0.1 to 0.9"
    )
    interval: float = option(
        0.8,
        "Share of the values that the interval is to hold; of a point it is made of the validation part's errors.",
        above=0,
        below=1,
    )
    normalize: str = option(
        "auto",
        "Of each window: none, last (less its last value), standard, revin, mean (counts), or auto (last; mean for "
        "counts).",
        choices=("auto", "none", "last", "standard", "revin", "mean"),
    )
    samples: int = option(100, "Paths that are drawn for the intervals of a recursive forecast.", low=2)

    def check(self) -> None:
        """The quantiles rise, and hold the interval."""
        if self.head == "point" and self.interval > 0.99:
            raise OptionError(
                f"interval is {self.interval:g}; of a point's errors the outermost hundredths are not kept: pass 0.99 "
                "or less, or --head student_t."
            )
        if self.head != "quantiles":
            return
        levels, tail = list(self.level), (1.0 - self.interval) / 2
        if levels != sorted(set(levels)) or not levels or not (levels[0] > 0 and levels[-1] < 1):
            raise OptionError(f"level is {levels}; pass shares between 0 and 1 that rise.")
        if levels[0] > tail + 1e-9 or levels[-1] < 1 - tail - 1e-9:
            raise OptionError(
                f"interval is {self.interval:g}, but the levels go from {levels[0]:g} to {levels[-1]:g}; pass --level "
                f"{tail:g} and --level {1 - tail:g} as well, or a smaller interval."
            )


@dataclass(frozen=True)
class ForecastConfig(Config):
    """What a run of the task forecast is told."""

    series: ForecastData = ForecastData()
    windows: ForecastWindows = ForecastWindows()
    parts: ForecastParts = ForecastParts()
    forecast: ForecastHead = ForecastHead()
    model: Layers = Layers()
    length: Length = Length()
    batching: Batching = Batching()
    optimization: Optimization = Optimization()
    evaluation: Evaluation = Evaluation()
    machine: Machine = Machine()
