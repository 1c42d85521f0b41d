"""From examples to what a model reads: tokens, scaled channels, steps of images. Fitted on the training part alone."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data import Sequences, Words, image_sequences, step_order
from ...errors import DataError
from ...models import FeatureInput, SpelledInput, TokenInput, spelled
from .config import ClassifyModel, Reading
from .examples import Examples, listed

__all__ = ["Lexicon", "Pixels", "Reader", "Scaling", "fit_reader", "reader_from_json"]

# Standard deviation of the tokens' vectors before training. Of words it is small: most are rare, and what training
# hardly moves shall say little.
_SPREAD = {"characters": 1.0, "words": 0.1}
_SPREAD_OF_PIECES = 0.03

_LONGEST = 32  # signs of a word's spelling that are read, with its two marks


@dataclass(frozen=True)
class Lexicon:
    """The tokens of texts. Token 0 stands for every other one.

    Args:
        by: characters or words, as `ostinato.data.Words` splits them.
        lower: whether texts are read in lower case.
        entries: tokens 1, 2, ...
        subwords: their spelling is read by the pieces that so many of them have; 0 means not at all.
    """

    by: str
    lower: bool
    entries: tuple[str, ...]
    subwords: int = 0

    @classmethod
    def of(cls, texts: list[str], options: Reading) -> Lexicon:
        """The tokens that these texts have often enough, the most frequent first.

        Raises:
            DataError: none is frequent enough.
        """
        found = cls(options.tokens, options.lower, (), options.subwords)
        counts = Counter(token for text in texts for token in found.split(text))
        kept = [token for token, count in counts.items() if count >= options.min_count]
        if not kept:
            raise DataError(
                f"none of the {len(counts)} tokens comes {options.min_count} times in the training part; lower "
                "--min-count."
            )
        return dataclasses.replace(found, entries=tuple(sorted(kept, key=lambda token: (-counts[token], token))))

    def __len__(self) -> int:
        return len(self.entries) + 1

    def split(self, text: str) -> list[str]:
        """The tokens of a text that is not blank, one at least."""
        text = unicodedata.normalize("NFC", text.strip())
        text = text.lower() if self.lower else text
        return list(text) if self.by == "characters" else Words.split(text)

    def encode(self, examples: Examples) -> Sequences:
        """The numbers of the tokens, each with its spelling if that is read."""
        number = {token: n for n, token in enumerate(self.entries, 1)}
        assert examples.texts is not None
        texts = [self.split(text) for text in examples.texts]
        lengths = torch.tensor([len(each) for each in texts], dtype=torch.int64)
        numbers = torch.tensor([number.get(token, 0) for each in texts for token in each], dtype=torch.int64)
        return Sequences(self._with_spelling(numbers, texts) if self.subwords else numbers, lengths)

    def _with_spelling(self, numbers: Tensor, texts: list[list[str]]) -> Tensor:
        """Words' numbers [S] and their spelling, [S, 1 + width] int32; each form is spelled out once."""
        forms: dict[str, int] = {}
        places = torch.tensor([forms.setdefault(word, len(forms)) for each in texts for word in each])
        width = min(_LONGEST, max((len(word) + 2 for word in forms), default=0))
        table = torch.tensor([spelled(word, width) for word in forms], dtype=torch.int32).view(len(forms), width)
        return torch.cat((numbers.int().unsqueeze(1), table[places.long()]), 1)

    def source(self, options: ClassifyModel) -> TokenInput | SpelledInput:
        """What a model begins with."""
        if self.subwords:
            source = SpelledInput.of(
                self.entries, options.embedding_size, self.subwords, dropout=options.embedding_dropout
            )
            torch.nn.init.normal_(source.embedding.weight, std=_SPREAD[self.by])
            torch.nn.init.normal_(source.pieces.weight, std=_SPREAD_OF_PIECES)
            return source
        source = TokenInput(len(self), options.embedding_size, dropout=options.embedding_dropout)
        torch.nn.init.normal_(source.embedding.weight, std=_SPREAD[self.by])
        return source

    def fact(self) -> str:
        """In a few words."""
        return f"{len(self.entries):,} different {self.by}{' and their spelling' if self.subwords else ''}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "texts",
            "by": self.by,
            "lower": self.lower,
            "entries": list(self.entries),
            "subwords": self.subwords,
        }


