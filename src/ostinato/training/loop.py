"""The training loop: the same for every task."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from ..errors import RunError
from .checkpoint import Checkpoint, write_checkpoint
from .config import Batching, Evaluation, Length, Machine, Optimization
from .keeping import restore, snapshot
from .metrics import EventFile, Metrics
from .plots import draw_curves
from .report import Reporter
from .run_folder import RunFolder
from .schedule import Budget, momentum_at, rate_at
from .stepper import Stepper
from .task import WHOLE, Share, Task

__all__ = ["Position", "Settings", "Trainer"]


class Settings(Protocol):
    """The groups of a config that the loop reads; each task's config has them beside its own."""

    @property
    def length(self) -> Length: ...
    @property
    def batching(self) -> Batching: ...
    @property
    def optimization(self) -> Optimization: ...
    @property
    def evaluation(self) -> Evaluation: ...
    @property
    def machine(self) -> Machine: ...


@dataclass
class Position:
    """Where a training stands; with the tensors, all that going on exactly needs."""

    step: int = 0
    epoch: int = 0
    index: int = 0  # of the next batch of the epoch
    seen: int = 0  # in the task's unit
    seconds: float = 0.0  # over every time the run was resumed
    loss_sum: float = 0.0  # since the last row of metrics.csv
    loss_weight: float = 0.0
    learning_rate: float = 0.0  # of the last step
    gradient_norm: float = 0.0  # of the last step, before clipping
    evaluated_step: int = 0
    evaluated_part: int = 0  # of the budget, at the last evaluation
    best: float | None = None  # of the measure that is watched
    best_step: int = 0
    best_measures: dict[str, float] = dataclasses.field(default_factory=dict)  # all of them, then
    since_best: int = 0  # evaluations
    since_decay: int = 0  # evaluations without a better one, for the schedule plateau
    decays: int = 0
    averaging: bool = False


