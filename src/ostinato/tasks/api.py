"""Training a model: from data to a run folder, and from a run folder on. The command line calls these too."""

from __future__ import annotations

import os
import platform
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from .. import __version__
from ..errors import OptionError, RunError
from ..training.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from ..training.files import make_folder
from ..training.finder import Found, draw_search, find_rate
from ..training.interrupt import Interrupt
from ..training.loop import Trainer
from ..training.machine import agreed, check_layers, joined, make_fabric, placed
from ..training.report import Outcome, Reporter, RunInfo, Silent
from ..training.run_folder import RunFolder, check_new, is_run
from ..training.task import Task
from ..training.toml import read_toml
from .loading import read_entry
from .registry import Entry, find_task
from .run import Run

__all__ = ["find_learning_rate", "resume", "settle", "train"]


def train(
    task: str,
    data: Any = None,
    *,
    out: str | Path | None = None,
    cell: Any = None,
    config: str | Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train a model and write a run folder.

    Args:
        task: its name, as "text" or "classify".
        data: a file, a folder or a data set by name, as the task reads it.
        out: the run folder, new or empty unless `force`; None is `runs/` and the task's name.
        cell: a `Cell` of one's own, or a text that names one, as `"zoneout(lstm, 0.1)"`.
        config: a TOML file with options; those that are given here come before it.
        force: overwrite the run that `out` holds.
        reporter: is told what happens; None says nothing.
        options: any of `ostinato train TASK --help`, with underscores: `hidden_size=512, epochs=3`.

    Returns:
        the run; `run.outcome.finished` is False where Ctrl-C or SIGTERM stopped it.

    Raises:
        DataError: data that cannot be used.
        RunError: an option or a folder that cannot be used, a training that diverged, a full disk.

    >>> import tempfile
    >>> run = train("text", out=tempfile.mkdtemp(), max_characters=20_000, hidden_size=8, epochs=0.1)
    >>> run.outcome.finished, sorted(run.best)
    (True, ['bits', 'nats', 'perplexity'])
    """
    entry = find_task(task)
    settled, cell = settle(entry, data, cell, config, options)
    out = Path(out) if out is not None else Path("runs") / task
    fabric = make_fabric(settled.machine)
    with joined(fabric), ExitStack() as held:
        with agreed(fabric):
            if fabric.is_global_zero:
                check_new(out, force)
            begun = entry.task_type().begin(settled, cell)  # an error in it comes before anything is overwritten
            check_layers(begun.model, fabric)
            folder = held.enter_context(RunFolder(out)) if fabric.is_global_zero else None
            if folder is not None:
                check_new(out, force)  # again, for another run may have come and gone before the folder was ours
                folder.clear()
        return _fit(settled, begun, fabric, out, folder, reporter or Silent(), None)


def resume(out: str | Path, *, checkpoint: str = "last", reporter: Reporter | None = None, **changes: Any) -> Run:
    """Go on with a run exactly where its checkpoint stands: the losses are those of an uninterrupted run.

    Args:
        out: the run folder.
        checkpoint: "last", "best" or another's name.
        reporter: is told what happens; None says nothing.
        changes: those options that a resumed run may change, such as `epochs=20`.

    Raises:
        DataError: the data cannot be used.
        RunError: a damaged checkpoint, data that are not the run's, a change after which it is another run.

    >>> import tempfile
    >>> run = train("text", out=tempfile.mkdtemp(), max_characters=20_000, hidden_size=8, epochs=0.5)
    >>> resume(run.path, epochs=1).outcome.steps > run.outcome.steps
    True
    """
    out = Path(out)
    if not is_run(out):
        what = "is not a run folder" if out.exists() else f"does not exist (looked from {Path.cwd()})"
        raise RunError(f"{out} {what}, so there is nothing to resume; leave --resume out to begin a run there.")
    found = read_checkpoint(find_checkpoint(out, checkpoint))
    entry = read_entry(found, "task", find_task)
    settled: Any = read_entry(found, "config", entry.config_type().from_json).resumed(_absolute(changes))
    if placed(settled.machine) != settled.machine:
        begun = settled.machine.devices * settled.machine.nodes
        raise OptionError(f"the run was begun with {begun} process, torchrun started several; resume it without.")
    fabric = make_fabric(settled.machine)
    with joined(fabric), ExitStack() as held:
        with agreed(fabric):
            folder = held.enter_context(RunFolder(out)) if fabric.is_global_zero else None
            found = read_checkpoint(found.path)  # again, for it may have changed before the folder was ours
            task = entry.task_type().resume(settled, found)
            check_layers(task.model, fabric)
        return _fit(settled, task, fabric, out, folder, reporter or Silent(), found)


def find_learning_rate(
    task: str,
    data: Any = None,
    *,
    cell: Any = None,
    config: str | Path | None = None,
    picture: str | Path | None = None,
    **options: Any,
) -> Found:
    """Look for a learning rate by a hundred steps in which it grows (Smith 2017); nothing is kept of them.

    Args:
        task, data, cell, config, options: as `train` takes them.
        picture: draw the loss over the rate here, as a PNG.

    Returns:
        what was found: `rate`, where the loss falls fastest, is a good highest rate to try.

    Raises:
        DataError: data that cannot be used.
        RunError: an option that cannot be used, a picture that cannot be written, or too few steps to judge.

    >>> found = find_learning_rate("text", max_characters=20_000, hidden_size=8, batch_size=4, bptt=10)
    >>> 1e-6 < found.rate < 10.0
    True
    """
    entry = find_task(task)
    settled, cell = settle(entry, data, cell, config, options)
    if picture is not None:
        make_folder(Path(picture).parent)  # before the search: a place that cannot be written is said at once
    fabric = make_fabric(settled.machine)
    with joined(fabric):
        with agreed(fabric):
            begun = entry.task_type().begin(settled, cell)
        with Interrupt() as interrupt:
            found = find_rate(begun, fabric, settled.batching, settled.optimization, lambda: interrupt.requested)
    if picture is not None and fabric.is_global_zero:
        draw_search(found, Path(picture), f"{begun.title()}, on {begun.source()}")
    return found


def settle(entry: Entry, data: Any, cell: Any, config: str | Path | None, options: dict[str, Any]) -> tuple[Any, Any]:
    """The config that is asked for, on this machine, and the cell where it is one of the user's own; as `train`."""
    kind = entry.config_type()
    values = read_toml(Path(config), kind, entry.name) if config is not None else {}
    values |= options
    if data is not None:
        values["data"] = str(data)
    values = _absolute(values)
    if isinstance(cell, str):
        values["cell"], cell = cell, None
    elif cell is not None:
        values["cell"] = cell.name
    settled: Any = kind.of(**values)
    return settled.changed(vars(placed(settled.machine))), cell


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """The same options, with paths that lead to the data from anywhere: a run may be resumed from elsewhere."""
    paths = {name: values[name] for name in ("data", "test_data") if values.get(name)}
    return values | {name: os.path.abspath(path) for name, path in paths.items() if os.path.exists(path)}


def _fit(
    config: Any,
    task: Task,
    fabric: Fabric,
    out: Path,
    folder: RunFolder | None,
    reporter: Reporter,
    found: Checkpoint | None,
) -> Run:
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    about = {
        "ostinato": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "task": task.name,
        "title": f"{task.title()}, on {task.source()}",
        "parameters": parameters,
        "config": config.to_json(),
    }
    document = about | task.document()
    if folder is not None:
        folder.write_config(about | {"data": document["data"]}, config, task.name)
    else:
        reporter = Silent()
        torch.manual_seed(config.machine.seed + fabric.global_rank)  # each process draws its own masks
    trainer = Trainer(config, task, fabric, folder, reporter, document, found)
    reporter.started(
        RunInfo(
            out=out,
            facts=(f"{task.title()}: {parameters:,} parameters", *task.facts()),
            unit=task.unit,
            told_loss=lambda mean: task.told_training(task.training_measures(mean)),
            resumed_at=trainer.position.step if found else None,
            progress=trainer.progress(),
        )
    )
    try:
        with Interrupt() as interrupt:
            finished = trainer.fit(lambda: interrupt.requested)
    finally:
        trainer.close()
    outcome = _outcome(trainer, task, out, finished, parameters)
    reporter.ended(outcome)
    return Run(out, outcome)


def _outcome(trainer: Trainer, task: Task, out: Path, finished: bool, parameters: int) -> Outcome:
    position = trainer.position
    best = position.best_measures
    shown = shlex.quote(str(out))
    return Outcome(
        out=out,
        task=task.name,
        finished=finished,
        steps=position.step,
        seen=position.seen,
        unit=task.unit,
        seconds=position.seconds,
        parameters=parameters,
        best=best or None,
        best_step=position.best_step,
        best_told=task.told(best) if best else "",
        files=(("picture", f"{shown}/loss.png"), *task.next_steps(shown)),
    )
