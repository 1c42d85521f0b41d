"""The task classify: one label for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models import Classifier
from ...training.checkpoint import Checkpoint
from ...training.task import Loss, Panel, Share, Watched
from ..common.batches import RowBatches
from ..common.layers import make_encoder
from ..loading import build_model, check_same_data, read_entry
from .config import ClassifyConfig
from .data import Dataset, Part
from .pictures import draw_pictures
from .readers import reader_from_json
from .scores import Scores, scored

__all__ = ["Classify", "class_weights"]


@dataclass(frozen=True)
class Rows:
    """A part of a batch: inputs `[T, b]` or `[T, b, D]`, lengths and labels `[b]`, of so many sequences in all."""

    inputs: Tensor
    lengths: Tensor
    labels: Tensor
    seen: int

    @property
    def weight(self) -> float:
        """Every sequence is a term of the loss."""
        return float(self.seen)

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(self.inputs.to(device), self.lengths.to(device), self.labels.to(device), self.seen)


class Classify:
    """A classifier of sequences, trained by cross entropy.

    Args:
        config: the run's.
        dataset: its data.
        model: of their classes.
    """

    name = "classify"
    unit = "sequences"
    measures = ("accuracy", "macro_f1", "loss")
    panels = (
        Panel("accuracy", "accuracy", higher=True),
        Panel("macro_f1", "macro F1", higher=True),
        Panel("loss", "nats"),
    )

    def __init__(self, config: ClassifyConfig, dataset: Dataset, model: Classifier) -> None:
        self.config, self.dataset, self.model = config, dataset, model
        watch = config.objective.watch
        self.watched = Watched(watch, higher=watch != "loss", tie="loss")
        train = dataset.parts["train"]
        self.batches = RowBatches(
            train.sequences.lengths,
            config.batching.batch_size,
            config.machine.seed,
            lambda own, whole: collate(train, own, whole),
        )
        balanced = config.objective.class_weights == "balanced"
        self.weights = class_weights(train.targets, len(dataset.classes)) if balanced else None
        self._scores: Scores | None = None  # of the last evaluation

    @classmethod
    def begin(cls, config: ClassifyConfig, cell: Any = None) -> Classify:
        """A new model of the config's data.

        Args:
            config: what to train on what.
            cell: a `Cell` of one's own; None means the one that the config names.

        Raises:
            DataError: data that cannot be used.
            CellError, ShapeError: a model that cannot be made.
        """
        options = config.model
        dataset = Dataset.read(config)
        torch.manual_seed(config.machine.seed)
        encoder = make_encoder(options, dataset.reader.source(options), cell, config.machine.backend)
        model = Classifier(encoder, len(dataset.classes), options.pooling, options.head_dropout)
        return cls(config, dataset, model)

    @classmethod
    def resume(cls, config: ClassifyConfig, found: Checkpoint) -> Classify:
        """The task as a checkpoint left it; its weights are in the model.

        Raises:
            DataError, RunError: data that cannot be used, or others.
        """
        reader, classes = read_entry(found, "reading", reader_from_json), read_entry(found, "classes", tuple)
        dataset = Dataset.read(config, reader, classes)
        check_same_data(found, dataset.source, dataset.sha256)
        return cls(config, dataset, build_model(found, config.machine.backend, Classifier))

    def loss(self, model: nn.Module, batch: Rows, carried: Any) -> Loss:
        """Summed cross entropy of a part of a batch, with its weights and smoothing; plain nats are what is told."""
        objective = self.config.objective
        inputs = batch.inputs
        if inputs.is_floating_point() and objective.input_noise:
            inputs = inputs + objective.input_noise * torch.randn_like(inputs)
        if not inputs.is_floating_point() and objective.word_dropout:
            inputs = _without_words(inputs, objective.word_dropout)
        logits = model(inputs, batch.lengths)  # [B, K]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        nats = F.cross_entropy(logits, batch.labels, reduction="sum")
        weights = None if self.weights is None else self.weights.to(logits)
        total = nats
        if weights is not None or objective.label_smoothing:
            smoothing = objective.label_smoothing
            total = F.cross_entropy(logits, batch.labels, weights, reduction="sum", label_smoothing=smoothing)
        return Loss(total, nats.detach(), float(len(batch.labels)))

    def training_measures(self, mean: float) -> dict[str, float]:
        """Nats of a sequence."""
        return {"loss": mean}

    def evaluate(self, model: nn.Module, share: Share, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """Accuracy, macro F1 and nats of the validation part."""
        scores = scored(model, self.dataset.parts["validation"], len(self.dataset.classes), share, should_stop)
        self._scores = scores
        return None if scores is None else scores.measures()

    def illustrate(self, model: nn.Module, run: Path, step: int, best: bool) -> str:
        """Draw the pictures of the best evaluation; say what is mistaken most often."""
        if not best or self._scores is None:
            return ""
        draw_pictures(run / "pictures", self._scores, self.dataset.classes, f"{self.title()}, validation, step {step}")
        return _mistaken(self._scores, self.dataset.classes)

    def forget(self, run: Path, step: int) -> None:
        """Nothing: the pictures are those of the checkpoint `best`, which stays as well until a better one comes."""

    def told(self, measures: dict[str, float]) -> str:
        """All three."""
        return (
            f"validation {measures['accuracy']:.1%} right, macro F1 {measures['macro_f1']:.3f}, "
            f"{measures['loss']:.3f} nats"
        )

    def told_training(self, measures: dict[str, float]) -> str:
        """Nats."""
        return f"{measures['loss']:.3f} nats"

    def facts(self) -> Sequence[str]:
        """The data and their commonest class."""
        dataset = self.dataset
        lengths = dataset.parts["train"].sequences.lengths
        counts = torch.bincount(dataset.parts["train"].targets, minlength=len(dataset.classes))
        common = int(counts.argmax())
        share = f"{dataset.classes[common]!r} being {counts[common] / counts.sum():.0%}"
        return (
            f"{dataset.source}: {dataset.facts[0]}, {share}",
            f"{int(lengths.min())} to {int(lengths.max())} steps of {dataset.reader.fact()}",
            *dataset.facts[1:],
        )

    def title(self) -> str:
        """The model in a few words."""
        options = self.config.model
        return f"{self.model.cell_name}, {options.shape()}, {'+'.join(options.pooling)}"

    def source(self) -> str:
        """The data in a few words."""
        return self.dataset.source

    def document(self) -> dict[str, Any]:
        """The data's facts, the model's equations, how sequences are read, the classes."""
        return {
            "data": self.dataset.to_json(),
            "model": self.model.spec(),
            "reading": self.dataset.reader.to_json(),
            "classes": list(self.dataset.classes),
        }

    def next_steps(self, run: str) -> Sequence[tuple[str, str]]:
        """What may be done with the run."""
        part = "" if "test" in self.dataset.parts else " DATA"
        return (
            ("pictures", f"{run}/pictures"),
            ("evaluate", f"ostinato evaluate {run}{part}"),
            ("predict", f"ostinato predict {run} DATA"),
        )


def collate(part: Part, own: Tensor, whole: Tensor) -> Rows:
    """Sequences of these numbers side by side; those of no number have one step, for a model asks for one."""
    inputs, lengths = part.sequences.padded(own)
    if not len(own):
        inputs = inputs.new_zeros(1, *inputs.shape[1:])
    return Rows(inputs, lengths, part.targets[own], len(whole))


def _without_words(inputs: Tensor, rate: float) -> Tensor:
    """Tokens [T, B], some of them unknown; of spelled words [T, B, 1 + S] the spelling stays, as that of new ones."""
    numbers = inputs if inputs.dim() == 2 else inputs[..., 0]
    numbers = numbers.masked_fill(torch.rand(numbers.shape, device=inputs.device) < rate, 0)
    return numbers if inputs.dim() == 2 else torch.cat((numbers.unsqueeze(2), inputs[..., 1:]), 2)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """N / (K N_k): by these all classes weigh the same, and the mean over the sequences is 1; [K]."""
    counts = torch.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts.clamp(min=1))


def _mistaken(scores: Scores, classes: tuple[str, ...], most: int = 3) -> str:
    """The pairs that are mistaken most often."""
    wrong = scores.confusion().fill_diagonal_(0)
    values, places = wrong.flatten().topk(min(most, wrong.numel()))
    pairs = zip(values.tolist(), places.tolist(), strict=True)
    told = [f"{classes[n // len(classes)]} for {classes[n % len(classes)]} {count}" for count, n in pairs if count]
    return "taken wrongly: " + ", ".join(told) if told else "nothing is taken wrongly"