@dataclass(frozen=True)
class Scaling:
    """Channels, each (x - mean) / scale; those that are not kept are left out.

    Args:
        kept: places of the channels among those of the data.
        width: of the data.
        mean, scale: of each channel that is kept.
        channels: the names of the data's, where they have some.
    """

    kept: tuple[int, ...]
    width: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    channels: tuple[str, ...] | None = None

    @classmethod
    def of(cls, examples: Examples, options: Reading) -> Scaling:
        """Measured on all steps of these.

        Raises:
            DataError: a channel is constant in all of them.
        """
        assert examples.series is not None
        values = examples.series.values.double()  # [S, D]
        width = values.shape[1]
        names = tuple(examples.channels) if examples.channels is not None else None
        low, high = values.amin(0), values.amax(0)
        varies: list[bool] = (low < high).tolist()
        if not any(varies):
            raise DataError(
                f"{examples.name}: every channel is constant in the training part; there is nothing to learn."
            )
        told = [repr(names[d]) if names else f"number {d + 1}" for d in range(width) if not varies[d]]
        if told and options.standardize and not options.drop_constant:
            first = float(low[varies.index(False)])
            raise DataError(
                f"{examples.name}: channels that are constant in the training part, such as {told[0]} ({first:g}), say "
                f"nothing and cannot be scaled: {listed(told)}. Leave them out with --drop-constant, or pass "
                "--no-standardize."
            )
        kept = tuple(d for d in range(width) if varies[d] or not options.drop_constant)
        mean, scale = torch.zeros(len(kept)).double(), torch.ones(len(kept)).double()
        if options.standardize:
            chosen = values[:, list(kept)]
            mean, scale = chosen.mean(0), chosen.std(0, correction=0)
        return cls(kept, width, tuple(mean.tolist()), tuple(scale.tolist()), names)

    def encode(self, examples: Examples) -> Sequences:
        """The scaled channels.

        Raises:
            DataError: other channels.
        """
        assert examples.series is not None
        values = examples.series.values
        if values.shape[1] != self.width:
            raise DataError(
                f"{examples.name} has {values.shape[1]} channels, but the training part {self.width}; pass the same."
            )
        mean, scale = torch.tensor(self.mean).double(), torch.tensor(self.scale).double()
        scaled = ((values[:, list(self.kept)].double() - mean) / scale).float()
        return Sequences(scaled, examples.series.lengths)

    def source(self, options: ClassifyModel) -> FeatureInput:
        """What a model begins with."""
        return FeatureInput(len(self.kept))

    def fact(self) -> str:
        """In a few words."""
        out = f", {self.width - len(self.kept)} constant ones left out" if len(self.kept) < self.width else ""
        return f"{len(self.kept)} channels{out}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        names = None if self.channels is None else list(self.channels)
        numbers = {"kept": list(self.kept), "mean": list(self.mean), "scale": list(self.scale)}
        return {"kind": "series", "width": self.width, "channels": names, **numbers}


@dataclass(frozen=True)
class Pixels:
    """Steps of images: rows or single pixels, from 0 to 1, in their order or in one that a seed has drawn."""

    by: str
    height: int
    width: int
    permute: int | None

    @classmethod
    def of(cls, examples: Examples, options: Reading) -> Pixels:
        """As the options say."""
        assert examples.images is not None
        height, width = examples.images.shape[1:]
        return cls(options.images_by, height, width, options.permute)

    def encode(self, examples: Examples) -> Sequences:
        """The steps.

        Raises:
            DataError: images of another size.
        """
        assert examples.images is not None
        size = (self.height, self.width)
        if tuple(examples.images.shape[1:]) != size:
            raise DataError(
                f"{examples.name} holds images of {list(examples.images.shape[1:])}, but the training part of "
                f"{list(size)}; pass the same."
            )
        steps = self.height if self.by == "rows" else self.height * self.width
        order = None if self.permute is None else step_order(steps, self.permute)
        return image_sequences(examples.images, "rows" if self.by == "rows" else "pixels", order)

    def source(self, options: ClassifyModel) -> FeatureInput:
        """What a model begins with."""
        return FeatureInput(self.width if self.by == "rows" else 1)

    def fact(self) -> str:
        """In a few words."""
        order = "" if self.permute is None else f", in a random order (seed {self.permute})"
        return f"{self.height} x {self.width} pixels, read by {self.by}{order}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"kind": "images", **dataclasses.asdict(self)}


Reader = Lexicon | Scaling | Pixels


def fit_reader(train: Examples, options: Reading) -> Reader:
    """What reads examples like these.

    Args:
        train: the training part, and nothing else.
        options: how.
    """
    kinds = {"texts": lambda: Lexicon.of(train.texts or [], options), "series": lambda: Scaling.of(train, options)}
    return kinds.get(train.kind, lambda: Pixels.of(train, options))()


def reader_from_json(value: Any) -> Reader:
    """A reader from what its `to_json` gave."""
    if value["kind"] == "texts":
        return Lexicon(value["by"], value["lower"], tuple(value["entries"]), value["subwords"])
    if value["kind"] == "series":
        channels = None if value["channels"] is None else tuple(value["channels"])
        kept, mean, scale = (tuple(value[name]) for name in ("kept", "mean", "scale"))
        return Scaling(kept, value["width"], mean, scale, channels)
    return Pixels(value["by"], value["height"], value["width"], value["permute"])


def cut(sequences: Sequences, longest: int | None, keep: str) -> Sequences:
    """No more than so many steps of each, from its start or up to its end."""
    if longest is None or not len(sequences) or int(sequences.lengths.max()) <= longest:
        return sequences
    lengths = sequences.lengths.clamp(max=longest)
    starts: Tensor = sequences.lengths.cumsum(0) - sequences.lengths
    if keep == "end":
        starts = starts + sequences.lengths - lengths
    steps = torch.arange(int(lengths.sum())) + (starts - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
    return Sequences(sequences.values[steps], lengths)
