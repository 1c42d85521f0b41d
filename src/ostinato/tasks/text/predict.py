"""How surprising a text is to a trained model: as a whole, and line by line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data import Source, Vocabulary, decode, name_of, read_bytes
from ...errors import DataError, RunError
from ...models import LanguageModel
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import TextConfig
from .corpus import Corpus
from .held_out import HeldOut

__all__ = ["TextPredictor"]

_STEPS = 1024  # characters whose logits are held at once


@dataclass(frozen=True)
class Read:
    """A text by its tokens, and what comes before it."""

    before: Tensor  # [M]
    tokens: Tensor  # [N]
    text: str


class TextPredictor:
    """A language model and its vocabulary.

    Args:
        found: its checkpoint.
        model: with its weights.
        vocabulary: of its tokens.
    """

    def __init__(self, found: Checkpoint, model: LanguageModel, vocabulary: Vocabulary) -> None:
        self.found, self.model, self.vocabulary = found, model, vocabulary

    @classmethod
    def load(cls, found: Checkpoint, backend: str, device: torch.device) -> TextPredictor:
        """From a checkpoint."""
        model = build_model(found, backend, LanguageModel).to(device).eval()
        return cls(found, model, read_entry(found, "vocabulary", Vocabulary.from_json))

    def own(self, part: str) -> Read:
        """The text that was trained on, or its end, which was held out."""
        if part == "test":
            raise RunError("a text has no test part, its end is held out for validation; pass --part validation.")
        config = read_entry(self.found, "config", TextConfig.from_json)
        corpus = Corpus.read(config.text, self.vocabulary)
        check_same_data(self.found, corpus.source, corpus.sha256)
        if part == "train":
            return Read(self._start(), corpus.train, "")
        return Read(corpus.train, corpus.tail, "")

    def read(self, source: Source) -> Read:
        """A text from a file or a pipe."""
        config = read_entry(self.found, "config", TextConfig.from_json)
        text = decode(read_bytes(source), name_of(source), config.text.encoding)
        return Read(self._start(), self.vocabulary.encode_compact(text), text)

    def _start(self) -> Tensor:
        """A text begins as a line does."""
        first = "\n" if "\n" in self.vocabulary else self.vocabulary.characters[0]
        return self.vocabulary.encode_compact(first)

    def evaluate(self, data: Read, pictures: Path | None = None) -> dict[str, float]:
        """Nats, bits and perplexity per character, each character with all that came before it."""
        if not len(data.tokens):
            raise DataError("the text is empty; pass one with some characters.")
        with torch.no_grad():
            nats = HeldOut(data.before, data.tokens).nats(self.model)
        assert nats is not None
        return {
            "characters": float(len(data.tokens)),
            "unknown": float((data.tokens == 0).sum()),
            "nats": nats,
            "bits": nats / math.log(2.0),
            "perplexity": math.exp(nats),
        }

    def told(self, measures: dict[str, float]) -> str:
        """In words."""
        unknown = f", {measures['unknown']:,.0f} of them unknown to it" if measures["unknown"] else ""
        return (
            f"{measures['bits']:.4f} bits per character ({measures['nats']:.4f} nats, perplexity "
            f"{measures['perplexity']:.3f}) over {measures['characters']:,.0f} characters{unknown}"
        )

    def predict(self, data: Read) -> Iterator[dict[str, Any]]:
        """How surprising each line is, its end included, after the lines before it."""
        nats = self._nats(data)
        start = 0
        lines = [f"{line}\n" for line in data.text.split("\n")]
        lines[-1] = lines[-1][:-1]  # what comes after the last end of a line; nothing, as a rule
        for number, line in enumerate(filter(None, lines), start=1):
            total = float(nats[start : start + len(line)].sum())
            start += len(line)
            yield {
                "line": number,
                "characters": len(line),
                "nats": round(total, 4),
                "bits_per_character": round(total / math.log(2.0) / len(line), 4),
                "text": line.rstrip("\n"),
            }

    def _nats(self, data: Read) -> Tensor:
        """Of each character, [N] float64."""
        device = next(self.model.parameters()).device
        tokens = torch.cat([data.before[-1:], data.tokens]).long()
        parts: list[Tensor] = []
        state = None
        with torch.inference_mode():
            for start in range(0, len(tokens) - 1, _STEPS):
                piece = tokens[start : start + _STEPS + 1].to(device)
                logits, state = self.model(piece[:-1, None], state)  # [T, 1, V]
                parts.append(F.cross_entropy(logits[:, 0], piece[1:], reduction="none").double().cpu())
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
