"""The task label: an answer at every step, or the moments at which something happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...models import FeatureInput, Tagger, TokenInput
from ...training.checkpoint import Checkpoint
from ...training.task import Loss, Panel, Share, Watched
from ..common.layers import make_encoder
from ..loading import build_model, check_same_data, read_entry
from .config import EventOptions, LabelConfig
from .found import Found
from .measures import EventGatherer, Gatherer, MultiGatherer, TagGatherer, gather, summed_loss, told
from .parts import split
from .pictures import illustrate
from .read import read_training
from .scheme import Part, Scheme
from .windows import Piece, WindowBatches, Windows

__all__ = ["Label", "make_gatherer", "make_windows"]

_EVENT_WINDOW, _EVENT_CONTEXT = 500, 100  # steps


def make_windows(config: LabelConfig, kind: str, part: Part) -> Windows:
    """A part in the windows that a config asks for."""
    size = config.reading.window or (_EVENT_WINDOW if kind == "events" else None)
    context = config.reading.context
    if context is None:
        context = 0 if size is None else _EVENT_CONTEXT
    return Windows(part, size, context, context if config.model.bidirectional else 0)


def make_gatherer(
    scheme: Scheme,
    part: Part,
    options: EventOptions,
    device: torch.device,
    threshold: float | None = None,
) -> Gatherer:
    """What measures a part of this kind."""
    if scheme.kind == "events":
        return EventGatherer(part, scheme, options, device, threshold)
    return TagGatherer(scheme.num_labels, device) if scheme.kind == "tags" else MultiGatherer(device)


class Label:
    """A tagger of sequences.

    Args:
        config: the run's.
        found: its data.
        scheme: how they become numbers.
        model: a number for each label at every step.
    """

    name = "label"
    unit = "steps"

    def __init__(self, config: LabelConfig, found: Found, scheme: Scheme, model: Tagger) -> None:
        self.config, self.found, self.scheme, self.model = config, found, scheme, model
        rows = split(config, found)
        self.parts = {name: scheme.part(found, own) for name, own in rows.items() if name != "test"}
        self.test_sequences = len(rows["test"])
        self.batches = WindowBatches(
            make_windows(config, scheme.kind, self.parts["train"]),
            config.batching.batch_size,
            config.machine.seed,
            config.steps.transpose,
            config.reading.gain,
            config.reading.flip,
        )
        self.validation = make_windows(config, scheme.kind, self.parts["validation"])
        self.measures: Sequence[str] = {
            "tags": TagGatherer.names,
            "multi": MultiGatherer.names,
            "events": EventGatherer.names,
        }[scheme.kind]
        watch = config.label.watch
        if watch == "auto":
            watch = {"tags": "accuracy", "multi": "nll", "events": "f1"}[scheme.kind]
        self.watched = Watched(watch, higher=watch != "nll", tie="nll")
        if watch not in self.measures:
            raise OptionError(f"watch is {watch!r}, which events do not have; pass nll or f1.")
        nats = Panel(
            "nll", f"nats a step, over {scheme.num_labels} labels" if scheme.kind == "multi" else "nats a step"
        )
        second = Panel("f1", "F1", True) if scheme.kind == "events" else Panel("accuracy", "accuracy", True)
        self.panels = (nats, second)
        self._last: tuple[Gatherer, dict[str, float]] | None = None  # evaluation

    @classmethod
    def begin(cls, config: LabelConfig, cell: Any = None) -> Label:
        """A new model of the config's data.

        Args:
            config: what to train on what.
            cell: a `Cell` of one's own; None means the one that the config names.

        Raises:
            DataError: data that cannot be used.
            OptionError: options that do not fit them.
            CellError, ShapeError: a model that cannot be made.
        """
        found = read_training(config)
        train = split(config, found)["train"]
        scheme = Scheme.of(config, found, train)
        _check(config, scheme)
        torch.manual_seed(config.machine.seed)
        options = config.model
        source = (
            FeatureInput(scheme.input_size, options.projection_size)
            if scheme.width
            # The vector of what is unknown is 0, as is that of a word that is dropped in training.
            else TokenInput(len(scheme.words) + 1, options.embedding_size, 0, config.steps.word_dropout)
        )
        model = Tagger(
            make_encoder(options, source, cell, config.machine.backend), scheme.num_labels, options.head_dropout
        )
        _begin_at_base_rates(model, scheme.part(found, train))
        return cls(config, found, scheme, model)

    @classmethod
    def resume(cls, config: LabelConfig, found: Checkpoint) -> Label:
        """The task as a checkpoint left it; its weights are in the model.

        Raises:
            DataError, RunError: data that cannot be used, or other data.
        """
        data = read_training(config)
        check_same_data(found, data.name, data.sha256())
        scheme = read_entry(found, "scheme", Scheme.from_json)
        return cls(config, data, scheme, build_model(found, config.machine.backend, Tagger))

    def loss(self, model: nn.Module, batch: Piece, carried: Any) -> Loss:
        """Summed nats of the steps that count."""
        inputs, noise = batch.inputs, self.config.reading.input_noise
        if noise and model.training:
            inputs = inputs + noise * torch.randn_like(inputs)
        logits, _ = model(inputs, batch.lengths)  # [T, B, K]
        assert batch.answers is not None
        own = batch.counted(logits)  # [n, K]
        nats = summed_loss(self.scheme.kind, own, batch.counted(batch.answers))
        return Loss(nats, nats, float(len(own)))

    def training_measures(self, mean: float) -> dict[str, float]:
        """Nats a step."""
        return {"nll": mean}

    def evaluate(self, model: nn.Module, share: Share, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """The measures of the validation part."""
        device = next(model.parameters()).device
        part, options = self.parts["validation"], self.config.events
        gatherer = make_gatherer(self.scheme, part, options, device, options.threshold)
        measures = gather(model, self.validation, gatherer, share, should_stop)
        self._last = None if measures is None else (gatherer, measures)
        return measures

    def illustrate(self, model: nn.Module, run: Path, step: int, best: bool) -> str:
        """Draw what the validation part looks like, where it was never better."""
        if best and self._last is not None:
            gatherer, measures = self._last
            illustrate(model, self.scheme, self.validation.part, gatherer, measures, run / "pictures", run / "tables")
        self._last = None
        return ""

    def forget(self, run: Path, step: int) -> None:
        """Pictures are of the best so far, whenever it was; a better one takes their place."""

    def told(self, measures: dict[str, float]) -> str:
        """In words."""
        return told(self.scheme.kind, measures, self.scheme.num_labels)

    def told_training(self, measures: dict[str, float]) -> str:
        """Nats."""
        return f"{measures['nll']:.4f} nats a step"

    def facts(self) -> Sequence[str]:
        """The data."""
        train, validation = self.parts["train"], self.parts["validation"]
        what = "records" if self.scheme.kind == "events" else "sequences"
        read = f"{len(self.scheme.words):,} words" if self.scheme.words else f"{self.scheme.input_size} features a step"
        return (
            f"{self.found.name}, {self.scheme.kind}: {len(train):,} {what} to train on ({train.steps:,} steps), "
            f"{len(validation):,} for validation ({validation.steps:,}), {self.test_sequences:,} for the test; "
            f"{read}, {self.scheme.num_labels} {'label' if self.scheme.num_labels == 1 else 'labels'}",
        )

    def title(self) -> str:
        """The model in a few words."""
        return f"{self.model.cell_name}, {self.config.model.shape()}"

    def source(self) -> str:
        """The data in a few words."""
        return self.found.name

    def document(self) -> dict[str, Any]:
        """The data's facts, the model's equations, and how sequences become numbers."""
        return {
            "data": {
                "source": self.found.name,
                "sha256": self.found.sha256(),
                "train_sequences": len(self.parts["train"]),
                "validation_sequences": len(self.parts["validation"]),
                "test_sequences": self.test_sequences,
            },
            "model": self.model.spec(),
            "scheme": self.scheme.to_json(),
        }

    def next_steps(self, run: str) -> Sequence[tuple[str, str]]:
        """What may be done with the run."""
        test = (("test", f"ostinato evaluate {run}"),) if self.test_sequences else ()
        return (*test, ("predict", f"ostinato predict {run} DATA"))


def _check(config: LabelConfig, scheme: Scheme) -> None:
    """Options that contradict the data.

    Raises:
        OptionError: they do.
    """
    if scheme.next_frame and config.model.bidirectional:
        raise OptionError(
            "bidirectional layers read the frames that are to be foretold, so the next frame would be no prediction; "
            "leave --bidirectional out."
        )
    if config.steps.transpose and not scheme.next_frame:
        raise OptionError("transpose shifts piano rolls, and these data are none; leave --transpose out.")
    reading = config.reading
    if (reading.gain or reading.flip or reading.input_noise) and not scheme.width:
        raise OptionError("gain, flip and input_noise change measured features, and these data are tokens.")
    named = config.events.test_records + config.events.validation_records
    if scheme.kind != "events" and named:
        raise OptionError(f"record {named[0]!r} is asked for, but these data have no records; leave it out.")


def _begin_at_base_rates(model: Tagger, train: Part) -> None:
    """Let an untrained model say of each label how often it holds: the first steps need not learn it."""
    assert train.answers is not None
    values = train.answers.values
    if values.dim() == 1:
        counts = torch.bincount(values, minlength=model.num_tags).double() + 1.0
        bias: Tensor = (counts / counts.sum()).log()
    else:
        share = (values.double().sum(0) + 0.5) / (len(values) + 1.0)
        bias = share.logit()
    with torch.no_grad():
        model.decoder.bias.copy_(bias)