class Trainer:
    """One run at work. `fit` is the loop; what it calls stands below it in the order of calling.

    In a distributed run each process has a Trainer; the first alone has a run folder and writes.

    Args:
        config: the run's.
        task: with its data and its model.
        fabric: launched.
        run: where everything is written; None in a process that does not write.
        reporter: is told what happens.
        describe: what else goes into each checkpoint's JSON, as plain values.
        checkpoint: where to go on, or None.
    """

    def __init__(
        self,
        config: Settings,
        task: Task,
        fabric: Fabric,
        run: RunFolder | None,
        reporter: Reporter,
        describe: dict[str, Any],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config, self.task, self.fabric = config, task, fabric
        self.run, self.reporter, self.describe = run, reporter, describe
        self.budget = Budget.of(config.length.epochs, config.length.minutes, len(task.batches))
        self.position = Position()
        self.stepper = Stepper(task, fabric, config.batching, config.optimization)
        if checkpoint is not None:
            self._restore(checkpoint)
        if run is not None:
            columns = _columns(task)
            self.metrics = Metrics.load(run.path / "metrics.csv", columns, self.position.step)
            task.forget(run.path, self.position.step)
            self.events = EventFile(run.path, purge_step=self.position.step + 1 if checkpoint else None)
        self._began = time.monotonic() - self.position.seconds
        self._saved = self._evaluated = time.monotonic()
        self._evaluating = 0.0  # seconds the last evaluation took
        self._stop = False

    def close(self) -> None:
        """Close the files."""
        if self.run is not None:
            self.events.close()

    def progress(self) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        return self.budget.progress(self.position.step, self.position.seconds)

    def is_spent(self) -> bool:
        """Whether the budget is, or the patience."""
        patience = self.config.length.patience
        return self.progress() >= 1.0 or (patience is not None and self.position.since_best >= patience)

    def fit(self, should_stop: Callable[[], bool]) -> bool:
        """Train until the budget or the patience is spent, or until `should_stop` says so; True where it was spent.

        Either way `last` holds where it stood. After an error the checkpoint before it stands.

        Raises:
            RunError: the training diverged, or a file could not be written.
        """
        self._began = time.monotonic() - self.position.seconds
        if self.position.step == 0:
            self._save(["last"])  # so that there is something to resume from, whenever it is killed
        self.stepper.model.train()
        while not self._agreed(should_stop):
            if self._evaluation_is_due():
                self._evaluate(should_stop)
            elif self.is_spent():
                return True
            else:
                self._step()
                self._after_step()
        self._save(["last"])
        return self.is_spent() and not self._evaluation_is_due()

    def _agreed(self, should_stop: Callable[[], bool]) -> bool:
        """Whether to stop: what any process was told, all of them do, at the same step; and one clock counts."""
        self._stop = should_stop()
        if self.fabric.world_size == 1:
            return self._stop
        said = torch.tensor([float(self._stop), self.position.seconds], dtype=torch.float64, device=self.fabric.device)
        torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX)
        self._stop, self.position.seconds = bool(said[0]), float(said[1])
        return self._stop

    def _step(self) -> None:
        optimization, position = self.config.optimization, self.position
        if optimization.average == "ema" or (
            optimization.average == "swa" and self.progress() >= optimization.average_from
        ):
            position.averaging = True
        self.stepper.averaging = position.averaging
        if optimization.schedule == "step":
            position.decays = int(self._epochs() / optimization.decay_every)
        rate = rate_at(optimization, self.progress(), position.decays)
        try:
            done = self.stepper.step(position.epoch, position.index, rate, momentum_at(optimization, self.progress()))
        except RunError as error:
            where = f" The checkpoint before is in {self.run.path}." if self.run else ""
            raise RunError(f"step {position.step + 1}: {error} {_LOWER}{where}") from None
        position.learning_rate, position.gradient_norm = rate, done.gradient_norm
        position.step += 1
        position.seen += done.seen
        position.loss_sum += done.terms
        position.loss_weight += done.weight
        position.seconds = time.monotonic() - self._began
        position.index += 1
        if position.index == len(self.task.batches):
            position.epoch, position.index = position.epoch + 1, 0
            self.stepper.forget()
        self.reporter.stepped(self.progress(), position.seen, done.terms / max(done.weight, 1.0))

    def _after_step(self) -> None:
        """Rows and checkpoints that are due."""
        position, evaluation = self.position, self.config.evaluation
        if position.step % evaluation.log_every == 0:
            self._add_row(self._training_loss())
        due = time.monotonic() - self._saved >= evaluation.save_every
        if self.fabric.world_size > 1:
            due = bool(self.fabric.broadcast(due))  # the first process's clock counts: a checkpoint needs all
        if evaluation.keep_every is not None and position.step % evaluation.keep_every == 0:
            self._save([f"step-{position.step:08d}", "last"])
        elif due:
            self._save(["last"])

    def _epochs(self) -> float:
        return self.position.epoch + self.position.index / len(self.task.batches)

    def _add_row(self, row: dict[str, float]) -> None:
        if self.run is None:
            return
        position = self.position
        self.metrics.add(
            {
                "step": position.step,
                "epoch": self._epochs(),
                self.task.unit: position.seen,
                "seconds": round(position.seconds, 3),
            }
            | row
        )

    def _training_loss(self) -> dict[str, float]:
        """The columns that say how the training went since they were last asked for."""
        position = self.position
        total, weight = self._summed_loss()
        position.loss_sum, position.loss_weight = 0.0, 0.0
        rates = {"learning_rate": position.learning_rate, "gradient_norm": position.gradient_norm}
        measures = self.task.training_measures(total / weight) if weight else {}
        if self.run is not None:
            self.events.add(position.step, {f"train/{name}": v for name, v in measures.items()} | rates)
        return rates | {f"train_{name}": value for name, value in measures.items()}

    def _summed_loss(self) -> tuple[float, float]:
        """The loss of all processes since the last row, and its weight."""
        position = self.position
        if self.fabric.world_size == 1:
            return position.loss_sum, position.loss_weight
        sums = torch.tensor([position.loss_sum, position.loss_weight], dtype=torch.float64, device=self.fabric.device)
        total, weight = map(float, WHOLE.summed(sums))
        return total, weight

    def _evaluation_is_due(self) -> bool:
        position, evaluation = self.position, self.config.evaluation
        if position.step == position.evaluated_step:
            return False
        if self.is_spent():
            return True
        if evaluation.eval_every is not None:
            return position.step % evaluation.eval_every == 0
        if int(evaluation.evaluations * self.progress()) <= position.evaluated_part:
            return False
        if self.budget.seconds is None:
            return True
        # in a run ended by the clock, slow evaluations take at most a fifth of the time
        rested = time.monotonic() - self._evaluated >= 4 * self._evaluating
        return bool(self.fabric.broadcast(rested)) if self.fabric.world_size > 1 else rested

    def _evaluate(self, should_stop: Callable[[], bool]) -> None:
        position = self.position
        begun = time.monotonic()
        several = self.fabric.world_size > 1
        with self.stepper.evaluating() as model:
            share = Share(self.fabric.global_rank, self.fabric.world_size)
            # Processes that read different shares could not agree midway, so they read them to the end.
            measures = self.task.evaluate(model, share, (lambda: False) if several else should_stop)
            if measures is None:
                return  # interrupted: a resumed run evaluates at this very step
            best = self._judge(measures)
            row = {f"validation_{name}": value for name, value in measures.items()}
            if position.step < self.config.evaluation.log_every:
                row |= self._training_loss()  # a mean over few steps is better than none; later ones wait for their row
            self._add_row(row)
            shown = ""
            if self.run is not None:
                self.events.add(position.step, {f"validation/{name}": value for name, value in measures.items()})
                shown = self.task.illustrate(model, self.run.path, position.step, best)
        # The best first: a kill in between must not leave a `last` that believes in a best never written.
        self._save(["best", "last"] if best else ["last"])
        if self.run is not None:
            draw_curves(
                self.run.path / "loss.png", self.metrics.rows, self.task.unit, self.task.panels, self.describe["title"]
            )
            trained = [old for old in self.metrics.rows if any(name.startswith("train_") for name in old)]
            self.reporter.evaluated(
                position.step,
                position.seen,
                self.task.told(measures),
                self.task.told_training(_without(trained[-1], "train_")) if trained else "",
                shown,
                best,
            )
        self._evaluated = time.monotonic()
        self._evaluating = self._evaluated - begun

    def _judge(self, measures: dict[str, float]) -> bool:
        """Take note of an evaluation: is it the best, shall the rate decay, shall a mean begin?"""
        position, optimization = self.position, self.config.optimization
        watched = self.task.watched
        value = measures[watched.name]
        if not math.isfinite(value):
            raise RunError(f"step {position.step}: the validation's {watched.name} is {value}. {_LOWER}")
        best = watched.better(measures, position.best_measures)
        position.evaluated_step = position.step
        position.evaluated_part = int(self.config.evaluation.evaluations * self.progress())
        if best:
            position.best, position.best_step, position.best_measures = value, position.step, dict(measures)
            position.since_best = position.since_decay = 0
            return True
        position.since_best += 1
        position.since_decay += 1
        if optimization.schedule == "plateau" and position.since_decay >= optimization.plateau:
            position.decays, position.since_decay = position.decays + 1, 0
        if optimization.average == "asgd" and position.since_best >= optimization.nonmono:
            position.averaging = True
        return False

    def _save(self, names: list[str]) -> None:
        self.position.seconds = max(self.position.seconds, time.monotonic() - self._began)
        taken = snapshot(self.stepper, self.fabric)
        position = dataclasses.replace(self.position)
        position.loss_sum, position.loss_weight = self._summed_loss()
        self._saved = time.monotonic()
        if taken is None or self.run is None:
            return
        tensors, carried = taken
        for name, value in tensors.items():
            if name.startswith("model.") and value.is_floating_point() and not torch.isfinite(value).all():
                raise RunError(
                    f"{name} is not finite at step {self.position.step}: the training diverged. {_LOWER} "
                    f"The checkpoint before it stands in {self.run.path}."
                )
        document = self.describe | {"position": dataclasses.asdict(position), "carried": carried}
        self.metrics.write()  # before the checkpoint: rows too many are cut off later, rows too few are lost
        write_checkpoint(self.run.checkpoints, names, document, tensors)
        self._saved = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.position = Position(**checkpoint.document["position"])
        if not self.fabric.is_global_zero:
            self.position.loss_sum = self.position.loss_weight = 0.0  # the first process has the sums of all
        restore(self.stepper, self.fabric, checkpoint)
        self.stepper.averaging = self.position.averaging
        length, evaluation = self.config.length, self.config.evaluation
        before = checkpoint.document["config"]
        now = (length.epochs, length.minutes, evaluation.evaluations)
        if (before["length"]["epochs"], before["length"]["minutes"], before["evaluation"]["evaluations"]) != now:
            # parts of another budget now
            self.position.evaluated_part = int(evaluation.evaluations * self.progress())


_LOWER = "Train again with a lower --learning-rate or --clip."


def _columns(task: Task) -> tuple[str, ...]:
    trained = tuple(f"train_{name}" for name in task.training_measures(0.0))
    validated = tuple(f"validation_{name}" for name in task.measures)
    return ("step", "epoch", task.unit, "seconds", "learning_rate", "gradient_norm", *trained, *validated)


def _without(row: dict[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
