"""Series so small that a forecaster of them trains in a blink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ostinato.tasks import evaluate, train
from ostinato.tasks.forecast.config import ForecastConfig
from ostinato.tasks.forecast.reading import Collection

HOURS = 400


def hourly(count: int = HOURS, start: str = "2020-01-01", frequency: str = "h") -> list[str]:
    """Stamps."""
    return [str(stamp) for stamp in pd.date_range(start, periods=count, freq=frequency)]


def wave(count: int = HOURS, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """A day's sine with noise."""
    draw = np.random.default_rng(seed)
    return 10 + 3 * np.sin(2 * np.pi * np.arange(count) / 24) + noise * draw.standard_normal(count)


def write(path: Path, **columns: Sequence[object]) -> Path:
    """A CSV table."""
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def wave_file(folder: Path, change: Callable[[np.ndarray], np.ndarray] = lambda y: y, count: int = HOURS) -> Path:
    """A table of one series."""
    return write(folder / "wave.csv", date=hourly(count), load=change(wave(count)))


def tiny(data: Path, **options: object) -> dict[str, object]:
    """Options of a run that trains in a blink; dropout makes it draw random numbers."""
    defaults: dict[str, object] = {
        "data": str(data),
        "context": 24,
        "horizon": 6,
        "hidden_size": 8,
        "batch_size": 64,
        "dropout": 0.1,
        "log_every": 2,
        "evaluations": 1,
        "eval_stride": 5,
        "epochs": 1,
        "seed": 3,
    }
    return defaults | options


def run(data: Path, out: Path, **options: object) -> Path:
    """Train; the run folder."""
    train("forecast", out=out, **tiny(data, **options))
    return out


def measured(data: Path, out: Path, **options: object) -> dict[str, float]:
    """Train, and evaluate on the test part."""
    return evaluate(run(data, out, **options))


def collection(path: Path, **options: object) -> Collection:
    """The series of such a run."""
    return Collection.read(ForecastConfig.of(**tiny(path, **options)))


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of a run that trains in a blink, and tests of figures do not look at them."""
    for name in ("task.draw_forecasts", "task.draw_errors"):
        monkeypatch.setattr(f"ostinato.tasks.forecast.{name}", lambda *_: None)
    monkeypatch.setattr("ostinato.training.loop.draw_curves", lambda *_: None)
