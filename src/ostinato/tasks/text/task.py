"""The task text: what comes next, given all that came before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...data import Streams, tokenizer_from_json
from ...models import LanguageModel, activation_penalty, detach_state
from ...training.checkpoint import Checkpoint
from ...training.files import explained, write_atomically
from ...training.task import Loss, Panel, Share, Watched
from ..cell_option import find_cell, parse_init, parse_sizes
from ..loading import build_model, check_same_data, read_entry
from .config import TextConfig
from .corpus import Corpus
from .sampling import generate

__all__ = ["Text", "bits", "perplexity"]

_SAMPLE_TEMPERATURE = 0.8
_EMBEDDING = 64  # the width of characters' embeddings where nothing else is said


def bits(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2.0)


def perplexity(nats: float) -> float:
    """Nats per token as perplexity; infinity where it is beyond a float."""
    return math.exp(min(nats, 700.0))


@dataclass(frozen=True)
class Piece:
    """A piece of some of the parallel streams: inputs and targets `[T, B]`, of a batch of so many tokens."""

    inputs: Tensor
    targets: Tensor
    seen: int

    @property
    def weight(self) -> float:
        """Every token is a term of the loss."""
        return float(self.seen)

    def to(self, device: torch.device) -> Piece:
        """The same on a device."""
        return Piece(self.inputs.to(device), self.targets.to(device), self.seen)


@dataclass(frozen=True)
class Pieces:
    """The training text in batches: a part of a batch is some of the streams, the same ones in every batch."""

    streams: Streams

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.streams.chunks_per_epoch

    def get(self, epoch: int, index: int, share: Share) -> Piece:
        """The next piece of a share of the streams."""
        inputs, targets = self.streams.chunk(epoch, index)  # [T, B]
        own = share.of(self.streams.batch_size)
        return Piece(inputs[:, own], targets[:, own], targets.numel())


class Text:
    """A language model of a text, trained by truncated backpropagation through time with its state carried over.

    Args:
        config: the run's.
        corpus: the text.
        model: of its vocabulary.
    """

    name = "text"
    watched = Watched("nats")
    measures = ("nats", "bits", "perplexity")
    panels = (Panel("bits", "bits per character"),)

    def __init__(self, config: TextConfig, corpus: Corpus, model: LanguageModel) -> None:
        self.config, self.corpus, self.model = config, corpus, model
        self.unit = corpus.tokenizer.unit
        batching, text = config.batching, config.text
        streams = Streams(corpus.train, batching.batch_size, text.bptt, config.machine.seed, self.unit)
        self.batches = Pieces(streams)
        self.held_out = corpus.held_out()

    @classmethod
    def begin(cls, config: TextConfig, cell: Any = None) -> Text:
        """A new model of the config's text.

        Args:
            config: what to train on what.
            cell: a `Cell` of one's own; None means the one that the config names.

        Raises:
            DataError: a text that cannot be used.
            CellError, ShapeError: a model that cannot be made.
        """
        options, dropped = config.model, config.regularization
        found = find_cell(options.cell) if cell is None else cell
        corpus = Corpus.read(config.text)
        torch.manual_seed(config.machine.seed)
        model = LanguageModel(
            len(corpus.tokenizer),
            found,
            options.hidden_size,
            options.num_layers,
            options.embedding_size or (None if options.tied else _EMBEDDING),
            dropped.dropout,
            options.tied,
            config.machine.backend,
            parse_sizes(options.size, found),
            hidden_dropout=dropped.hidden_dropout,
            input_dropout=dropped.input_dropout,
            embedding_dropout=dropped.embedding_dropout,
            weight_drop=dropped.weight_drop,
            locked=dropped.locked,
            adaptive=options.adaptive or None,
            connections=options.connections,
            init=parse_init(options.init),
        )
        return cls(config, corpus, model)

    @classmethod
    def resume(cls, config: TextConfig, found: Checkpoint) -> Text:
        """The task as a checkpoint left it; its weights are in the model.

        Raises:
            DataError, RunError: a text that cannot be used, or another text.
        """
        corpus = Corpus.read(config.text, read_entry(found, "tokenizer", tokenizer_from_json))
        check_same_data(found, corpus.source, corpus.sha256)
        return cls(config, corpus, build_model(found, config.machine.backend, LanguageModel))

    def loss(self, model: nn.Module, batch: Piece, carried: Any) -> Loss:
        """Summed nats of a piece, and the penalties on its activations; the state goes on, its history does not."""
        scored = model(batch.inputs, detach_state(carried), batch.targets)
        weight = float(batch.targets.numel())
        dropped = self.config.regularization
        total = scored.nll
        if weight and (dropped.ar or dropped.tar):
            total = total + weight * activation_penalty(scored, dropped.ar, dropped.tar)
        return Loss(total, scored.nll, weight, scored.state)

    def training_measures(self, mean: float) -> dict[str, float]:
        """Nats per token, bits per character, perplexity per token."""
        return self._measures(mean, len(self.corpus.train), self.corpus.train_characters)

    @staticmethod
    def _measures(nats: float, tokens: int, characters: int) -> dict[str, float]:
        per_character = nats * tokens / characters
        return {"nats": nats, "bits": bits(per_character), "perplexity": perplexity(nats)}

    def evaluate(self, model: nn.Module, share: Share, should_stop: Callable[[], bool]) -> dict[str, float] | None:
        """The same of the held-out text, each token with all that came before it."""
        nats = self.held_out.nats(model, share, should_stop)
        if nats is None:
            return None
        return self._measures(nats, len(self.corpus.tail), self.corpus.tail_characters)

    def illustrate(self, model: nn.Module, run: Path, step: int, best: bool) -> str:
        """Write a sample, by the same draws each time, so that what changes is the model."""
        assert isinstance(model, LanguageModel)
        sample = "".join(
            generate(
                model,
                self.corpus.tokenizer,
                length=self.config.samples.sample_length,
                temperature=_SAMPLE_TEMPERATURE,
                seed=self.config.machine.seed,
            )
        )
        write_atomically(_sample_of(run, step), sample + "\n")
        return sample

    def forget(self, run: Path, step: int) -> None:
        """Remove the samples of steps that a resumed run has not taken yet."""
        folder = _sample_of(run, 0).parent
        with explained(folder):
            for sample in folder.glob("step-*.txt"):
                digits = sample.stem.removeprefix("step-")
                if digits.isdigit() and int(digits) > step:
                    sample.unlink()

    def told(self, measures: dict[str, float]) -> str:
        """Bits per character and nats, and the perplexity where tokens are words or pieces of them."""
        of_words = self.unit in ("words", "tokens")
        more = f", perplexity {measures['perplexity']:.2f}" if of_words else ""
        return f"held out {measures['bits']:.3f} bits/char ({measures['nats']:.3f} nats{more})"

    def told_training(self, measures: dict[str, float]) -> str:
        """Bits."""
        return f"{measures['bits']:.3f} bits/char"

    def facts(self) -> Sequence[str]:
        """The text."""
        corpus = self.corpus
        unknown = f", {corpus.unknown:,} of them too rare to learn" if corpus.unknown else ""
        return (
            f"{corpus.source}: {len(corpus.train):,} {self.unit} to train on, {len(corpus.tail):,} held out; "
            f"{len(corpus.tokenizer) - len(corpus.tokenizer.never):,} different ones{unknown}",
        )

    def title(self) -> str:
        """The model in a few words."""
        return f"{self.model.cell_name}, {self.config.model.num_layers} x {self.config.model.hidden_size}"

    def source(self) -> str:
        """The text in a few words."""
        return self.corpus.source

    def document(self) -> dict[str, Any]:
        """The text's facts, the model's equations, the tokenizer."""
        return {
            "data": self.corpus.to_json(),
            "model": self.model.spec(),
            "tokenizer": self.corpus.tokenizer.to_json(),
        }

    def next_steps(self, run: str) -> Sequence[tuple[str, str]]:
        """What may be done with the run."""
        return (("sample", f"ostinato sample {run}"),)


def _sample_of(run: Path, step: int) -> Path:
    return run / "samples" / f"step-{step:08d}.txt"
