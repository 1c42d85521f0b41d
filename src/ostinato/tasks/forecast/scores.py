"""How far forecasts are off, over windows, steps and series; summed over processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["BASELINES", "Errors", "Figures", "Scores"]

BASELINES = ("naive", "seasonal")


@dataclass(frozen=True)
class Figures:
    """What one way of forecasting comes to.

    Args:
        mse, mae: of z-scored values.
        mase: the mean, over series, of the absolute error in units of the seasonal naive one's (Hyndman & Koehler
            2006).
        mse_by_step, mae_by_step: `[H]`.
    """

    mse: float
    mae: float
    mase: float
    mse_by_step: np.ndarray
    mae_by_step: np.ndarray


class Errors(Metric):
    """Squared and absolute errors by step, and absolute ones by series.

    Args:
        seasonal: `[N, S]`, the unit of MASE.
        horizon: H.
        device: where the sums are: processes that train on GPUs put them together there.
    """

    full_state_update = False
    squared: Tensor
    absolute: Tensor
    count: Tensor
    own_absolute: Tensor
    own_count: Tensor

    def __init__(self, seasonal: Tensor, horizon: int, device: torch.device) -> None:
        super().__init__()
        self.seasonal = seasonal
        for name in ("squared", "absolute", "count"):
            self.add_state(name, torch.zeros(horizon, dtype=torch.float64), "sum")
        for name in ("own_absolute", "own_count"):
            self.add_state(name, torch.zeros(seasonal.shape, dtype=torch.float64), "sum")
        self.to(_summing(device))

    def update(self, forecast: Tensor, target: Tensor, owners: Tensor) -> None:
        """Take note of some windows: `[H, B, S]` each, the target NaN where it is missing, and `[B]`."""
        place = self.squared.device
        forecast, target, owners = forecast.to(place), target.to(place), owners.to(place)
        error = forecast.double() - target.double()
        known = ~target.isnan()
        error = error.masked_fill(~known, 0.0)  # a forecast that is NaN stays so: the training diverged
        self.squared += error.square().sum((1, 2))
        self.absolute += error.abs().sum((1, 2))
        self.count += known.sum((1, 2))
        self.own_absolute.index_add_(0, owners, error.abs().sum(0))
        self.own_count.index_add_(0, owners, known.sum(0).double())

    def compute(self) -> dict[str, Tensor]:
        """The sums of all processes."""
        return {name: getattr(self, name) for name in ("squared", "absolute", "count", "own_absolute", "own_count")}

    def figures(self) -> Figures:
        """What all windows of all processes come to."""
        # torchmetrics makes numbers of tensors with one element
        found: dict[str, Tensor] = {name: sums.reshape(-1).cpu() for name, sums in self.compute().items()}
        count = found["count"].clamp(min=1)
        there = found["own_count"] > 0
        scaled = found["own_absolute"] / found["own_count"].clamp(min=1) / self.seasonal.reshape(-1)
        return Figures(
            float(found["squared"].sum() / found["count"].sum().clamp(min=1)),
            float(found["absolute"].sum() / found["count"].sum().clamp(min=1)),
            float(scaled[there].mean()) if there.any() else 0.0,
            (found["squared"] / count).numpy(),
            (found["absolute"] / count).numpy(),
        )


class Mean(Metric):
    """The mean of all values. Unlike torchmetrics' own it hides no NaN."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), "sum")
        self.to(_summing(device))

    def update(self, values: Tensor) -> None:
        """Take note of some."""
        self.total += values.detach().to(self.total.device).double().sum()
        self.count += values.numel()

    def compute(self) -> float:
        """Over all processes."""
        return float(self.total / self.count.clamp(min=1))


class Scores:
    """What an evaluation counts: the model's errors, its loss, and how good its distribution is.

        crps      2 ∫ pinball_q dq over 0 < q < 1 (Gneiting & Raftery 2007), by the trapezoid rule over the deciles, or
                  over the quantiles that were learned; of a point it is the absolute error
        coverage  the share of values within the interval

    Args:
        seasonal: `[N, S]`, the unit of MASE.
        horizon: H.
        levels: the quantiles that crps is over, Q of them; none for a point.
        device: the model's.
    """

    def __init__(self, seasonal: Tensor, horizon: int, levels: tuple[float, ...], device: torch.device) -> None:
        self.levels = torch.tensor(levels, dtype=torch.float64)
        ends = torch.tensor((0.0, *levels, 1.0), dtype=torch.float64)
        self.weights = (ends[2:] - ends[:-2]) / 2  # the loss at 0 and at 1 is 0
        self.errors = Errors(seasonal, horizon, device)
        self.loss, self.crps, self.coverage = Mean(device), Mean(device), Mean(device)

    def add(
        self, mean: Tensor, quantiles: Tensor, interval: Tensor, loss: Tensor, target: Tensor, owners: Tensor
    ) -> None:
        """Take note of some windows.

        Args:
            mean, target: `[H, B, S]`.
            quantiles: `[Q, H, B, S]`.
            interval: `[2, H, B, S]`; none, `[0, ...]`, for a point whose errors are not known.
            loss: `[H, B, S]`.
            owners: `[B]`.
        """
        self.errors.update(mean, target, owners)
        known = ~target.isnan()
        self.loss.update(loss[known])
        value = target[known].cpu().double()
        if len(quantiles):
            error = value - quantiles[:, known].cpu().double()  # [Q, ...]
            levels = self.levels[:, None]
            self.crps.update(2 * self.weights @ torch.maximum(levels * error, (levels - 1) * error))
        if len(interval):
            low, high = interval[:, known].cpu().double()
            self.coverage.update(((low <= value) & (value <= high)).double())


def _summing(device: torch.device) -> torch.device:
    """Where sums are taken in float64, which Apple's GPUs have not."""
    return torch.device("cpu") if device.type == "mps" else device
