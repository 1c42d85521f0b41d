"""The training loop: truncated backpropagation through time, with the state carried over."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from ..data import Streams, Vocabulary
from ..errors import RunError
from ..models import LanguageModel, State, detach_state
from .checkpoint import Checkpoint, write_checkpoint
from .config import TrainConfig
from .evaluation import HeldOut
from .metrics import EventFile, Metrics, bits
from .plots import draw_loss
from .report import Reporter
from .run_folder import RunFolder
from .sampling import generate
from .schedule import Budget, learning_rate_at

__all__ = ["Position", "Trainer"]


@dataclass
class Position:
    """Where a training stands; with the tensors, all that going on exactly needs."""

    step: int = 0
    epoch: int = 0
    chunk: int = 0  # the next one to read
    characters: int = 0
    seconds: float = 0.0  # over every time the run was resumed
    loss_sum: float = 0.0  # nats since the last row of metrics.csv
    loss_characters: int = 0
    learning_rate: float = 0.0  # of the last step
    gradient_norm: float = 0.0  # of the last step, before clipping
    evaluated_step: int = 0
    evaluated_tenth: int = 0  # of the budget, at the last evaluation
    best_nats: float | None = None


class Trainer:
    """One run at work. `fit` is the loop; what it calls stands below it in the order of calling.

    Args:
        config: the run's.
        model: on the CPU; it is moved to the config's device.
        vocabulary: of the text.
        streams: the training text.
        held_out: the held-out text.
        run: where everything is written.
        reporter: is told what happens.
        describe: what else goes into each checkpoint's JSON, as plain values.
        checkpoint: where to go on, or None.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        vocabulary: Vocabulary,
        streams: Streams,
        held_out: HeldOut,
        run: RunFolder,
        reporter: Reporter,
        describe: dict[str, Any],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config, self.vocabulary, self.streams, self.held_out = config, vocabulary, streams, held_out
        self.run, self.reporter, self.describe = run, reporter, describe
        self.budget = Budget.of(config.epochs, config.minutes, streams.chunks_per_epoch)
        self.fabric = Fabric(accelerator=_accelerator(config.device), devices=1)
        self.plain_model = model
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.fabric.device.type in ("cpu", "cuda"),
        )
        self.model, self.optimizer = self.fabric.setup(model, optimizer)
        self.position = Position()
        self.state: State | None = None
        if checkpoint is not None:
            self._restore(checkpoint)
        self.metrics = Metrics.load(run.path / "metrics.csv", self.position.step)
        run.drop_samples_after(self.position.step)
        self.events = EventFile(run.path, purge_step=self.position.step + 1 if checkpoint else None)
        self._began = time.monotonic() - self.position.seconds
        self._saved = self._evaluated = time.monotonic()
        self._evaluating = 0.0  # seconds the last evaluation took

    def progress(self) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        return self.budget.progress(self.position.step, self.position.seconds)

    def fit(self, should_stop: Callable[[], bool]) -> bool:
        """Train until the budget is spent, or until `should_stop` says so; True where it was spent.

        Either way `last` holds where it stood. After an error the checkpoint before it stands.

        Raises:
            RunError: the training diverged, or a file could not be written.
        """
        self._began = time.monotonic() - self.position.seconds
        if self.position.step == 0:
            self._save(["last"])  # so that there is something to resume from, whenever it is killed
        self.model.train()
        while not should_stop():
            if self._evaluation_is_due():
                self._evaluate(should_stop)
            elif self.progress() >= 1.0:
                return True
            else:
                self._step()
                if self.position.step % self.config.log_every == 0:
                    self.metrics.add(self._place() | self._training_loss())
                if time.monotonic() - self._saved >= self.config.save_every:
                    self._save(["last"])
        self._save(["last"])
        return self.progress() >= 1.0 and not self._evaluation_is_due()

    def _step(self) -> None:
        config, position = self.config, self.position
        inputs, targets = self.streams.chunk(position.epoch, position.chunk)  # [T, B]
        inputs, targets = self.fabric.to_device((inputs, targets))
        rate = learning_rate_at(self.progress(), config.learning_rate, config.warmup, config.final_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits, state = self.model(inputs, detach_state(self.state))  # [T, B, V]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=config.clip or math.inf, error_if_nonfinite=False
        )
        assert norm is not None  # it is, when a norm is asked for
        nats = self._finite("loss", loss)
        position.learning_rate, position.gradient_norm = rate, self._finite("norm of the gradient", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        position.step += 1
        position.characters += targets.numel()
        position.loss_sum += nats * targets.numel()
        position.loss_characters += targets.numel()
        position.seconds = time.monotonic() - self._began
        position.chunk += 1
        self.state = state
        if position.chunk == self.streams.chunks_per_epoch:
            position.epoch, position.chunk, self.state = position.epoch + 1, 0, None
        self.reporter.stepped(self.progress(), position.characters, nats)

    def _finite(self, what: str, value: Tensor) -> float:
        number = float(value.detach())
        if not math.isfinite(number):
            raise RunError(
                f"the {what} is {number} at step {self.position.step + 1}: the training diverged. Train "
                f"again with a lower --learning-rate or --clip; the checkpoint before is in {self.run.path}."
            )
        return number

    def _place(self) -> dict[str, float]:
        """The columns of metrics.csv that say when."""
        position = self.position
        return {
            "step": position.step,
            "epoch": position.epoch + position.chunk / self.streams.chunks_per_epoch,
            "characters": position.characters,
            "seconds": round(position.seconds, 3),
        }

    def _training_loss(self) -> dict[str, float]:
        """The columns that say how the training went since they were last asked for."""
        position = self.position
        nats = position.loss_sum / position.loss_characters
        position.loss_sum, position.loss_characters = 0.0, 0
        rates = {"learning_rate": position.learning_rate, "gradient_norm": position.gradient_norm}
        self.events.add(position.step, {"loss/train_bits": bits(nats), **rates})
        return rates | {"train_nats": nats, "train_bits": bits(nats)}

    def _evaluation_is_due(self) -> bool:
        position, every = self.position, self.config.eval_every
        if position.step == position.evaluated_step:
            return False
        if self.progress() >= 1.0:
            return True
        if every is not None:
            return position.step % every == 0
        if int(10 * self.progress()) <= position.evaluated_tenth:
            return False
        # in a run ended by the clock, slow evaluations take at most a fifth of the time
        return self.budget.seconds is None or time.monotonic() - self._evaluated >= 4 * self._evaluating

    def _evaluate(self, should_stop: Callable[[], bool]) -> None:
        position = self.position
        begun = time.monotonic()
        nats = self.held_out.nats(self.plain_model, should_stop)
        if nats is None:
            return  # interrupted: a resumed run evaluates at this very step
        if not math.isfinite(nats):
            raise RunError(f"the held-out loss is {nats} at step {position.step}: the training diverged.")
        best = position.best_nats is None or nats < position.best_nats
        if best:
            position.best_nats = nats
        position.evaluated_step, position.evaluated_tenth = position.step, int(10 * self.progress())
        row = self._place() | {"validation_nats": nats, "validation_bits": bits(nats)}
        trained = [old["train_bits"] for old in self.metrics.rows if "train_bits" in old]
        if not trained:  # a mean over few steps is better than none; later ones wait for `log_every` steps
            row |= self._training_loss()
            trained = [row["train_bits"]]
        self.metrics.add(row)
        self.events.add(position.step, {"loss/validation_bits": bits(nats)})
        sample = "".join(
            generate(
                self.plain_model,
                self.vocabulary,
                length=self.config.sample_length,
                temperature=_SAMPLE_TEMPERATURE,
                seed=self.config.seed,  # the same draws each time, so that what changes is the model
            )
        )
        self.model.train()
        self.run.write_sample(position.step, sample)
        # The best first: a kill in between must not leave a `last` that believes in a best never written.
        self._save(["best", "last"] if best else ["last"])
        draw_loss(self.run.path / "loss.png", self.metrics.rows, self.describe["title"])
        self.reporter.evaluated({"train_bits": trained[-1]} | row, sample, best)
        self._evaluated = time.monotonic()
        self._evaluating = self._evaluated - begun

    def _save(self, names: list[str]) -> None:
        self.position.seconds = time.monotonic() - self._began
        carried = () if self.state is None else self.state if isinstance(self.state, tuple) else (self.state,)
        tensors = {f"model.{name}": value for name, value in self.plain_model.state_dict().items()}
        for name, value in tensors.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise RunError(
                    f"{name} is not finite at step {self.position.step}: the training diverged. Train again "
                    f"with a lower --learning-rate; the checkpoint before it stands in {self.run.path}."
                )
        for name, parameter in self.plain_model.named_parameters():
            for key, value in self.optimizer.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors |= {f"carried.{i}": value for i, value in enumerate(carried)}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.fabric.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        document = self.describe | {
            "position": dataclasses.asdict(self.position),
            "carried": "none" if self.state is None else "tuple" if isinstance(self.state, tuple) else "tensor",
        }
        self.metrics.write()  # before the checkpoint: rows too many are cut off later, rows too few are lost
        write_checkpoint(self.run.checkpoints, names, document, tensors)
        self._saved = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        document = checkpoint.document
        self.position = Position(**document["position"])
        before = document["config"]
        if (before["epochs"], before["minutes"]) != (self.config.epochs, self.config.minutes):
            self.position.evaluated_tenth = int(10 * self.progress())  # tenths of another budget now
        for name, parameter in self.plain_model.named_parameters():
            for key, value in checkpoint.part(f"optimizer.{name}").items():
                self.optimizer.optimizer.state[parameter][key] = value.to(parameter.device)
        parts = checkpoint.part("carried")
        carried = tuple(parts[str(i)].to(self.fabric.device) for i in range(len(parts)))
        self.state = {"none": None, "tensor": carried[0] if carried else None, "tuple": carried}[document["carried"]]
        random = checkpoint.part("random")
        torch.set_rng_state(random["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.fabric.device)


_SAMPLE_TEMPERATURE = 0.8


def _accelerator(device: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device, False):
        here = ", ".join(name for name, there in available.items() if there)
        raise RunError(f"device {device!r} is not here; torch sees {here}: pass one of these, or auto.")
    return device
