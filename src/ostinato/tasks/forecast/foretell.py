"""Forecasts of windows by a model, and what they are worth beside the naive ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...models import Forecaster, Gaussian, Point, Quantiles, StudentT
from ...models.distributions import Head
from ...training.task import WHOLE, Share
from .config import ForecastHead
from .history import Window, Windows
from .scores import BASELINES, Errors, Figures, Scores

__all__ = [
    "Found",
    "Told",
    "evaluate",
    "foretell",
    "loss_of",
    "measure_names",
    "naive",
    "score_levels",
    "table",
    "together",
    "told",
]

_DECILES = tuple(k / 10 for k in range(1, 10))
_DIGITS = 12  # of a level; what lies behind them is rounding
_TOGETHER = 512  # windows that are forecast at once
_PATHS = 6400  # paths that are drawn at once
_KEPT = 4096  # windows whose errors are looked at, at most


@dataclass(frozen=True)
class Told:
    """What is said of the steps ahead: mean `[H, B, S]`, interval `[2, H, B, S]`, quantiles `[Q, H, B, S]`.

    The interval is `[0, ...]` of a point whose errors are not known, the quantiles of every point.
    """

    mean: Tensor
    interval: Tensor
    quantiles: Tensor
    loss: Tensor  # [H, B, S]


@dataclass(frozen=True)
class Found:
    """What an evaluation found.

    Args:
        measures: by name.
        figures: what each way of forecasting comes to.
        errors: `[H, W, S]`, of all windows of all processes, or of some that lie evenly; NaN where a value is missing.
            None where the head says more than a point.
    """

    measures: dict[str, float]
    figures: Mapping[str, Figures]
    errors: Tensor | None = None


def loss_of(head: Head, parameters: Tensor, target: Tensor) -> Tensor:
    """The loss of each value, `[...]`; 0, without a gradient, where the target is NaN."""
    known = ~target.isnan()
    # what is missing is put where its loss is finite: of an infinite one, 0 times the gradient would be none
    there = torch.where(known, target, head.mean(parameters).detach().to(target.dtype))
    return head.nll(parameters, there).masked_fill(~known, 0.0)


def score_levels(head: Head) -> tuple[float, ...]:
    """The quantiles by which a distribution is judged."""
    if isinstance(head, Point):
        return ()
    return head.levels if isinstance(head, Quantiles) else _DECILES


def foretell(model: nn.Module, window: Window, options: ForecastHead, seed: int, judged: bool = True) -> Told:
    """What a model says of some windows.

    Args:
        model: a `Forecaster` in evaluation mode.
        window: where the model is.
        options: the interval, and how many paths are drawn.
        seed: of the paths.
        judged: whether quantiles and losses are asked for too.
    """
    assert isinstance(model, Forecaster)
    head = model.head
    levels = score_levels(head) if judged else ()
    tail = (1.0 - options.interval) / 2
    ends = (tail, 1.0 - tail) if _has_interval(model) else ()
    if isinstance(head, Quantiles):  # 0.1 is (1 - 0.8) / 2 but for rounding
        ends = tuple(min(max(end, head.levels[0]), head.levels[-1]) for end in ends)
    none = window.target.new_zeros(0, *window.target.shape)
    if model.mode == "recursive":
        generator = torch.Generator().manual_seed(seed)
        asked = (*ends, *levels)
        found = model.predict(window.past, window.future, asked, options.samples, generator)
        loss = loss_of(head, model(window.past, window.future, window.target), window.target) if judged else none
        return Told(found.mean, found.quantiles[: len(ends)], found.quantiles[len(ends) :], loss)
    parameters = model(window.past, window.future)
    stacked = _quantiles(model, parameters, (*ends, *levels)) if ends else none
    loss = loss_of(head, parameters, window.target) if judged else none
    return Told(head.mean(parameters), stacked[: len(ends)], stacked[len(ends) :], loss)


def _has_interval(model: Forecaster) -> bool:
    """Whether more than a point is said of each value."""
    return model.residuals is None or model.residuals.known


def _quantiles(model: Forecaster, parameters: Tensor, levels: Sequence[float]) -> Tensor:
    """`[Q, H, B, S]`. Of a symmetric distribution those above the middle are reflected: they are dear."""
    head = model.head
    mean = head.mean(parameters)
    symmetric = isinstance(head, Gaussian | StudentT)
    found: dict[float, Tensor] = {}
    for q in levels:
        low = round(1.0 - q if symmetric and q > 0.5 else q, _DIGITS)
        if low not in found:
            found[low] = model.quantile(parameters, low if symmetric else q)
        found.setdefault(round(q, _DIGITS), 2 * mean - found[low])
    return torch.stack([found[round(q, _DIGITS)] for q in levels])


def naive(window: Window) -> dict[str, Tensor]:
    """The forecasts without a model, each `[H, B, S]`: the last value, and that of a season before."""
    width = window.target.shape[2]
    last = window.past[-1, :, :width].expand(window.target.shape)
    return dict(zip(BASELINES, (last, window.season), strict=True))


def measure_names(head: Head) -> tuple[str, ...]:
    """What `evaluate` measures, in order; and the coverage of a point's interval, where its errors are known."""
    own = ("loss", "mse", "mae", "mase")
    more = () if isinstance(head, Point) else ("crps", "coverage")
    return (*own, *more, *(f"{way}_{name}" for way in BASELINES for name in own[1:]))


