"""What a trained classifier is good for: measures on labelled sequences, and labels for new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...data import Sequences, Source
from ...errors import DataError, RunError
from ...models import Classifier
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import ClassifyConfig
from .data import Dataset, Part, encode
from .examples import Examples
from .files import read_examples
from .pictures import draw_pictures
from .readers import Lexicon, Reader, Scaling, reader_from_json
from .scores import predicted, scored

__all__ = ["ClassifyPredictor"]


@dataclass(frozen=True)
class Held:
    """Sequences, how they are called, and, of new ones, what was read."""

    name: str
    part: Part
    examples: Examples | None = None


class ClassifyPredictor:
    """A classifier and what reads its data.

    Args:
        found: its checkpoint.
        model: with its weights.
        config: of its run.
        reader: of its sequences.
        classes: that it knows.
    """

    draws = True

    def __init__(
        self, found: Checkpoint, model: Classifier, config: ClassifyConfig, reader: Reader, classes: tuple[str, ...]
    ) -> None:
        self.found, self.model, self.config = found, model, config
        self.reader, self.classes = reader, classes

    @classmethod
    def load(cls, found: Checkpoint, backend: str, device: torch.device) -> ClassifyPredictor:
        """From a checkpoint."""
        model = build_model(found, backend, Classifier).to(device).eval()
        config = read_entry(found, "config", ClassifyConfig.from_json)
        return cls(
            found,
            model,
            config,
            read_entry(found, "reading", reader_from_json),
            read_entry(found, "classes", tuple),
        )

    def own(self, part: str) -> Held:
        """A part of the data that it was trained with, split as it was then."""
        dataset = Dataset.read(self.config, self.reader, self.classes)
        check_same_data(self.found, dataset.source, dataset.sha256)
        if part not in dataset.parts:
            raise RunError(f"the run has no {part} part (--test 0); pass --part validation, or data of their own.")
        return Held(f"the {part} part of {dataset.source}", dataset.parts[part])

    def read(self, source: Source) -> Held:
        """Sequences from a file, a folder or a pipe; they may have labels."""
        examples = read_examples(source, self.config.data, like=self._like())
        # labels are looked at by `evaluate` alone: what predictions are made of may have any, or none
        unlabelled = dataclasses.replace(examples, labels=None)
        return Held(examples.name, encode(unlabelled, self.reader, self.config, self.classes), examples)

    def _like(self) -> Examples:
        """What the run was trained with, as far as reading more of it needs."""
        name = "what the run was trained with"
        if isinstance(self.reader, Lexicon):
            return Examples(name, str, texts=[])
        if isinstance(self.reader, Scaling):
            channels = None if self.reader.channels is None else list(self.reader.channels)
            nothing = Sequences(torch.zeros(0, self.reader.width), torch.zeros(0, dtype=torch.int64))
            return Examples(name, str, series=nothing, channels=channels)
        return Examples(name, str, images=torch.zeros(0, self.reader.height, self.reader.width, dtype=torch.uint8))

    def evaluate(self, data: Held, pictures: Path | None = None) -> dict[str, float]:
        """Accuracy, macro F1, nats and the expected calibration error.

        Raises:
            DataError: no labels, or labels that are none of its classes.
        """
        part = data.part
        if data.examples is not None:
            data.examples.needed_labels()
            part = Part(part.sequences, data.examples.numbered(self.classes))
        with torch.no_grad():
            scores = scored(self.model, part, len(self.classes))
        assert scores is not None
        if pictures is not None:
            draw_pictures(pictures, scores, self.classes, data.name)
        right = int((scores.guesses == scores.labels).sum())
        return {
            "sequences": float(len(part)),
            "right": float(right),
            **scores.measures(),
            "calibration_error": scores.calibration_error(),
        }

    def told(self, measures: dict[str, float]) -> str:
        """In words."""
        return (
            f"{measures['accuracy']:.2%} right ({measures['right']:,.0f} of {measures['sequences']:,.0f} sequences), "
            f"macro F1 {measures['macro_f1']:.4f}, {measures['loss']:.4f} nats, expected calibration error "
            f"{measures['calibration_error']:.4f}"
        )

    def predict(self, data: Held) -> Iterator[dict[str, Any]]:
        """A row a sequence: its number, its name and its text where it has them, label, confidence, probabilities."""
        if data.examples is None:
            raise DataError("predictions are of new data; pass a file, a folder or a pipe.")
        named = [f"probability {label}" for label in self.classes]
        probabilities = predicted(self.model, data.part, len(self.classes))
        for n, row in enumerate(probabilities):
            confidence, guess = row.max(0)
            yield {
                "number": n + 1,
                **({} if data.examples.names is None else {"id": data.examples.names[n]}),
                **({} if data.examples.texts is None else {"text": data.examples.texts[n]}),
                "label": self.classes[int(guess)],
                "confidence": round(float(confidence), 6),
                **dict(zip(named, (round(p, 6) for p in row.tolist()), strict=True)),
            }
