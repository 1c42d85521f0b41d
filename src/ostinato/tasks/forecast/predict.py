"""A trained forecaster on its own test part, on new data, and beyond their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data import Source
from ...errors import OptionError, RunError
from ...models import Forecaster, Quantiles
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import ForecastConfig
from .foretell import evaluate, foretell, table, together
from .frequency import shown
from .history import Windows
from .pictures import draw_errors, draw_forecasts
from .reading import Collection, read_ahead, read_new
from .recipe import Recipe

__all__ = ["ForecastPredictor"]

_DAY = 86_400_000_000_000  # nanoseconds


class ForecastPredictor:
    """A forecaster and how its series are read.

    Args:
        found: its checkpoint.
        model: with its weights.
        recipe: of the run.
        config: of the run.
    """

    draws = True

    def __init__(self, found: Checkpoint, model: Forecaster, recipe: Recipe, config: ForecastConfig) -> None:
        self.found, self.model, self.recipe, self.config = found, model, recipe, config

    @classmethod
    def load(cls, found: Checkpoint, backend: str, device: torch.device) -> ForecastPredictor:
        """From a checkpoint."""
        model = build_model(found, backend, Forecaster).to(device).eval()
        config = read_entry(found, "config", ForecastConfig.from_json)
        return cls(found, model, read_entry(found, "recipe", Recipe.from_json), config)

    def with_interval(self, share: float) -> ForecastPredictor:
        """The same, whose intervals are to hold another share of the values.

        Raises:
            OptionError: a share that is none, or of which the run has learned no interval.
        """
        head, tail = self.model.head, (1.0 - share) / 2
        outermost = max(head.levels[0], 1 - head.levels[-1]) if isinstance(head, Quantiles) else 0.0
        if isinstance(head, Quantiles) and 0 < share < 1 and tail < outermost - 1e-9:
            raise OptionError(
                f"interval is {share:g}, but the run learned the quantiles {head.levels[0]:g} to {head.levels[-1]:g}; "
                f"pass {1 - 2 * outermost:g} or less, or train with more of --level."
            )
        return ForecastPredictor(self.found, self.model, self.recipe, self.config.changed({"interval": share}))

    def own(self, part: str) -> Windows:
        """The windows of a part of the series that the run was trained with."""
        collection = Collection.read(self.config, self.recipe)
        check_same_data(self.found, collection.source, collection.sha256)
        if part == "test" and all(cuts.test == cuts.validation for cuts in collection.cuts):
            raise RunError("the run kept no test part; pass new data, or --part validation.")
        return collection.part(part)

    def read(self, source: Source) -> Source:
        """New data: what is read of them is another thing to evaluate than to predict, and so is what they need."""
        return source

    def evaluate(self, data: Windows | Source, pictures: Path | None = None) -> dict[str, float]:
        """Back-test: forecast from every row on, each time with the rows before it alone; the naive forecasts too."""
        windows = data if isinstance(data, Windows) else read_new(data, self.config, self.recipe)
        options, seed = self.config.forecast, self.config.machine.seed
        with torch.no_grad():
            found = evaluate(self.model, windows, options, seed)
            assert found is not None
            if pictures is not None:
                title = f"{self.model.cell_name}, {len(windows):,} forecasts"
                draw_forecasts(pictures / "forecasts.png", self.model, windows, options, seed, title)
                draw_errors(pictures / "errors.png", found.figures, title, self.recipe.unit())
        return {"windows": float(len(windows)), **found.measures}

    def told(self, measures: dict[str, float]) -> str:
        """In words: the model, and below it the naive forecasts."""
        lines = [table(measures, self.recipe.period)]
        if "coverage" in measures:
            lines.append(f"{self.config.forecast.interval:.0%} intervals hold {measures['coverage']:.1%} of the values")
        lines.append(f"{measures['windows']:,.0f} forecasts of {self.recipe.horizon} rows, values {self.recipe.unit()}")
        return "\n".join(lines)

    def predict(self, data: Windows | Source) -> Iterator[dict[str, Any]]:
        """The rows behind the end of each series, in its own units, with an interval where the head has one."""
        windows = data if isinstance(data, Windows) else read_ahead(data, self.config, self.recipe)
        return self._rows(windows)

    def _rows(self, windows: Windows) -> Iterator[dict[str, Any]]:
        history = windows.history
        device = next(self.model.parameters()).device
        seed, options = self.config.machine.seed, self.config.forecast
        days = all(stamps.dtype.kind == "M" and not np.any(stamps.astype(np.int64) % _DAY) for stamps in history.stamps)
        for start in range(0, len(windows), together(self.model, options)):
            which = torch.arange(start, min(start + together(self.model, options), len(windows)))
            window = windows.take(which)
            with torch.no_grad():
                told = foretell(self.model, window.to(device), options, seed + start, judged=False)
            values = torch.cat((told.mean[None], told.interval)).cpu().double().numpy()  # [1 or 3, H, B, S]
            share = f"{100 * options.interval:g}"
            names = ("forecast", f"lower_{share}", f"upper_{share}")[: len(values)]
            for b, owner in enumerate(window.owners.tolist()):
                rows, (shift, scale, _) = history.every[owner], history.units[owner]
                first = int(window.origins[b] - history.starts[owner])
                for step in range(self.recipe.horizon):
                    stamp = history.stamps[owner][first + step]
                    for column, target in enumerate(self.recipe.columns.target):
                        found = shift[column] + scale[column] * values[:, step, b, column]
                        yield {
                            **({self.recipe.columns.series: rows.name} if self.recipe.columns.series else {}),
                            self.recipe.columns.time: shown(stamp, days),
                            "ahead": step + 1,
                            "target": target,
                            **{name: float(f"{value:.7g}") for name, value in zip(names, found, strict=True)},
                        }
