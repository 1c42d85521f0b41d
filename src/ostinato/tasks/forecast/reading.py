"""From a config's data, or from new ones, to histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...data import Source, name_of
from ...errors import DataError, OptionError
from .config import ForecastConfig
from .frequency import Frequency, shown
from .history import History, Windows
from .parts import Cuts, cut
from .recipe import Recipe
from .table import Rows, digest, located, on_grid, read_rows

__all__ = ["Collection", "read_ahead", "read_new"]


@dataclass(frozen=True, eq=False)
class Collection:
    """The series of a run, and where their parts end."""

    source: str
    sha256: str
    recipe: Recipe
    history: History
    cuts: Sequence[Cuts]
    stride: int
    eval_stride: int

    @classmethod
    def read(cls, config: ForecastConfig, recipe: Recipe | None = None) -> Collection:
        """The series that a config names.

        Args:
            config: names the file and what its columns are.
            recipe: of the run that is resumed; None makes one from the training part.

        Raises:
            DataError, OptionError: series that cannot be used.
        """
        data = config.series.data
        if data is None:
            raise OptionError("there are no series to learn from; pass a table: ostinato train forecast FILE.csv.")
        path = located(data)
        columns, every = read_rows(path, config.series, None if recipe is None else recipe.columns)
        asked = config.series.frequency
        frequency = Frequency.of([rows.stamps for rows in every], asked) if recipe is None else recipe.frequency
        every = [on_grid(rows, frequency, columns, config.series.missing) for rows in every]
        horizon = config.windows.horizon
        period = config.series.period or frequency.season()
        context = config.windows.context or 2 * max(horizon, period)
        cuts = cut(every, config.parts, context, horizon)
        if recipe is None:
            recipe = Recipe.of(config, columns, frequency, period, context, every, cuts)
        windows = config.windows
        return cls(data, digest(path), recipe, History(recipe, every), cuts, windows.stride, windows.eval_stride)

    def trained_on(self) -> Windows:
        """The windows of the training part; before some of the first stands no season, but no training reads it."""
        return self.history.windows([cuts.part("train") for cuts in self.cuts], self.recipe.context, self.stride)

    def part(self, name: str) -> Windows:
        """The windows of a part to evaluate on: all of what they forecast is in it, and a season stands before each.

        Raises:
            DataError: it has none.
        """
        recipe = self.recipe
        found = self.history.windows([cuts.part(name) for cuts in self.cuts], recipe.lookback, self.eval_stride)
        if not len(found):
            raise DataError(
                f"the {name} part has no windows: before each stand {recipe.lookback} rows (context {recipe.context}, "
                f"season {recipe.period}); pass a smaller --context or --period, or other parts."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """What a run writes down of its data, as plain JSON values."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "series": len(self.cuts),
            "rows": sum(len(rows) for rows in self.history.every),
            **{f"{name}_rows": sum(own.part(name)[1] - own.part(name)[0] for own in self.cuts) for name in _PARTS},
        }


_PARTS = ("train", "validation", "test")


def read_new(source: Source, config: ForecastConfig, recipe: Recipe) -> Windows:
    """The windows of new data to evaluate on: of what comes after the rows that the run learned from, if they hold it.

    Raises:
        DataError: data that cannot be used, or nothing new.
    """
    every = _read(source, config, recipe)
    for rows in every:
        if len(rows) < recipe.lookback + recipe.horizon:
            raise DataError(
                f"{rows.title} of {name_of(source)} has {len(rows)} rows; to evaluate, {recipe.lookback} before a "
                f"forecast and {recipe.horizon} ahead are needed: pass a longer one."
            )
    history = History(recipe, every)
    parts = [(recipe.first_new(rows, number), len(rows)) for rows, number in zip(every, history.numbers, strict=True)]
    found = history.windows(parts, recipe.lookback, config.windows.eval_stride)
    if not len(found):
        rows, (first, _) = every[0], parts[0]
        raise DataError(
            f"{name_of(source)} ends at {shown(rows.stamps[len(rows) - 1])}, and up to {shown(rows.stamps[first - 1])} "
            f"the run learned from it: there are not {recipe.horizon} new rows. Pass a longer table."
        )
    return found


def read_ahead(source: Source, config: ForecastConfig, recipe: Recipe) -> Windows:
    """The windows at the ends of new data, one of each series, to forecast what comes behind them.

    Raises:
        DataError: data that cannot be used, or without what is to be known ahead.
    """
    every = _read(source, config, recipe)
    for rows in every:
        if len(rows) < recipe.context:
            raise DataError(
                f"{rows.title} of {name_of(source)} has {len(rows)} rows; to forecast, the run reads {recipe.context}: "
                "pass a longer one."
            )
        if recipe.columns.future and rows.ahead < recipe.horizon:
            named = ", ".join(map(repr, recipe.columns.future))
            raise DataError(
                f"{rows.title} of {name_of(source)} ends at {shown(rows.stamps[len(rows) - 1])} with {rows.ahead} rows "
                f"behind it, but {named} must be known {recipe.horizon} rows ahead; append rows with time and {named} "
                f"in which {', '.join(map(repr, recipe.columns.target))} is empty."
            )
    history = History(recipe, every, recipe.horizon)
    parts = [(len(rows), len(rows) + recipe.horizon) for rows in every]
    return history.windows(parts, recipe.context, 1)


def _read(source: Source, config: ForecastConfig, recipe: Recipe) -> list[Rows]:
    place = located(source) if isinstance(source, str) else source
    options = replace(config.series, target=recipe.columns.target)  # other columns of a new table are no matter
    _, every = read_rows(place, options, recipe.columns)
    return [on_grid(rows, recipe.frequency, recipe.columns, options.missing) for rows in every]
