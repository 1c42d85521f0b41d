"""The data of a run: numbered, and cut into parts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data import FewExamples, Sequences, folds, split_by_class
from ...errors import OptionError
from ..common.options import Split
from .config import ClassifyConfig
from .examples import Examples, listed, without_rare
from .files import read_own
from .readers import Reader, cut, fit_reader

__all__ = ["Dataset", "Part", "encode"]


@dataclass(frozen=True)
class Part:
    """Sequences with the places of their labels among the classes, [N] int64; None where these are not known."""

    sequences: Sequences
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def targets(self) -> Tensor:
        """The labels, which are known."""
        assert self.labels is not None
        return self.labels


@dataclass(frozen=True)
class Dataset:
    """What a run reads.

    Args:
        source: its name.
        sha256: of all that it says.
        classes: the labels of the training part, sorted.
        reader: what made sequences of it.
        parts: by name: train, validation and, where there is one, test.
        facts: what whoever trains should know of it.
    """

    source: str
    sha256: str
    classes: tuple[str, ...]
    reader: Reader
    parts: dict[str, Part]
    facts: tuple[str, ...]

    @classmethod
    def read(cls, config: ClassifyConfig, reader: Reader | None = None, classes: tuple[str, ...] = ()) -> Dataset:
        """Read and split the data that a config names.

        Args:
            config: the run's.
            reader, classes: of the run, where there is one; None fits them to the training part.

        Raises:
            DataError: data that cannot be used.
            OptionError: folds of data that come with a test part.
        """
        options = config.data
        every, given = read_own(options)
        name = every.name.rpartition("/")[2]
        digest = every.digest() if given is None else f"{every.digest()} {given.digest()}"
        every = without_rare(every, options.min_examples)
        if given is not None:
            given = _of_classes(given, set(every.needed_labels())) if options.min_examples > 1 else given
        parts = _split(every, given, config.parts)
        classes = classes or tuple(sorted(set(parts["train"].needed_labels())))
        reader = reader or fit_reader(parts["train"], config.reading)
        made = {key: encode(part, reader, config, classes) for key, part in parts.items()}
        return cls(name, digest, classes, reader, made, tuple(_facts(parts, classes)))

    def to_json(self) -> dict[str, Any]:
        """What a run writes down of its data, as plain JSON values."""
        return {"source": self.source, "sha256": self.sha256, **{name: len(part) for name, part in self.parts.items()}}


def encode(examples: Examples, reader: Reader, config: ClassifyConfig, classes: tuple[str, ...]) -> Part:
    """Examples as a model reads them.

    Raises:
        DataError: labels that are no classes, or other channels.
    """
    labels = None if examples.labels is None else examples.numbered(classes)
    return Part(cut(reader.encode(examples), config.reading.max_length, config.reading.keep), labels)


def _split(every: Examples, given: Examples | None, options: Split) -> dict[str, Examples]:
    labels = every.needed_labels()
    held = options.validation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewExamples)  # which classes a part lacks is told of the run's data
        if given is not None or options.folds is not None:
            if given is not None and options.folds is not None:
                raise OptionError(
                    f"{every.name} comes with a test part, and folds is {options.folds}; leave --folds out."
                )
            left, test = _fold(labels, options) if given is None else (torch.arange(len(every)), None)
            train, validation = split_by_class([labels[n] for n in left.tolist()], (1 - held, held), options.split_seed)
            rows = [left[train], left[validation], test]
        elif options.test == 0.0:
            rows = [*split_by_class(labels, (1 - held, held), options.split_seed), None]
        else:
            shares = (1 - held - options.test, held, options.test)
            rows = [*split_by_class(labels, shares, options.split_seed)]
    parts = {
        name: every.take(own)
        for name, own in zip(("train", "validation", "test"), rows, strict=True)
        if own is not None
    }
    if given is not None:
        parts["test"] = given
    return parts


def _fold(labels: list[str], options: Split) -> tuple[Tensor, Tensor]:
    assert options.folds is not None
    if options.fold is None:
        raise OptionError(f"folds is {options.folds}, and no fold is chosen; pass fold, or call ostinato.tasks.repeat.")
    return folds(labels, options.folds, options.split_seed)[options.fold]


def _of_classes(examples: Examples, classes: set[str]) -> Examples:
    return examples.take([n for n, label in enumerate(examples.needed_labels()) if label in classes])


def _facts(parts: dict[str, Examples], classes: tuple[str, ...]) -> list[str]:
    """Of these parts: sizes, what is in two of them, classes that one lacks."""
    sizes = ", ".join(f"{len(part):,} for {_PURPOSES[name]}" for name, part in parts.items())
    told = [f"{sizes}; {len(classes)} classes"]
    known = set(parts["train"].texts or ())
    for name, part in parts.items():
        if name == "train":
            continue
        again = sum(text in known for text in part.texts or ())
        if again:
            told.append(f"{again:,} texts of the {name} part stand in the training part too")
        if lacking := sorted(set(classes) - set(part.needed_labels())):
            told.append(f"the {name} part has no example of {listed(lacking)}")
    return told


_PURPOSES = {"train": "training", "validation": "validation", "test": "the test"}
