"""Series as the model reads them, and the windows over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...training.task import Share
from .recipe import Recipe
from .table import Rows

__all__ = ["History", "Window", "WindowBatches", "Windows"]

_NEVER = 2**62  # the row of a value that never comes


@dataclass(frozen=True)
class Window:
    """B windows and what follows them, z-scored.

    Args:
        past: `[C, B, S + P + F + K]`: series, what helps and is known up to now, what is known ahead, the calendar.
        future: `[H, B, F + K]`; None where nothing is known ahead.
        target: `[H, B, S]`, NaN where a value is missing.
        season: `[H, B, S]`, the seasonal naive forecast.
        origins: `[B]`, the first row ahead of each.
        owners: `[B]`, whose it is.
        seen: windows of the whole batch.
        weight: values ahead of the whole batch that are not missing.
    """

    past: Tensor
    future: Tensor | None
    target: Tensor
    season: Tensor
    origins: Tensor
    owners: Tensor
    seen: int
    weight: float

    def to(self, device: torch.device) -> Window:
        """The same on a device."""
        if device.type == "cpu":
            return self
        future = None if self.future is None else self.future.to(device)
        past, target, season = self.past.to(device), self.target.to(device), self.season.to(device)
        return Window(past, future, target, season, self.origins, self.owners, self.seen, self.weight)


class History:
    """Series one behind another, in the units of the model.

    A value that is missing is filled in by what was known at a window's end: on the line to the next one that is known
    where that stands in the window, else by the last one.

    Args:
        recipe: of the run.
        every: N series.
        ahead: rows behind the last of each, in which the future alone is known.

    Attributes:
        starts: `[N]`, the row in which each begins.
        stamps: N arrays, of the series' rows and of those ahead.
    """

    def __init__(self, recipe: Recipe, every: Sequence[Rows], ahead: int = 0) -> None:
        self.recipe = recipe
        self.every = every
        self.numbers = [recipe.number(rows) for rows in every]
        self.units = np.stack([np.stack(recipe.units(number)) for number in self.numbers])  # [N, 3, S]
        self.stamps = [_with_ahead(rows, recipe, ahead) for rows in every]
        lengths = [len(rows) + ahead for rows in every]
        self.starts = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()], dtype=torch.int64)
        lines: list[np.ndarray] = []
        lasts: list[np.ndarray] = []
        nexts: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        known: list[np.ndarray] = []
        for n, rows in enumerate(every):
            shift, scale, _ = self.units[n]
            count = len(recipe.columns.past)
            past = (rows.past - recipe.helper_shift[:count]) / recipe.helper_scale[:count]
            target = (rows.target - shift) / scale
            observed = np.concatenate((np.hstack((target, past)), np.full((ahead, target.shape[1] + count), np.nan)))
            line, last, following = _filled(observed)
            lines.append(line)
            lasts.append(last)
            nexts.append(np.where(following == _NEVER, _NEVER, following + int(self.starts[n])))
            targets.append(observed[:, : target.shape[1]])
            future = rows.future if recipe.columns.future else np.zeros((lengths[n], 0))
            future = (future[: lengths[n]] - recipe.helper_shift[count:]) / recipe.helper_scale[count:]
            known.append(np.hstack((_filled(future)[0], _calendar(recipe, self.stamps[n]))))
        self.target = _single(targets)  # [R, S]
        self.known = _single(known)  # [R, F + K]
        self._line = _single(lines)  # [R, S + P]
        self._whole = not any(np.isnan(rows.target).any() or np.isnan(rows.past).any() for rows in every)
        self._last = self._line if self._whole else _single(lasts)
        self._next = torch.from_numpy(np.concatenate(nexts))

    def observed(self, rows: Tensor, origins: Tensor) -> Tensor:
        """Series and what helps of rows `[T, B]`, as known before the origins `[B]`: `[T, B, S + P]`."""
        if self._whole:
            return self._line[rows]
        return torch.where(self._next[rows] < origins[None, :, None], self._line[rows], self._last[rows])

    def window(self, origins: Tensor, owners: Tensor, whole: Tensor | None = None) -> Window:
        """The windows before some rows, `[B]`.

        Args:
            origins, owners: of this part of a batch.
            whole: origins of the whole batch; None where this is it.
        """
        recipe = self.recipe
        steps = torch.arange(recipe.horizon)[:, None]
        back = origins + torch.arange(-recipe.context, 0)[:, None]  # [C, B]
        ahead = origins + steps  # [H, B]
        season = ahead - recipe.period * (steps // recipe.period + 1)
        width = self.target.shape[1]
        every = origins if whole is None else whole
        weight = len(every) * recipe.horizon * width
        if not self._whole:
            weight = int((~self.target[every + steps].isnan()).sum())
        return Window(
            torch.cat((self.observed(back, origins), self.known[back]), 2),
            self.known[ahead] if self.known.shape[1] else None,
            self.target[ahead],
            self.observed(season.clamp(min=0), origins)[..., :width],
            origins,
            owners,
            len(every),
            float(weight),
        )

    def windows(self, parts: Sequence[tuple[int, int]], lookback: int, stride: int) -> Windows:
        """Those whose values ahead lie in the parts, one of each series, with so many rows before them."""
        origins: list[Tensor] = []
        owners: list[Tensor] = []
        for n, (first, end) in enumerate(parts):
            own = torch.arange(max(first, lookback), max(first, lookback, end - self.recipe.horizon + 1), stride)
            origins.append(own + self.starts[n])
            owners.append(torch.full_like(own, n))
        return Windows(self, torch.cat(origins), torch.cat(owners))


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows over a history, by their origins and owners, each `[W]`."""

    history: History
    origins: Tensor
    owners: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def take(self, which: Tensor) -> Window:
        """Some of them."""
        return self.history.window(self.origins[which], self.owners[which])

    def in_order(self, share: Share, size: int) -> Iterator[Window]:
        """A share of them, so many at a time; one without windows where the share has none."""
        for which in torch.arange(len(self))[share.of(len(self))].split(size):
            yield self.take(which)


