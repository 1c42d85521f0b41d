"""The task forecast: the next rows of one or many series, from a window of those before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import OptionError
from ...models import FeatureInput, Forecaster, Gaussian, Head, NegativeBinomial, Point, Quantiles, StudentT
from ...training.checkpoint import Checkpoint
from ...training.task import Loss, Panel, Share, Watched
from ..common.layers import make_encoder
from ..loading import build_model, check_same_data, read_entry
from .config import ForecastConfig, ForecastHead
from .foretell import Found, evaluate, loss_of, measure_names, told
from .history import Window, WindowBatches
from .pictures import draw_errors, draw_forecasts
from .reading import Collection
from .recipe import Recipe

__all__ = ["Forecasting"]


class Forecasting:
    """A forecaster of some series, trained on windows of their training parts.

    Args:
        config: the run's.
        collection: the series.
        model: that reads them.
    """

    name = "forecast"
    unit = "windows"

    def __init__(self, config: ForecastConfig, collection: Collection, model: Forecaster) -> None:
        self.config, self.collection, self.model = config, collection, model
        self.batches = WindowBatches(collection.trained_on(), config.batching.batch_size, config.machine.seed)
        self.held_out = collection.part("validation")
        self.measures = measure_names(model.head)
        self.watched = Watched(_watched(config.forecast))
        labels = {"mse": "mean squared error", "mae": "mean absolute error", "crps": "CRPS"}
        self.panels = (Panel("loss", _LOSSES[model.head.kind]), Panel(self.watched.name, labels[self.watched.name]))
        self._found: Found | None = None  # of the last evaluation

    @classmethod
    def begin(cls, config: ForecastConfig, cell: Any = None) -> Forecasting:
        """A new model of the config's series.

        Args:
            config: what to train on what.
            cell: a `Cell` of one's own; None means the one that the config names.

        Raises:
            DataError: series that cannot be used.
            CellError, ShapeError, OptionError: a model that cannot be made.
        """
        if config.forecast.mode == "recursive" and config.series.past:
            raise OptionError(
                f"a recursive forecast reads what is known ahead alone, but {', '.join(config.series.past)} is known "
                "up to now; pass --mode direct, or leave --past out."
            )
        collection = Collection.read(config)
        torch.manual_seed(config.machine.seed)
        return cls(config, collection, _make_model(config, collection, cell))

    @classmethod
    def resume(cls, config: ForecastConfig, found: Checkpoint) -> Forecasting:
        """The task as a checkpoint left it; its weights are in the model.

        Raises:
            DataError, RunError: series that cannot be used, or other ones.
        """
        recipe = read_entry(found, "recipe", Recipe.from_json)
        collection = Collection.read(config, recipe)
        check_same_data(found, collection.source, collection.sha256)
        return cls(config, collection, build_model(found, config.machine.backend, Forecaster))

    def loss(self, model: nn.Module, batch: Window, carried: Any) -> Loss:
        """Summed losses of the values ahead, each step with the true ones before it where forecasts are recursive."""
        parameters = model(batch.past, batch.future, batch.target)  # [H, B, S, P]
        total = loss_of(self.model.head, parameters, batch.target).sum()
        return Loss(total, total, float((~batch.target.isnan()).sum()))

    def training_measures(self, mean: float) -> dict[str, float]:
        """The mean loss of a value."""
        return {"loss": mean}

    def evaluate(self, model: nn.Module, share: Share, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """The errors of the model and of the naive forecasts in the validation part."""
        found = evaluate(model, self.held_out, self.config.forecast, self.config.machine.seed, share, should_stop)
        self._found = found
        if found is None:
            return None
        if found.errors is not None:
            for each in (model, self.model):  # a mean of weights takes the buffers of those that are trained
                assert isinstance(each, Forecaster) and each.residuals is not None
                each.residuals.fit(found.errors)
        # a point's interval is made of the very errors that are looked at here, so its coverage would say nothing
        return {name: found.measures[name] for name in self.measures}

    def illustrate(self, model: nn.Module, run: Path, step: int, best: bool) -> str:
        """Draw some forecasts and the errors by step, where they are the best so far."""
        found = self._found
        if not best or found is None:
            return ""
        title = f"{self.title()}, validation part, step {step:,}"
        options, seed = self.config.forecast, self.config.machine.seed
        draw_forecasts(run / "pictures" / "forecasts.png", model, self.held_out, options, seed, title)
        draw_errors(run / "pictures" / "errors.png", found.figures, title, self.collection.recipe.unit())
        return ""

    def forget(self, run: Path, step: int) -> None:
        """Nothing: the pictures are drawn over at the next evaluation that is better."""

    def told(self, measures: dict[str, float]) -> str:
        """The model and the naive forecasts, in words."""
        return told(measures, self.watched.name)

    def told_training(self, measures: dict[str, float]) -> str:
        """The loss."""
        return f"loss {measures['loss']:.4f}"

    def facts(self) -> Sequence[str]:
        """The series."""
        collection, recipe = self.collection, self.collection.recipe
        data = collection.to_json()
        unit = f"every {recipe.frequency.text}" if recipe.frequency.kind == "time" else "in steps"
        many = f"{data['series']:,} series of " if data["series"] > 1 else ""
        targets = ", ".join(recipe.columns.target[:6]) + (", ..." if len(recipe.columns.target) > 6 else "")
        helps = (*recipe.columns.past, *recipe.columns.future, *recipe.calendar)
        return (
            f"{self.source()}: {many}{targets}, {data['rows']:,} rows {unit}; {data['train_rows']:,} to train on, "
            f"{data['validation_rows']:,} to choose by, {data['test_rows']:,} kept for the test",
            f"{recipe.horizon} rows ahead from {recipe.context}, season {recipe.period}"
            + (f", helped by {', '.join(helps)}" if helps else ""),
        )

    def title(self) -> str:
        """The model in a few words."""
        head = self.config.forecast.head.replace("_", " ")
        return f"{self.model.cell_name}, {self.config.model.shape()}, {self.config.forecast.mode}, {head}"

    def source(self) -> str:
        """The series in a few words."""
        return Path(self.collection.source).name

    def document(self) -> dict[str, Any]:
        """The data's facts, the model's equations, how its series are read."""
        return {
            "data": self.collection.to_json(),
            "model": self.model.spec(),
            "recipe": self.collection.recipe.to_json(),
        }

    def next_steps(self, run: str) -> Sequence[tuple[str, str]]:
        """What may be done with the run."""
        steps = [("forecasts", f"{run}/pictures/forecasts.png"), ("errors", f"{run}/pictures/errors.png")]
        if any(cuts.test > cuts.validation for cuts in self.collection.cuts):
            steps.append(("test", f"ostinato evaluate {run}"))
        return (*steps, ("predict", f"ostinato predict {run} {self.collection.source}"))


_LOSSES = {
    "point": "loss",
    "gaussian": "-log p, nats",
    "student_t": "-log p, nats",
    "negative_binomial": "-log p, nats",
    "quantiles": "pinball loss",
}


def _watched(options: ForecastHead) -> str:
    if options.head == "point":
        return "mse" if options.loss == "mse" else "mae"
    return "crps"


def make_head(options: ForecastHead) -> Head:
    """The head that the options describe."""
    if options.head == "point":
        return Point(options.loss, options.delta)
    if options.head == "quantiles":
        return Quantiles(options.level)
    return {"gaussian": Gaussian, "student_t": StudentT, "negative_binomial": NegativeBinomial}[options.head]()


def _make_model(config: ForecastConfig, collection: Collection, cell: Any) -> Forecaster:
    history = collection.history
    columns = collection.recipe.columns
    ahead = history.known.shape[1]
    width = len(columns.target) + len(columns.past) + ahead
    encoder = make_encoder(config.model, FeatureInput(width), cell, config.machine.backend)
    head = make_head(config.forecast)
    normalize = config.forecast.normalize
    if normalize == "auto":
        normalize = "last" if head.shifts else "mean"
    horizon, mode = config.windows.horizon, config.forecast.mode
    return Forecaster(encoder, head, horizon, len(columns.target), mode, normalize, ahead)
