"""The picture of a run."""

from __future__ import annotations

import io
import math
from pathlib import Path

from .files import write_atomically
from .metrics import Row

__all__ = ["draw_loss"]

_MANY = 150  # points of the training loss, above which a mean is drawn over the single ones
_INK, _TRAIN, _HELD_OUT, _GRID = "#22313f", "#7aa6c2", "#c8553d", "#e4e8eb"


def draw_loss(path: Path, rows: list[Row], title: str) -> None:
    """Draw training and held-out loss against characters seen, as a PNG, written atomically.

    Args:
        path: the picture.
        rows: of `metrics.csv`.
        title: stands above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    train = [(row["characters"], row["train_bits"]) for row in rows if "train_bits" in row]
    held_out = [(row["characters"], row["validation_bits"]) for row in rows if "validation_bits" in row]
    figure = Figure(figsize=(8.0, 5.0), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.115, 0.895, 0.81))
    if train:
        many = len(train) > _MANY
        if many:
            axes.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=0.6, alpha=0.35)
        axes.plot(
            *zip(*(_smoothed(train) if many else train), strict=True),
            marker="." if len(train) == 1 else None,
            color=_TRAIN,
            linewidth=1.6,
            label="training",
        )
    if held_out:
        best = min(y for _, y in held_out)
        axes.plot(
            *zip(*held_out, strict=True),
            color=_HELD_OUT,
            linewidth=2.0,
            marker="o",
            markersize=5,
            markeredgecolor="white",
            label=f"held out, best {best:.3f} bits ({best * math.log(2):.3f} nats)",
        )
        axes.axhline(best, color=_HELD_OUT, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.6)
    axes.set_ylim(*_limits([y for _, y in train], [y for _, y in held_out]))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("characters seen", color=_INK)
    axes.set_ylabel("bits per character", color=_INK)
    axes.set_title(title, loc="left", color=_INK, fontsize=12)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GRID)
    if train or held_out:
        axes.legend(frameon=False, labelcolor=_INK, loc="upper right")
    image = io.BytesIO()
    figure.savefig(image, format="png", facecolor="white")
    write_atomically(path, image.getvalue())


def _smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of about a hundred and fifty stretches of equal length."""
    size = -(-len(points) // _MANY)
    pieces = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


def _limits(train: list[float], held_out: list[float]) -> tuple[float, float]:
    """The range worth looking at: the first steps, far above all that follows, may leave the picture."""
    values = train + held_out
    if not values:
        return 0.0, 1.0
    low = min(values)
    later = sorted(train[len(train) // 20 :] + held_out)
    high = max(later[int(0.98 * (len(later) - 1))], *held_out, low + 0.1)
    room = 0.08 * (high - low)
    return low - room, high + room
