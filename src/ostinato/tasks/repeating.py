"""The same training several times: with other seeds, over the folds of a cross-validation."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError, RunError
from ..training.files import write_atomically
from ..training.processes import is_first
from ..training.report import Reporter
from ..training.run_folder import is_run
from .api import resume, settle, train
from .registry import find_task
from .run import Run

__all__ = ["Repeated", "repeat"]


@dataclass(frozen=True)
class Repeated:
    """Several runs of one training.

    Args:
        path: the folder that holds theirs.
        runs: in order; those that were finished.
        rows: what each was told and reached: `run`, `seed`, `fold`, and measures by name, those of the test part where
            it was read and else of the validation part; of several processes that train together, the first has them.
        part: which part the measures are of.
        finished: False where it was interrupted.
    """

    path: Path
    runs: Sequence[Run]
    rows: Sequence[dict[str, Any]]
    part: str
    finished: bool

    def mean(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (of a sample; 0 of one run) of each measure."""
        names = [name for name in (self.rows[0] if self.rows else {}) if name not in ("run", "seed", "fold")]
        found: dict[str, tuple[float, float]] = {}
        for name in names:
            values = [float(row[name]) for row in self.rows]
            found[name] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        return found


def repeat(
    task: str,
    data: Any = None,
    *,
    out: str | Path | None = None,
    seeds: int = 1,
    with_test: bool = True,
    force: bool = False,
    go_on: bool = False,
    reporter: Reporter | None = None,
    told: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Repeated:
    """Train with each of some seeds, and on each fold where the task has `folds` and no `fold` is chosen.

    Each is a run of its own, in `out/seed-0`, or `out/fold-3-seed-0`. `out/summary.csv` has a row for each.

    Args:
        task, data, force, reporter, options: as `train` takes them, among the options `cell` and `config`.
        out: the folder of all; None is `runs/` and the task's name.
        seeds: how many: `seed`, `seed + 1`, ...
        with_test: evaluate each with its test part, once, when it is finished.
        go_on: keep the runs in `out` that are finished, go on with one that is not, and begin those that are missing.
        told: is told a line before each run and after it.

    Raises:
        DataError, RunError: as `train`.

    >>> import tempfile
    >>> many = {"max_characters": 20_000, "hidden_size": 8, "epochs": 0.1}
    >>> done = repeat("text", out=tempfile.mkdtemp(), seeds=2, with_test=False, **many)
    >>> [row["seed"] for row in done.rows], sorted(done.mean())
    ([0, 1], ['bits', 'nats', 'perplexity'])
    """
    entry = find_task(task)
    if seeds < 1:
        raise OptionError(f"seeds is {seeds}; pass 1 or more.")
    if with_test and not entry.has_test:
        raise OptionError(f"{task} has no test part; pass with_test=False.")
    own = {name: value for name, value in options.items() if name not in ("cell", "config")}
    first, _ = settle(entry, data, options.get("cell"), options.get("config"), own)
    values: dict[str, Any] = first.values()
    folds: Any = range(values["folds"]) if values.get("folds") and values.get("fold") is None else [values.get("fold")]
    path = Path(out) if out is not None else Path("runs") / task
    if is_run(path):
        raise RunError(f"{path} is a run itself; pass another --out for several.")
    runs: list[Run] = []
    rows: list[dict[str, Any]] = []
    many = list(itertools.product(folds, range(values["seed"], values["seed"] + seeds)))
    for number, (fold, seed) in enumerate(many, start=1):
        name = f"seed-{seed}" if fold is None else f"fold-{fold}-seed-{seed}"
        if is_first():
            told(f"{number} of {len(many)}: {name}")
        chosen: dict[str, Any] = options | {"seed": seed} | ({} if fold is None else {"fold": fold})
        each = path / name
        if go_on and is_run(each):
            run = resume(each, reporter=reporter)
        else:
            run = train(task, data, out=each, force=force, reporter=reporter, **chosen)
        if run.outcome is not None and not run.outcome.finished:
            return Repeated(path, runs, rows, "test" if with_test else "validation", False)
        runs.append(run)
        if not is_first():
            continue
        measures = run.test() if with_test else run.best
        rows.append({"run": name, "seed": seed} | ({} if fold is None else {"fold": fold}) | measures)
        _write(path / "summary.csv", rows)
    return Repeated(path, runs, rows, "test" if with_test else "validation", True)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