class WindowBatches:
    """Windows in batches, in an order that is drawn anew for each epoch.

    Args:
        windows: to train on.
        batch_size: windows in a batch; the last may be smaller.
        seed: from which the orders are drawn.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return (len(self.windows) + self.batch_size - 1) // self.batch_size

    def get(self, epoch: int, index: int, share: Share) -> Window:
        """A part of a batch; it may have no windows."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
            self._order = torch.randperm(len(self.windows), generator=generator)
            self._epoch = epoch
        batch = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        own = batch[share.of(len(batch))]
        windows = self.windows
        return windows.history.window(windows.origins[own], windows.owners[own], windows.origins[batch])


def _with_ahead(rows: Rows, recipe: Recipe, ahead: int) -> np.ndarray:
    stamps = rows.stamps[: len(rows)]
    if not ahead:
        return stamps
    following = recipe.frequency.ahead(stamps[-1], ahead)
    if rows.ahead and recipe.frequency.kind == "rows":
        following = rows.stamps[len(rows) :][:ahead]  # the file's own
    return np.concatenate((stamps.astype(following.dtype), following))


def _calendar(recipe: Recipe, stamps: np.ndarray) -> np.ndarray:
    """Sine and cosine of what the calendar says, `[T, K]`."""
    if not recipe.calendar:
        return np.zeros((len(stamps), 0))
    import pandas as pd

    times = pd.DatetimeIndex(stamps)
    turns = {
        "hour": (times.hour + times.minute / 60 + times.second / 3600) / 24,
        "weekday": times.day_of_week / 7,
        "month": (times.month - 1) / 12,
    }
    angles = [2 * np.pi * turns[word].to_numpy(dtype=float) for word in recipe.calendar]
    return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)


def _filled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values `[T, D]` on lines between those that are known; as the last known; and the row of the next known.

    Before the first known value of a column it is taken, behind the last one that.
    """
    rows = np.arange(len(values))[:, None]
    seen = ~np.isnan(values)
    after = np.where(seen, rows, _NEVER)
    following = np.minimum.accumulate(after[::-1], axis=0)[::-1]
    if seen.all():
        return values, values, following
    before = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    line, last = values.copy(), values.copy()
    for column in np.flatnonzero(seen.any(axis=0)).tolist():
        known = np.flatnonzero(seen[:, column])
        line[:, column] = np.interp(rows[:, 0], known, values[known, column])
        last[:, column] = values[np.where(before[:, column] < 0, known[0], before[:, column]), column]
    return line, last, following


def _single(parts: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
