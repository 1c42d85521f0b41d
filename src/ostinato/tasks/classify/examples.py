"""Labelled sequences as they are read, before anything is numbered, scaled or split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Sequences
from ...errors import DataError

__all__ = ["Examples", "listed", "without_rare"]


@dataclass(frozen=True)
class Examples:
    """N texts, numeric sequences or images, and their labels where these are known.

    Args:
        name: what errors call them.
        place: number of an example to where it stands, as errors say it.
        texts: N of them; or
        series: N of them, [S, D]; or
        images: [N, height, width] uint8.
        labels: N of them.
        names: what the file calls each, N of them.
        channels: the names of the D channels.
    """

    name: str
    place: Callable[[int], str]
    texts: list[str] | None = None
    series: Sequences | None = None
    images: Tensor | None = None
    labels: list[str] | None = None
    names: list[str] | None = None
    channels: list[str] | None = None

    def __len__(self) -> int:
        held = next(each for each in (self.texts, self.series, self.images) if each is not None)
        return len(held)

    @property
    def kind(self) -> str:
        """texts, series or images."""
        return "texts" if self.texts is not None else "series" if self.series is not None else "images"

    def checked(self) -> Examples:
        """These, each of which has something to read, and its label without the blanks around it.

        Raises:
            DataError: one has not, or its label is empty.
        """
        if self.texts is not None:
            empty = next((n for n, text in enumerate(self.texts) if not text.strip()), None)
            if empty is not None:
                raise DataError(f"{self.place(empty)}: the text is empty; fill it in or take it away.")
        if self.series is not None and len(self.series) and int(self.series.lengths.min()) == 0:
            raise DataError(f"{self.place(int(self.series.lengths.argmin()))} has no steps; take it away.")
        if not len(self):
            raise DataError(f"{self.name} holds no examples; pass one or more.")
        if self.labels is None:
            return self
        labels = [label.strip() for label in self.labels]
        if "" in labels:
            raise DataError(f"{self.place(labels.index(''))}: the label is empty; fill it in or take it away.")
        return dataclasses.replace(self, labels=labels)

    def take(self, rows: Tensor | Sequence[int]) -> Examples:
        """Those of these numbers, in this order."""
        numbers = torch.as_tensor(rows, dtype=torch.int64)
        chosen: list[int] = numbers.tolist()
        place = self.place
        return dataclasses.replace(
            self,
            place=lambda n: place(chosen[n]),
            texts=None if self.texts is None else [self.texts[n] for n in chosen],
            series=None if self.series is None else self.series.take(numbers),
            images=None if self.images is None else self.images[numbers],
            labels=None if self.labels is None else [self.labels[n] for n in chosen],
            names=None if self.names is None else [self.names[n] for n in chosen],
        )

    def needed_labels(self) -> list[str]:
        """The labels.

        Raises:
            DataError: they are not known.
        """
        if self.labels is None:
            raise DataError(f"{self.name} has no labels; pass data that have one for each sequence.")
        return self.labels

    def numbered(self, classes: Sequence[str]) -> Tensor:
        """The labels as places in a list of classes, [N] int64.

        Raises:
            DataError: labels that are not on the list, each named once.
        """
        number = {label: n for n, label in enumerate(classes)}
        labels = self.needed_labels()
        unknown = {label: n for n, label in reversed(list(enumerate(labels))) if label not in number}
        if unknown:
            first = min(unknown.values())
            count = sum(label in unknown for label in labels)
            raise DataError(
                f"{self.place(first)}: the label {labels[first]!r} is none of the {len(classes)} classes that were "
                f"trained ({listed(classes)}). {count} of {len(labels)} have such labels "
                f"({listed(sorted(unknown))}); correct them or take them away."
            )
        return torch.tensor([number[label] for label in labels], dtype=torch.int64)

    def digest(self) -> str:
        """A SHA-256 of what they say, wherever it was read from."""
        found = hashlib.sha256(json.dumps([self.kind, len(self), self.texts, self.labels]).encode())
        for tensor in (self.series.values, self.series.lengths) if self.series is not None else (self.images,):
            if tensor is not None:
                found.update(tensor.contiguous().numpy().data)
        return found.hexdigest()


def without_rare(examples: Examples, least: int) -> Examples:
    """Those of classes with so many examples or more.

    Raises:
        DataError: a class with one example is left, or fewer than two classes are.
    """
    labels = examples.needed_labels()
    counts = Counter(labels)
    if least > 1:
        examples = examples.take([n for n, label in enumerate(labels) if counts[label] >= least])
        labels = examples.needed_labels()
        counts = Counter(labels)
    if len(counts) < 2:
        what = f"all {len(labels)} examples are of one class, {labels[0]!r}" if labels else "no class is left"
        rare = " or lower --min-examples" if least > 1 else ""
        raise DataError(f"{examples.name}: {what}; pass examples of two classes or more{rare}.")
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        where = examples.place(labels.index(single[0]))
        others = f" So have {len(single) - 1} other classes ({listed(single[1:])})." if len(single) > 1 else ""
        raise DataError(
            f"{where}: the class {single[0]!r} has this one example, which cannot be trained on and validated on."
            f"{others} Collect more of them, or leave such classes out with --min-examples 2."
        )
    return examples


def listed(words: Sequence[str], most: int = 10) -> str:
    """Some words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
