"""What a trained tagger says of new sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Sequences, Source
from ...errors import RunError
from ...models import Tagger
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import LabelConfig
from .measures import EventGatherer, gather, logits_of, told
from .parts import split
from .pictures import illustrate
from .read import read_source, read_training
from .scheme import Part, Scheme
from .task import make_gatherer, make_windows

__all__ = ["LabelPredictor"]

_THRESHOLD = 0.5  # of a run that was never evaluated


class LabelPredictor:
    """A tagger and how sequences become numbers.

    Args:
        found: its checkpoint.
        model: with its weights.
    """

    draws = True

    def __init__(self, found: Checkpoint, model: Tagger) -> None:
        self.found, self.model = found, model
        self.config = read_entry(found, "config", LabelConfig.from_json)
        self.scheme = read_entry(found, "scheme", Scheme.from_json)
        best = read_entry(found, "position", lambda position: position["best_measures"])
        self.threshold = self.config.events.threshold or best.get("threshold", _THRESHOLD)

    @classmethod
    def load(cls, found: Checkpoint, backend: str, device: torch.device) -> LabelPredictor:
        """From a checkpoint."""
        return cls(found, build_model(found, backend, Tagger).to(device).eval())

    def own(self, part: str) -> Part:
        """A part of the data that the run was trained with."""
        data = read_training(self.config)
        check_same_data(self.found, data.name, data.sha256())
        rows = split(self.config, data)[part]
        if not len(rows):
            raise RunError(f"{data.name} was split without a {part} part; pass other data, or --part validation.")
        return self.scheme.part(data, rows)

    def read(self, source: Source) -> Part:
        """Sequences from a file or a pipe; of data that come in parts, the test part."""
        data = read_source(source, self.config)
        # answers are looked at by `evaluate` alone: what predictions are made of may have any, or none
        return self.scheme.part(data, None if data.parts is None else data.parts["test"], answered=False)

    def evaluate(self, data: Part, pictures: Path | None = None) -> dict[str, float]:
        """The measures of all steps, each after those before it."""
        data.found.need_answers()
        if data.answers is None:
            data = self.scheme.part(data.found, data.rows)
        windows = make_windows(self.config, self.scheme.kind, data)
        device = next(self.model.parameters()).device
        gatherer = make_gatherer(self.scheme, data, self.config.events, device, self.threshold)
        with torch.no_grad():
            measures = gather(self.model, windows, gatherer)
        assert measures is not None
        if pictures is not None:
            illustrate(self.model, self.scheme, data, gatherer, measures, pictures, pictures)
        return {"sequences": float(len(data)), "steps": float(data.steps), **measures}

    def told(self, measures: dict[str, float]) -> str:
        """In words."""
        what = "records" if self.scheme.kind == "events" else "sequences"
        counts = f"{measures['sequences']:,.0f} {what}, {measures['steps']:,.0f} steps"
        return f"{told(self.scheme.kind, measures, self.scheme.num_labels)}, over {counts}"

    def predict(self, data: Part) -> Iterator[dict[str, Any]]:
        """A row for each step, or for each event that is found."""
        if self.scheme.kind == "events":
            yield from self._events(data)
            return
        part = _one_more(data) if self.scheme.next_frame else data
        logits = self._logits(part)
        for n, name in enumerate(part.names()):
            start = int(part.inputs.lengths[:n].sum())
            own = logits[start : start + int(part.inputs.lengths[n])]
            if self.scheme.kind == "tags":
                yield from self._tags(part, n, name, own)
                continue
            for step, probabilities in enumerate(own.sigmoid().tolist(), start=1):
                given = {label: round(p, 5) for label, p in zip(self.scheme.labels, probabilities, strict=True)}
                yield {"sequence": name, "step": step, **given}

    def _tags(self, part: Part, n: int, name: str, logits: Tensor) -> Iterator[dict[str, Any]]:
        best, tags = logits.softmax(1).max(1)
        words = part.found.words
        numbers = part.found.inputs[int(part.rows[n])].tolist() if words else []
        for step, (p, tag) in enumerate(zip(best.tolist(), tags.tolist(), strict=True), start=1):
            token = {"token": words[numbers[step - 1]]} if words else {}
            yield {"sequence": name, "step": step, **token, "tag": self.scheme.labels[tag], "probability": round(p, 5)}

    def _events(self, part: Part) -> Iterator[dict[str, Any]]:
        gatherer = EventGatherer(part, self.scheme, self.config.events, torch.device("cpu"))
        gatherer.probabilities = self._logits(part)[:, 0].sigmoid()
        for name, (samples, heights) in zip(part.names(), gatherer.peaks(), strict=True):
            for sample, p in zip(samples.tolist(), heights.tolist(), strict=True):
                if p >= self.threshold:
                    seconds = round(sample / gatherer.rate, 4)
                    yield {"record": name, "sample": round(sample), "seconds": seconds, "probability": round(p, 5)}

    def _logits(self, part: Part) -> Tensor:
        """Of all steps of a part, [S, K], on the CPU."""
        out = torch.zeros(part.steps, self.scheme.num_labels)
        with torch.no_grad():
            for piece in make_windows(self.config, self.scheme.kind, part).pieces():
                out[piece.counted(piece.where)] = logits_of(self.model, piece).cpu()
        return out


def _one_more(part: Part) -> Part:
    """Frames, each after those before it, and one more, which is after them all."""
    frames = [part.found.inputs[row] for row in part.rows.tolist()]
    inputs = [torch.cat([torch.zeros(1, frame.shape[1]), frame]) for frame in frames]
    return Part(part.found, part.rows, Sequences.of(inputs), None)
