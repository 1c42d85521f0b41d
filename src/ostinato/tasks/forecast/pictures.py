"""What forecasts look like: over the truth, and how they worsen with the steps ahead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...training.plots import ACCENT, INK, PLAIN, new_figure, save_figure, tidy
from .config import ForecastHead
from .foretell import foretell
from .frequency import shown
from .history import Windows
from .scores import Figures

__all__ = ["draw_errors", "draw_forecasts"]

_PANELS = 4
_WAYS = {"model": ("the model", ACCENT), "seasonal": ("seasonal naive", PLAIN), "naive": ("naive", INK)}
_BAND = 0.22  # opacity


def draw_forecasts(
    path: Path, model: nn.Module, windows: Windows, options: ForecastHead, seed: int, title: str
) -> None:
    """Draw the forecasts of some windows, with their intervals, over what came.

    Args:
        path: the picture, a PNG; written atomically.
        model: in evaluation mode, without gradients.
        windows: of which some are taken, from the first to the last.
        options: the interval, and how many paths are drawn.
        seed: of the paths.
        title: stands above.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    history = windows.history
    recipe = history.recipe
    count = min(_PANELS, len(windows))
    which = torch.linspace(0, len(windows) - 1, count).round().long()
    window = windows.take(which)
    device = next(model.parameters()).device
    told = foretell(model, window.to(device), options, seed, judged=False)
    mean, interval = told.mean.cpu().double().numpy(), told.interval.cpu().double().numpy()
    figure = new_figure(9.0, 1.0 + 2.3 * count)
    every = figure.subplots(count, 1, squeeze=False)[:, 0]
    back = min(recipe.context, 3 * recipe.horizon)
    for k, axes in enumerate(every):
        owner, column = int(window.owners[k]), k % mean.shape[2]
        rows, (shift, scale, _) = history.every[owner], history.units[owner][:, column]
        origin = int(window.origins[k] - history.starts[owner])
        place = slice(origin - back, origin + recipe.horizon)
        ahead = slice(origin, origin + recipe.horizon)
        stamps = history.stamps[owner] if recipe.frequency.kind != "rows" else np.arange(len(rows))
        axes.plot(stamps[place], rows.target[place, column], color=INK, linewidth=1.1, label="measured")
        season = shift + scale * window.season[:, k, column].numpy()
        axes.plot(stamps[ahead], season, color=PLAIN, linewidth=1.2, linestyle=(0, (3, 2)), label="seasonal naive")
        if len(interval):
            low, high = shift + scale * interval[:, :, k, column]
            label = f"{options.interval:.0%} interval"
            axes.fill_between(stamps[ahead], low, high, color=ACCENT, alpha=_BAND, linewidth=0, label=label)
        axes.plot(stamps[ahead], shift + scale * mean[:, k, column], color=ACCENT, linewidth=1.8, label="forecast")
        axes.axvline(stamps[origin], color=PLAIN, linewidth=0.8)
        name = f"{rows.name}, " if rows.name else ""
        axes.set_title(f"{name}from {shown(stamps[origin])} on", loc="left", color=INK, fontsize=9)
        axes.set_ylabel(recipe.columns.target[column], color=INK, fontsize=9)
        if stamps.dtype.kind == "M":
            locator = AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.margins(x=0.01)
        tidy(axes)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    _legend(figure, every[0])
    save_figure(figure, path)


def draw_errors(path: Path, figures: Mapping[str, Figures], title: str, unit: str) -> None:
    """Draw the errors over the steps ahead, the model's and those of the naive forecasts.

    Args:
        path: the picture, a PNG; written atomically.
        figures: of "model", "naive" and "seasonal".
        title: stands above.
        unit: of the values.
    """
    figure = new_figure(8.0, 5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    for name, (word, color) in _WAYS.items():
        found = figures[name]
        steps = np.arange(1, len(found.mse_by_step) + 1)
        style: dict[str, Any] = {"color": color, "marker": "o" if len(steps) < 2 else None}
        style |= {"linewidth": 2.0} if name == "model" else {"linewidth": 1.3, "linestyle": (0, (3, 2))}
        above.plot(steps, found.mse_by_step, label=f"{word}, mean {found.mse:.4g}", **style)
        below.plot(steps, found.mae_by_step, label=f"{word}, mean {found.mae:.4g}", **style)
    for axes, label in ((above, "mean squared error"), (below, "mean absolute error")):
        axes.set_ylabel(label, color=INK)
        axes.set_ylim(bottom=0)
        tidy(axes)
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    above.set_title(title, loc="left", color=INK, fontsize=12)
    below.set_xlabel(f"steps ahead; values {unit}", color=INK)
    below.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, labelcolor=INK, fontsize=9, ncols=len(labels), loc="outside lower left"
    )
