"""What a model makes of a part, drawn: a confusion of tags, a piano roll, a stretch of a signal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...training.files import write_atomically
from ...training.plots import ACCENT, GRID, INK, PLAIN, new_figure, save_figure, tidy
from .measures import EventGatherer, Gatherer, TagGatherer, logits_of
from .peaks import Matched, heart_rate, match
from .scheme import Part, Scheme
from .windows import Windows

__all__ = ["illustrate"]

_SHOWN = 25  # tags of a confusion, at most
_FRAMES = 120  # of a piano roll, at most
_SECONDS = 10.0  # of a signal


def illustrate(
    model: nn.Module,
    scheme: Scheme,
    part: Part,
    gatherer: Gatherer,
    measures: Mapping[str, float],
    pictures: Path,
    tables: Path,
) -> None:
    """Draw a part, and write down what is better read in numbers.

    Args:
        model: in evaluation mode.
        scheme: of its data.
        part: with its answers.
        gatherer: which has gathered all of it.
        measures: those that it gave.
        pictures: a folder.
        tables: a folder.
    """
    if isinstance(gatherer, TagGatherer):
        table = gatherer.confusion
        _draw_confusion(pictures / "confusion.png", table, scheme.labels)
        rows = [[name, *row] for name, row in zip(scheme.labels, table.tolist(), strict=True)]
        _write_table(tables / "confusion.csv", ["true \\ given", *scheme.labels], rows)
    elif isinstance(gatherer, EventGatherer):
        _illustrate_events(gatherer, measures["threshold"], pictures, tables)
    else:
        _draw_roll(pictures / "roll.png", model, scheme, part)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([header, *rows])
    write_atomically(path, stream.getvalue())


# ---------------------------------------------------------------- tags


def _draw_confusion(path: Path, table: Tensor, labels: Sequence[str]) -> None:
    """The most frequent tags: each row is a true tag, its colours the shares of what was given."""
    kept = table.sum(1).argsort(descending=True, stable=True)[:_SHOWN].sort().values
    names = [labels[n] for n in kept.tolist()]
    counts = table[kept][:, kept]
    shares = counts / table[kept].sum(1, keepdim=True).clamp(min=1)
    side = 2.2 + 0.34 * len(names)
    figure = new_figure(max(4.5, side + 0.8), max(4.0, side))
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            if count:
                ink = "white" if shares[i, j] > 0.55 else INK
                axes.text(j, i, _short(count), ha="center", va="center", fontsize=6, color=ink)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=7, color=INK)
    axes.set_xlabel("given", color=INK)
    axes.set_ylabel("true", color=INK)
    right, total = int(table.diag().sum()), int(table.sum())
    rest = f", {len(names)} most frequent of {len(labels)}" if len(names) < len(labels) else ""
    axes.set_title(f"{right:,} of {total:,} tags right{rest}", loc="left", color=INK, fontsize=10)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true tag", shrink=0.8)
    save_figure(figure, path)


def _short(count: float) -> str:
    return f"{count:.0f}" if count < 1000 else f"{count / 1000:.3g}k"


# ---------------------------------------------------------------- several labels


def _draw_roll(path: Path, model: nn.Module, scheme: Scheme, part: Part) -> None:
    """A sequence of middling length, what is true above what the model holds likely."""
    assert part.answers is not None
    n = int(part.inputs.lengths.argsort(stable=True)[len(part) // 2])
    one = Part(part.found, part.rows[[n]], part.inputs.take([n]), part.answers.take([n]))
    with torch.no_grad():
        logits = logits_of(model, Windows(one).piece(torch.tensor([0])))  # [T, K]
    likely = logits.sigmoid().cpu().T[:, :_FRAMES].numpy()  # [K, T]
    true = part.answers[n].T[:, :_FRAMES].numpy()
    used = np.flatnonzero(true.any(1) | (likely > 0.1).any(1))
    low, high = (int(used[0]), int(used[-1])) if len(used) else (0, len(true) - 1)
    figure = new_figure(9.0, 6.0)
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    what = "frame" if scheme.next_frame else "step"
    titles = ("what is true", f"what the model holds likely{', from the frames before' if scheme.next_frame else ''}")
    image = None
    for axes, values, title in ((above, true, titles[0]), (below, likely, titles[1])):
        image = axes.imshow(
            values, aspect="auto", origin="lower", interpolation="nearest", cmap="Blues", vmin=0.0, vmax=1.0
        )
        axes.set_ylim(low - 0.5, high + 0.5)
        every = max(1, (high - low + 1) // 12)
        ticks = range(low, high + 1, every)
        axes.set_yticks(list(ticks), [scheme.labels[k] for k in ticks], fontsize=7, color=INK)
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.set_ylabel("key" if scheme.next_frame else "label", color=INK)
        axes.tick_params(colors=INK, length=0)
        for spine in axes.spines.values():
            spine.set_color(GRID)
    below.set_xlabel(f"{what} of sequence {part.names()[n]}", color=INK)
    figure.colorbar(image, ax=[above, below], label="probability", shrink=0.6)
    save_figure(figure, path)


# ---------------------------------------------------------------- events


def _illustrate_events(gatherer: EventGatherer, threshold: float, pictures: Path, tables: Path) -> None:
    part = gatherer.part
    found = [samples[heights >= threshold] for samples, heights in gatherer.peaks()]
    truth = [part.events(n).numpy() for n in range(len(part))]
    matched = [match(t, f, gatherer.tolerance) for t, f in zip(truth, found, strict=True)]
    wrong = [len(m.missed) + len(m.false) for m in matched]
    n = int(np.argmax(wrong))
    _draw_signal(pictures / "events.png", gatherer, n, found[n], matched[n], threshold)
    header = ["record", "events", "detections", "missed", "false", "timing_error_ms", "rate", "rate_detected"]
    rows: list[list[Any]] = []
    for name, t, f, m in zip(part.names(), truth, found, matched, strict=True):
        apart = np.abs(t[m.pairs[:, 0]] - f[m.pairs[:, 1]])
        timing = round(float(apart.mean()) * 1000.0 / gatherer.rate, 2) if len(apart) else ""
        rates = [round(heart_rate(x, gatherer.rate), 3) for x in (t, f)]
        rows.append([name, m.events, m.detections, len(m.missed), len(m.false), timing, *rates])
    _write_table(tables / "records.csv", header, rows)


def _draw_signal(
    path: Path, gatherer: EventGatherer, n: int, found: np.ndarray, matched: Matched, threshold: float
) -> None:
    """Ten seconds of a record where its faults are most, or its first where there is none."""
    part, rate, frame = gatherer.part, gatherer.rate, gatherer.frame
    truth = part.events(n).numpy()
    channels = part.found.inputs.values.shape[1]
    signal = part.inputs[n].reshape(-1, channels)[:, 0].numpy()
    faults = np.sort(np.concatenate([truth[matched.missed], found[matched.false]]))
    long = _SECONDS * rate
    near = [int((np.abs(faults - fault) < long / 2).sum()) for fault in faults]
    middle = float(faults[int(np.argmax(near))]) if near else 0.0
    start = float(np.clip(middle - long / 2, 0, max(0.0, len(signal) - long)))
    stop = min(start + long, float(len(signal)))
    figure = new_figure(10.0, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
    within = slice(int(start), int(stop))
    above.plot(np.arange(within.start, within.stop) / rate, signal[within], color=INK, linewidth=0.8)
    own = matched.pairs[:, 0]
    groups = (
        ("found", truth[own], PLAIN, "o"),
        ("missed", truth[matched.missed], ACCENT, "v"),
        ("false alarm", found[matched.false], ACCENT, "x"),
    )
    roof = float(signal[within].max())
    high = roof + 0.12 * (roof - float(signal[within].min()) + 1e-9)
    for word, samples, color, marker in groups:
        shown = samples[(samples >= start) & (samples < stop)]
        label = f"{word}, {len(samples):,} in the record"
        above.plot(shown / rate, np.full(len(shown), high), marker, color=color, markersize=6, label=label)
    p = gatherer.probabilities.cpu().split(part.inputs.lengths.tolist())[n].numpy()
    steps = np.arange(int(start) // frame, min(len(p), -(-int(stop) // frame)))
    below.plot((steps + 0.5) * frame / rate, p[steps], color=INK, linewidth=1.0)
    below.axhline(threshold, color=ACCENT, linewidth=0.9, linestyle=(0, (4, 4)), label=f"threshold {threshold:.2g}")
    below.set_ylim(0.0, 1.02)
    below.set_xlim(start / rate, stop / rate)
    below.set_ylabel("probability", color=INK)
    below.set_xlabel("seconds", color=INK)
    above.set_ylabel("signal", color=INK)
    above.set_title(
        f"record {part.names()[n]}: {len(own):,} of {len(truth):,} events found, {len(matched.false)} false alarms",
        loc="left",
        color=INK,
        fontsize=10,
    )
    for axes in (above, below):
        tidy(axes)
    above.legend(frameon=False, labelcolor=INK, loc="upper right", ncols=3, fontsize=7, bbox_to_anchor=(1.0, 1.14))
    below.legend(frameon=False, labelcolor=INK, loc="upper right", fontsize=7)
    save_figure(figure, path)
