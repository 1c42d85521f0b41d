"""The picture of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import write_atomically
from .metrics import Row
from .task import Panel

__all__ = ["ACCENT", "GRID", "INK", "PLAIN", "draw_curves", "new_figure", "save_figure", "tidy"]

INK, PLAIN, ACCENT, GRID = "#22313f", "#7aa6c2", "#c8553d", "#e4e8eb"
_MANY = 150  # points of the training loss, above which a mean is drawn over the single ones


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches, drawn without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """The look of every picture: a light grid, no box."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    image = io.BytesIO()
    figure.savefig(image, format="png", facecolor="white")
    write_atomically(path, image.getvalue())


def draw_curves(path: Path, rows: Sequence[Row], unit: str, panels: Sequence[Panel], title: str) -> None:
    """Draw measures of the training and of the validation against how much was seen, one above the other.

    Args:
        path: the picture, a PNG; written atomically.
        rows: of `metrics.csv`.
        unit: the column that counts what was seen.
        panels: from the top.
        title: stands above them.
    """
    figure = new_figure(8.0, 5.0 if len(panels) == 1 else 3.2 * len(panels))
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(every, panels, strict=True):
        _draw(axes, rows, unit, panel)
    every[0].set_title(title, loc="left", color=INK, fontsize=12)
    every[-1].set_xlabel(f"{unit} seen", color=INK)
    save_figure(figure, path)


def _draw(axes: Any, rows: Sequence[Row], unit: str, panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter

    train = _points(rows, unit, f"train_{panel.measure}")
    validation = _points(rows, unit, f"validation_{panel.measure}")
    if train:
        many = len(train) > _MANY
        if many:
            axes.plot(*zip(*train, strict=True), color=PLAIN, linewidth=0.6, alpha=0.35)
        axes.plot(
            *zip(*(_smoothed(train) if many else train), strict=True),
            marker="." if len(train) == 1 else None,
            color=PLAIN,
            linewidth=1.6,
            label="training",
        )
    if validation:
        values = [y for _, y in validation]
        best = max(values) if panel.higher else min(values)
        axes.plot(
            *zip(*validation, strict=True),
            color=ACCENT,
            linewidth=2.0,
            marker="o",
            markersize=5,
            markeredgecolor="white",
            label=f"validation, best {best:.4g}",
        )
        axes.axhline(best, color=ACCENT, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.6)
    axes.set_ylim(*_limits([y for _, y in train], [y for _, y in validation], panel.higher))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(panel.label, color=INK)
    tidy(axes)
    if train or validation:
        axes.legend(frameon=False, labelcolor=INK, loc="lower right" if panel.higher else "upper right")


def _points(rows: Sequence[Row], unit: str, name: str) -> list[tuple[float, float]]:
    return [(row[unit], row[name]) for row in rows if name in row]


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of about a hundred and fifty stretches of equal length."""
    size = -(-len(points) // _MANY)
    pieces = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


def _limits(train: list[float], validation: list[float], higher: bool) -> tuple[float, float]:
    """The range worth looking at: the first steps, far off from all that follows, may leave the picture."""
    if higher:
        low, high = _limits([-y for y in train], [-y for y in validation], False)
        return -high, -low
    values = train + validation
    if not values:
        return 0.0, 1.0
    low = min(values)
    later = sorted(train[len(train) // 20 :] + validation)
    high = max(later[int(0.98 * (len(later) - 1))], *validation, low + 1e-3 * max(1.0, abs(low)))
    room = 0.08 * (high - low)
    return low - room, high + room
