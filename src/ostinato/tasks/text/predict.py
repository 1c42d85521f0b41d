"""How surprising a text is to a trained model: as a whole, and line by line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data import Pieces, Source, Tokenizer, decode, name_of, number, read_bytes, tokenizer_from_json
from ...errors import DataError, RunError
from ...models import LanguageModel
from ...training.checkpoint import Checkpoint
from ..loading import build_model, check_same_data, read_entry
from .config import TextConfig
from .corpus import Corpus, open_pieces
from .held_out import HeldOut
from .task import bits, perplexity

__all__ = ["TextPredictor"]


_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # with its end, which the last may lack


@dataclass(frozen=True)
class Read:
    """A text and what comes before it; of a file larger than the memory, neither is ever there as a whole."""

    before: Tensor  # [M]
    pieces: Pieces
    tokens: Tensor | None = None  # [N], where they are known already


class TextPredictor:
    """A language model and its tokenizer.

    Args:
        found: its checkpoint.
        model: with its weights.
        tokenizer: of its tokens.
    """

    draws = False

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
        whole, cut = open_pieces(config.text), corpus.train_characters
        if part == "train":
            return Read(self._start(), whole.first(cut), corpus.train)
        return Read(corpus.train, whole.after(cut), corpus.tail)

    def read(self, source: Source) -> Read:
        """A text from a file or a pipe."""
        encoding = read_entry(self.found, "config", TextConfig.from_json).text.encoding
        if isinstance(source, str | os.PathLike) and os.path.isfile(source):
            return Read(self._start(), Pieces.of_file(source, encoding))
        name = name_of(source)
        text = decode(read_bytes(source), name, encoding)  # what a pipe gave cannot be read twice
        return Read(self._start(), Pieces(name, lambda: iter([text])))

    def _start(self) -> Tensor:
        return torch.tensor([self.tokenizer.start])

    def evaluate(self, data: Read, pictures: Path | None = None) -> dict[str, float]:
        """Nats and perplexity per token, bits per character, each token with all that came before it."""
        characters, _ = data.pieces.measure()
        tokens = number(data.pieces, self.tokenizer) if data.tokens is None else data.tokens
        if not len(tokens):
            raise DataError(f"{data.pieces.name} holds no {self.tokenizer.unit}; pass another text.")
        with torch.no_grad():
            nats = HeldOut(data.before, tokens).nats(self.model)
        assert nats is not None
        unknown = self.tokenizer.unknown
        return {
            "tokens": float(len(tokens)),
            "characters": float(characters),
            "unknown": float((tokens == (-1 if unknown is None else unknown)).sum()),
            "nats": nats,
            "bits": bits(nats * len(tokens) / characters),
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
        device = next(self.model.parameters()).device
        last, state = data.before[-1:].long(), None
        lines = (line for piece in data.pieces for line in _LINE.findall(piece))
        for place, line in enumerate(lines, start=1):
            tokens = torch.cat([last, self.tokenizer.encode(line)]).to(device)[:, None]  # [1 + T, 1]
            last = tokens[-1:, 0].cpu()
            nats = 0.0
            if len(tokens) > 1:
                with torch.inference_mode():
                    scored = self.model(tokens[:-1], state, tokens[1:])
                state, nats = scored.state, float(scored.nll)
            yield {
                "line": place,
                self.tokenizer.unit: len(tokens) - 1,
                "nats": round(nats, 4),
                "bits_per_character": round(bits(nats) / len(line), 4),
                "text": line.rstrip("\n"),
            }