def together(model: Forecaster, options: ForecastHead) -> int:
    """How many windows are forecast at once."""
    drawn = model.mode == "recursive" and not isinstance(model.head, Point)
    return max(1, _PATHS // options.samples) if drawn else _TOGETHER


def evaluate(
    model: nn.Module,
    windows: Windows,
    options: ForecastHead,
    seed: int,
    share: Share = WHOLE,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found | None:
    """How well a model does on windows, and how well the naive forecasts do on the same ones; None if stopped midway.

    Args:
        model: a `Forecaster` in evaluation mode, without gradients.
        windows: all of them; a forecast reads nothing of its own or of later ones.
        options: the interval, and how many paths are drawn.
        seed: of the paths.
        share: which of the windows this process reads.
        should_stop: asked now and then.
    """
    assert isinstance(model, Forecaster)
    device = next(model.parameters()).device
    history = windows.history
    seasonal = torch.from_numpy(history.units[:, 2])
    levels = score_levels(model.head)
    scores = Scores(seasonal, history.recipe.horizon, levels, device)
    without = {name: Errors(seasonal, history.recipe.horizon, device) for name in BASELINES}
    kept = _Kept(len(windows), share) if model.residuals is not None else None
    for number, window in enumerate(windows.in_order(share, together(model, options))):
        if should_stop():
            return None
        there = window.to(device)
        told = foretell(model, there, options, seed + number)
        scores.add(told.mean, told.quantiles, told.interval, told.loss, there.target, window.owners)
        if kept is not None:
            kept.add(there.target - told.mean)
        for name, forecast in naive(window).items():
            without[name].update(forecast, window.target, window.owners)
    figures: dict[str, Figures] = {"model": scores.errors.figures()}
    figures |= {name: errors.figures() for name, errors in without.items()}
    measures = {"loss": scores.loss.compute()}
    measures |= _three(figures["model"], "")
    if levels:
        measures["crps"] = scores.crps.compute()
    if _has_interval(model):
        measures["coverage"] = scores.coverage.compute()
    for name in BASELINES:
        measures |= _three(figures[name], f"{name}_")
    return Found(measures, figures, None if kept is None else kept.whole())


class _Kept:
    """The errors of some of the windows, which lie evenly among all of them."""

    def __init__(self, windows: int, share: Share) -> None:
        self.windows, self.share = windows, share
        self.every = -(-windows // _KEPT)
        self.numbers = torch.arange(windows)[share.of(windows)]
        self.errors: list[Tensor] = []
        self._seen = 0

    def add(self, errors: Tensor) -> None:
        """The next windows of this process, `[H, B, S]`."""
        numbers = self.numbers[self._seen : self._seen + errors.shape[1]]
        self._seen += errors.shape[1]
        self.errors.append(errors[:, (numbers % self.every == 0).to(errors.device)])

    def whole(self) -> Tensor:
        """Those of all processes, `[H, W, S]`."""
        own = torch.cat(self.errors, 1)
        found = own.new_zeros(len(own), -(-self.windows // self.every), own.shape[2])
        places = self.numbers[self.numbers % self.every == 0] // self.every
        found[:, places.to(own.device)] = own
        return self.share.summed(found)


def _three(figures: Figures, prefix: str) -> dict[str, float]:
    return {f"{prefix}mse": figures.mse, f"{prefix}mae": figures.mae, f"{prefix}mase": figures.mase}


def told(measures: dict[str, float], name: str) -> str:
    """One measure of the model and of the naive forecasts, on one line."""
    ways = [f"{way} {measures.get(f'{way}_{name}', measures[f'{way}_mae']):.4f}" for way in BASELINES]
    hold = f", intervals hold {measures['coverage']:.1%}" if "coverage" in measures else ""
    return f"validation {name.upper()} {measures[name]:.4f} ({', '.join(ways)}), MASE {measures['mase']:.3f}{hold}"


def table(measures: dict[str, float], period: int) -> str:
    """The model's measures, and below them the naive forecasts' on the same windows."""
    names = {"": "model", "naive_": "naive", "seasonal_": f"seasonal naive ({period})"}
    own = [name for name in ("mse", "mae", "mase", "crps") if name in measures]
    lines = ["".join([" " * 22, *(f"{name.upper():>10}" for name in own)])]
    for prefix, word in names.items():
        # the CRPS of a point is its absolute error
        values = [measures.get(f"{prefix}{name}", measures[f"{prefix}mae"]) for name in own]
        lines.append("".join([f"{word:<22}", *(f"{value:>10.4f}" for value in values)]))
    return "\n".join(lines)
