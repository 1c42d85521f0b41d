"""Pictures of what a classifier gets wrong, and of how far its confidence can be trusted."""

from __future__ import annotations

from pathlib import Path

import torch

from ...training.plots import ACCENT, GRID, INK, PLAIN, new_figure, save_figure, tidy
from .scores import BINS, Scores

__all__ = ["draw_confusion", "draw_pictures", "draw_reliability"]

_WRITTEN = 20  # classes up to which each field is written, ...
_NAMED = 60  # ... and up to which each is named


def draw_pictures(folder: Path, scores: Scores, classes: tuple[str, ...], title: str) -> None:
    """Draw `confusion.png` and `reliability.png` into a folder."""
    draw_confusion(folder / "confusion.png", scores, classes, title)
    draw_reliability(folder / "reliability.png", scores, title)


def draw_confusion(path: Path, scores: Scores, classes: tuple[str, ...], title: str) -> None:
    """Draw how often each class was taken for each; the colour is the share of the true class.

    Args:
        path: a PNG; written atomically.
        scores: of labelled sequences.
        classes: their names.
        title: stands above.
    """
    from matplotlib.colors import LinearSegmentedColormap

    confusion = scores.confusion()  # [K, K]
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    k = len(classes)
    side = min(max(4.2, 1.9 + 0.42 * k), 14.0)
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(
        shares.numpy(), cmap=LinearSegmentedColormap.from_list("share", ["white", PLAIN, INK]), vmin=0, vmax=1
    )
    if k <= _WRITTEN:
        size = 8 if confusion.max() < 1000 else 7
        for row, column in confusion.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.5 else INK
            count = int(confusion[row, column])
            shown = axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
            shown.set_in_layout(False)  # it stands within the axes; to ask each for its size takes long
    places = range(k) if k <= _NAMED else ()
    names = [classes[n] if len(classes[n]) <= 20 else classes[n][:19] + "…" for n in places]
    rotation = 90 if max(map(len, names), default=0) > 2 else 0
    axes.set_xticks(places, names, rotation=rotation, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.tick_params(colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.6)
    bar.outline.set_edgecolor(GRID)  # pyright: ignore[reportCallIssue]
    measures = scores.measures()
    axes.set_title(
        f"{title}\naccuracy {measures['accuracy']:.1%}, macro F1 {measures['macro_f1']:.3f}, "
        f"{len(scores.labels):,} sequences",
        loc="left",
        color=INK,
        fontsize=9,
    )
    save_figure(figure, path)


def draw_reliability(path: Path, scores: Scores, title: str) -> None:
    """Draw how often guesses of each confidence were right, and how many there were (Guo et al. 2017).

    Args:
        path: a PNG; written atomically.
        scores: of labelled sequences.
        title: stands above.
    """
    count, confidence, accuracy = (each.tolist() for each in scores.reliability())
    figure = new_figure(5.0, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middles = ((torch.arange(BINS) + 0.5) / BINS).tolist()
    some = [n for n in range(BINS) if count[n]]
    above.bar([middles[n] for n in some], [accuracy[n] for n in some], 0.92 / BINS, color=PLAIN, label="right")
    above.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=(0, (4, 4)), label="as confident as right")
    above.plot(
        [confidence[n] for n in some],
        [accuracy[n] for n in some],
        color=ACCENT,
        linestyle="none",
        marker="o",
        markersize=6,
        markeredgecolor="white",
        clip_on=False,
        label="mean confidence of a bin",
    )
    above.set_ylim(0, 1)
    above.set_ylabel("share that is right", color=INK)
    above.set_title(
        f"{title}\nexpected calibration error {scores.calibration_error():.3f}", loc="left", color=INK, fontsize=9
    )
    below.bar(middles, count, 0.92 / BINS, color=PLAIN)
    below.set_yscale("log")  # in most bins are few
    below.minorticks_off()
    below.set_ylim(bottom=0.7)
    below.set_ylabel("sequences", color=INK)
    below.set_xlabel("confidence", color=INK)
    below.set_xlim(0, 1)
    for axes in (above, below):
        tidy(axes)
    figure.legend(frameon=False, labelcolor=INK, fontsize=8, loc="outside lower center", ncols=3)
    save_figure(figure, path)
