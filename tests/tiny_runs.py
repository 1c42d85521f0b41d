"""A run so small that it trains in a blink, and how two runs are compared."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import torch

from ostinato.tasks import resume, train
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from ostinato.training.report import Outcome, Silent

TEXT = "".join(f"{i} bottles of beer on the wall, {i} bottles of beer.\n" for i in range(30))[:1200]


def tiny(folder: Path, **options: object) -> dict[str, object]:
    """Options of a run that trains in a blink; dropout makes it draw random numbers."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(TEXT)
    defaults = {
        "data": str(text),
        "hidden_size": 8,
        "num_layers": 2,
        "embedding_size": 6,
        "dropout": 0.2,
        "batch_size": 4,
        "bptt": 8,
        "log_every": 3,
        "eval_every": 25,
        "sample_length": 12,
        "seed": 5,
    }
    if "minutes" not in options:
        defaults["epochs"] = 1
    return defaults | options


def begin(options: dict[str, object], out: Path, **more: object) -> Outcome:
    """Train a text model; how it ended."""
    return train("text", out=out, **(options | more)).outcome


def go_on(out: Path, **changes: object) -> Outcome:
    """Go on with a run; how it ended."""
    return resume(out, **changes).outcome


def losses(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv as they are written, without the clock."""
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return read_checkpoint(find_checkpoint(run, name)).tensors


def same_run(a: Path, b: Path) -> None:
    """All that two runs say of the training is the same, to the last bit."""
    assert losses(a) == losses(b)
    for name in ("last", "best"):
        left, right = weights(a, name), weights(b, name)
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), key
    samples = sorted(path.name for path in (a / "samples").iterdir())
    assert samples == sorted(path.name for path in (b / "samples").iterdir())
    for name in samples:
        assert (a / "samples" / name).read_text() == (b / "samples" / name).read_text()


class StopAt(Silent):
    """Sends itself Ctrl-C after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stepped(self, progress: float, seen: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
