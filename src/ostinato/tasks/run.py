"""A run: its folder, and what can be asked of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..training.checkpoint import FORMAT, find_checkpoint, read_checkpoint
from ..training.files import write_json
from ..training.options import Config
from ..training.report import Outcome
from ..training.run_folder import is_run
from .loading import any_model, read_entry
from .registry import Entry, find_task

__all__ = ["Run", "find_runs"]

_ABOUT = {"format", "ostinato", "task", "title", "parameters", "config"}


class Run:
    """A run folder.

    Args:
        path: the folder.
        outcome: how its training ended, where it ended just now.

    Raises:
        RunError: there is none.

    >>> import tempfile
    >>> from ostinato import train
    >>> out = tempfile.mkdtemp()
    >>> _ = train("text", out=out, max_characters=20_000, hidden_size=8, epochs=0.1)
    >>> run = Run(out)
    >>> run.about["task"], run.config.values()["hidden_size"], run.position["step"]
    ('text', 8, 1)
    >>> abs(run.evaluate(part="validation")["nats"] - run.best["nats"]) < 1e-5
    True
    """

    def __init__(self, path: str | Path, outcome: Outcome | None = None) -> None:
        self.path = Path(path)
        self.outcome = outcome
        if outcome is None:
            find_checkpoint(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` says: versions, the task, its title, its data, its number of parameters.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "run.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{path} cannot be read: {reason}; pass the folder of a run.") from None
        if not isinstance(about, dict) or _ABOUT - about.keys():
            raise RunError(f"{path} is not what a training writes; --resume writes it anew from the checkpoint.")
        if about["format"] != FORMAT:
            raise RunError(
                f"{path} is of format {about['format']!r}, this Ostinato reads format {FORMAT}; use the version that "
                f"wrote it ({about['ostinato']})."
            )
        return about

    @property
    def task(self) -> Entry:
        """Its task."""
        return find_task(self.about["task"])

    @property
    def config(self) -> Config:
        """What it was told."""
        return self.task.config_type().from_json(self.about["config"])

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of `metrics.csv`, each with the columns it has a value for."""
        path = self.path / "metrics.csv"
        try:
            with open(path, newline="", encoding="utf-8") as stream:
                return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read: {error}.") from None

    def model(self, checkpoint: str | None = None, backend: str = "auto") -> Any:
        """The trained model, in evaluation mode; its cell is the Program in the checkpoint: no one's code is run.

        Args:
            checkpoint: "best", "last" or another's name; None is the best, or the last while there is no best.
            backend: which backend runs it here.

        Raises:
            RunError: missing, damaged, or of another format.
        """
        return any_model(read_checkpoint(find_checkpoint(self.path, checkpoint)), backend).eval()

    @property
    def position(self) -> dict[str, Any]:
        """Where its training stands, as the last checkpoint says: `step`, `seconds`, `best_measures` and more."""
        return read_entry(read_checkpoint(find_checkpoint(self.path, "last")), "position", dict)

    @property
    def best(self) -> dict[str, float]:
        """The measures of the best evaluation; none before the first."""
        return dict(self.position["best_measures"])

    def test(self) -> dict[str, float]:
        """The measures of its test part; `results.json` keeps them, and the same weights are not measured twice."""
        measures = self.results
        if not measures:
            from .use import evaluate

            step = self.position["best_step"]
            measures = evaluate(self.path, part="test", pictures=self.path / "pictures" / "test")
            write_json(self._results, {"part": "test", "checkpoint": "best", "step": step, "measures": measures})
        return measures

    @property
    def results(self) -> dict[str, float]:
        """The measures of its test part, where it was read with the weights that are the best now; else none."""
        if not self._results.exists():
            return {}
        try:
            held = json.loads(self._results.read_text(encoding="utf-8"))
            measures = dict(held["measures"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._results} cannot be read: {error}; remove it.") from None
        return measures if held.get("step") == self.position["best_step"] else {}  # a resumed run may have better ones

    @property
    def _results(self) -> Path:
        return self.path / "results.json"

    def evaluate(self, data: Any = None, **options: Any) -> dict[str, float]:
        """How well it does: `ostinato.tasks.evaluate` with this run."""
        from .use import evaluate

        return evaluate(self.path, data, **options)

    def predict(self, data: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """What it says of new data: `ostinato.tasks.predict` with this run."""
        from .use import predict

        return predict(self.path, data, **options)


def find_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in some folders, each a run itself or a folder that holds some, at any depth.

    Raises:
        RunError: a folder that is not there, or no run in any.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunError(f"there is no folder {folder} (looked from {Path.cwd()}); pass a run or a folder of runs.")
        found += [folder] if is_run(folder) else sorted(path.parent for path in folder.rglob("run.json"))
    runs = [Run(path) for path in dict.fromkeys(found) if any((path / "checkpoints").glob("*.safetensors"))]
    if not runs:
        raise RunError(f"there is no run in {', '.join(map(str, folders))}; ostinato train makes one.")
    return runs
