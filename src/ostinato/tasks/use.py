"""Using a trained model: evaluate it, predict with it. The command line calls these too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import OptionError
from ..training.checkpoint import find_checkpoint, read_checkpoint
from ..training.devices import found_device
from .loading import read_entry
from .predictor import PARTS, HasIntervals, Predictor
from .registry import find_task

__all__ = ["evaluate", "measure", "open_predictor", "predict"]


def open_predictor(
    run: str | Path,
    checkpoint: str | None = None,
    backend: str = "auto",
    device: str = "cpu",
    interval: float | None = None,
) -> Predictor:
    """A trained model with what reads its data.

    Args:
        run: a run folder or a `.safetensors` file of one.
        checkpoint: "best", "last" or another's name; None is the best, or the last while there is no best.
        backend, device: where it runs; the device is "cpu", "cuda", "mps", or "auto" for the best there is.
        interval: the share of the values that the intervals of forecasts are to hold; None is what the run was told.

    Raises:
        RunError: missing, damaged, or of another format.
        OptionError: an interval that the run has not, or a device that is not here.
    """
    found = read_checkpoint(find_checkpoint(Path(run), checkpoint))
    entry = read_entry(found, "task", find_task)
    predictor = entry.predictor_type().load(found, backend, torch.device(found_device(device)))
    if interval is None:
        return predictor
    if not isinstance(predictor, HasIntervals):
        raise OptionError(f"interval is {interval:g}, but the task {entry.name} has no intervals; leave it out.")
    return predictor.with_interval(interval)


def evaluate(
    run: str | Path,
    data: Any = None,
    *,
    part: str = "test",
    checkpoint: str | None = None,
    backend: str = "auto",
    device: str = "cpu",
    pictures: str | Path | None = None,
    interval: float | None = None,
) -> dict[str, float]:
    """How well a trained model does.

    Args:
        run: a run folder or a `.safetensors` file of one.
        data: a file, a folder, an open stream, or "-" for standard input; None takes a part of the run's own data.
        part: of the run's own data: "train", "validation" or "test".
        checkpoint, backend, device, interval: as `open_predictor` takes them.
        pictures: a folder, made if it is not there, to draw into; None draws nothing.

    Returns:
        the task's measures by name.

    Raises:
        DataError: data that cannot be used.
        RunError: a run that cannot be used, or data that are others than it was trained with.

    >>> import tempfile
    >>> from ostinato import train
    >>> run = train("text", out=tempfile.mkdtemp(), max_characters=20_000, hidden_size=8, epochs=0.1)
    >>> evaluate(run.path, part="validation")["characters"]
    2000.0
    """
    return measure(open_predictor(run, checkpoint, backend, device, interval), data, part, pictures)


def measure(
    predictor: Predictor, data: Any = None, part: str = "test", pictures: str | Path | None = None
) -> dict[str, float]:
    """The measures of a predictor that is open; the arguments are those of `evaluate`."""
    if part not in PARTS:
        raise OptionError(f"part is {part!r}; pass one of {', '.join(PARTS)}.")
    if pictures is not None and not predictor.draws:
        raise OptionError("this task has no pictures of an evaluation; leave --pictures out.")
    held = predictor.own(part) if data is None else predictor.read(_source(data))
    if pictures is not None:
        try:
            Path(pictures).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(
                f"pictures is {pictures}, which cannot be a folder: {error.strerror}; pass another."
            ) from None
    return predictor.evaluate(held, None if pictures is None else Path(pictures))


def predict(
    run: str | Path,
    data: Any,
    *,
    checkpoint: str | None = None,
    backend: str = "auto",
    device: str = "cpu",
    interval: float | None = None,
) -> Iterator[dict[str, Any]]:
    r"""What a trained model says of new data: the rows of a table, as they come.

    Args:
        run: a run folder or a `.safetensors` file of one.
        data: a file, a folder, an open stream, or "-" for standard input.
        checkpoint, backend, device, interval: as `open_predictor` takes them.

    Raises:
        DataError: data that cannot be used.
        RunError: a run that cannot be used.

    >>> import io, tempfile
    >>> from ostinato import train
    >>> run = train("text", out=tempfile.mkdtemp(), max_characters=20_000, hidden_size=8, epochs=0.1)
    >>> [(row["line"], row["text"]) for row in predict(run.path, io.StringIO("import os\nimport sys"))]
    [(1, 'import os'), (2, 'import sys')]
    """
    predictor = open_predictor(run, checkpoint, backend, device, interval)
    return predictor.predict(predictor.read(_source(data)))


def _source(data: Any) -> Any:
    if data == "-":
        return sys.stdin.buffer
    return data if hasattr(data, "read") else str(data)
