"""How surprising a text is to a trained model: as a whole, and line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Source, Tokenizer, decode, name_of, read_bytes, tokenizer_from_json
from ...errors import DataError, RunError
from ...models import LanguageModel
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import TextConfig
from .corpus import Corpus
from .held_out import HeldOut
from .task import bits, perplexity

__all__ = ["TextPredictor"]


@dataclass(frozen=True)
class Read:
    """A text by its tokens, and what comes before it."""

    before: Tensor  # [M]
    tokens: Tensor  # [N]
    characters: int
    text: str = ""


class TextPredictor:
    """A language model and its tokenizer.

    Args:
        found: its checkpoint.
        model: with its weights.
        tokenizer: of its tokens.
    """

    def __init__(self, found: Checkpoint, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.found, self.model, self.tokenizer = found, model, tokenizer

    @classmethod
    def load(cls, found: Checkpoint, backend: str, device: torch.device) -> TextPredictor:
        """From a checkpoint."""
        model = build_model(found, backend, LanguageModel).to(device).eval()
        return cls(found, model, read_entry(found, "tokenizer", tokenizer_from_json))

    def own(self, part: str) -> Read:
        """The text that was trained on, or its end, which was held out."""
        if part == "test":
            raise RunError("a text has no test part, its end is held out for validation; pass --part validation.")
        config = read_entry(self.found, "config", TextConfig.from_json)
        corpus = Corpus.read(config.text, self.tokenizer)
        check_same_data(self.found, corpus.source, corpus.sha256)
        if part == "train":
            return Read(self._start(), corpus.train, corpus.train_characters)
        return Read(corpus.train, corpus.tail, corpus.tail_characters)

    def read(self, source: Source) -> Read:
        """A text from a file or a pipe."""
        config = read_entry(self.found, "config", TextConfig.from_json)
        text = decode(read_bytes(source), name_of(source), config.text.encoding)
        return Read(self._start(), self.tokenizer.encode(text), len(text), text)

    def _start(self) -> Tensor:
        return torch.tensor([self.tokenizer.start])

    def evaluate(self, data: Read, pictures: Path | None = None) -> dict[str, float]:
        """Nats and perplexity per token, bits per character, each token with all that came before it."""
        if not len(data.tokens):
            raise DataError("the text is empty; pass one with some characters.")
        with torch.no_grad():
            nats = HeldOut(data.before, data.tokens).nats(self.model)
        assert nats is not None
        unknown = self.tokenizer.unknown
        return {
            "tokens": float(len(data.tokens)),
            "characters": float(data.characters),
            "unknown": float((data.tokens == (-1 if unknown is None else unknown)).sum()),
            "nats": nats,
            "bits": bits(nats * len(data.tokens) / data.characters),
            "perplexity": perplexity(nats),
        }

    def told(self, measures: dict[str, float]) -> str:
        """In words."""
        unit = self.tokenizer.unit
        unknown = f", {measures['unknown']:,.0f} {unit} unknown to it" if measures["unknown"] else ""
        each = {"characters": "character", "bytes": "byte", "words": "word", "tokens": "token"}[unit]
        return (
            f"{measures['bits']:.4f} bits per character, {measures['nats']:.4f} nats and perplexity "
            f"{measures['perplexity']:.3f} per {each}, over {measures['characters']:,.0f} characters{unknown}"
        )

    def predict(self, data: Read) -> Iterator[dict[str, Any]]:
        """How surprising each line is, its end included, after the lines before it."""
        lines = [f"{line}\n" for line in data.text.split("\n")]
        lines[-1] = lines[-1][:-1]  # what comes after the last end of a line; nothing, as a rule
        device = next(self.model.parameters()).device
        last, state = data.before[-1:].long(), None
        for number, line in enumerate(filter(None, lines), start=1):
            tokens = torch.cat([last, self.tokenizer.encode(line)]).to(device)[:, None]  # [1 + T, 1]
            last = tokens[-1:, 0].cpu()
            nats = 0.0
            if len(tokens) > 1:
                with torch.inference_mode():
                    scored = self.model(tokens[:-1], state, tokens[1:])
                state, nats = scored.state, float(scored.nll)
            yield {
                "line": number,
                self.tokenizer.unit: len(tokens) - 1,
                "nats": round(nats, 4),
                "bits_per_character": round(bits(nats) / len(line), 4),
                "text": line.rstrip("\n"),
            }
