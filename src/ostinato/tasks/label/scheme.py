"""How sequences become numbers: what a checkpoint keeps, so that new data are read as those were that it learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...data import Sequences
from ...errors import DataError
from .config import EventOptions, LabelConfig
from .found import Found

__all__ = ["Part", "Scheme"]

UNKNOWN = 0  # the number of every word that the model does not know


@dataclass(frozen=True, eq=False)
class Part:
    """Sequences as a model reads them.

    Args:
        found: where they are from.
        rows: which of its sequences they are, [N].
        inputs: numbers of words [S], or features [S, D].
        answers: numbers of tags [S], or 0 and 1 [S, K]; None: not known.
    """

    found: Found
    rows: Tensor
    inputs: Sequences
    answers: Sequences | None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def steps(self) -> int:
        """S."""
        return len(self.inputs.values)

    def names(self) -> list[str]:
        """What its sequences are called."""
        return [self.found.called(row) for row in self.rows.tolist()]

    def events(self, n: int) -> Tensor:
        """The samples at which the events of its n-th sequence stand."""
        assert self.found.events is not None
        return self.found.events[int(self.rows[n])]


@dataclass(frozen=True)
class Scheme:
    """What is learned of the training part beside the weights.

    Args:
        kind: "tags", "multi" or "events".
        labels: the tags or labels, K of them; the one kind of events.
        words: those that are known, numbered from 1; empty where there are features.
        width: D of the features, before they are put into frames; 0 where there are words.
        next_frame: the inputs are the frames before those that are foretold.
        normalize: "none", "train" or "record".
        mean, deviation: of the features, where normalize is "train".
        frame: samples in a step, of events; else 1.
        rate: samples a second, of events.
        detrend: samples over which a running mean is taken off each signal, odd; 0: none is.
        spread: samples on each side of an event whose steps hold it too.
    """

    kind: str
    labels: list[str]
    words: list[str] = field(default_factory=list)
    width: int = 0
    next_frame: bool = False
    normalize: str = "none"
    mean: list[float] = field(default_factory=list)
    deviation: list[float] = field(default_factory=list)
    frame: int = 1
    rate: float | None = None
    detrend: int = 0
    spread: int = 0

    @classmethod
    def of(cls, config: LabelConfig, found: Found, train: Tensor) -> Scheme:
        """From the rows of the training part."""
        own = found.inputs.take(train)
        detrend = 0
        if found.rate is not None and config.events.detrend is not None:
            detrend = 2 * round(config.events.detrend * found.rate / 2) + 1
            own = Sequences.of([detrended(own[n], detrend) for n in range(len(own))])
        words: list[str] = []
        if found.words:
            counts = Counter(own.values.tolist())
            words = [word for n, word in enumerate(found.words) if counts[n] >= config.steps.min_count]
        normalize = config.reading.normalize
        if normalize == "auto":
            normalize = "record" if found.kind == "events" else "none" if found.next_frame else "train"
        if found.words:
            normalize = "none"
        fitted = normalize == "train"
        return cls(
            found.kind,
            list(found.labels),
            words,
            0 if found.words else own.values.shape[1],
            found.next_frame,
            normalize,
            own.values.double().mean(0).tolist() if fitted else [],
            own.values.double().std(0, correction=0).tolist() if fitted else [],
            config.events.frame if found.kind == "events" else 1,
            found.rate,
            detrend,
            _spread(config.events, found.rate),
        )

    @property
    def num_labels(self) -> int:
        """K, how many numbers the model gives at each step."""
        return len(self.labels)

    @property
    def input_size(self) -> int:
        """Width of what the model reads at each step, where it is features."""
        return self.width * self.frame

    def part(self, found: Found, rows: Tensor | None = None, answered: bool = True) -> Part:
        """Some sequences in numbers.

        Args:
            found: the sequences.
            rows: which of them; None: all.
            answered: whether the tags or labels, where there are some, are looked at.

        Raises:
            DataError: of another kind than what was learned, or with an answer that the model does not know.
        """
        rows = torch.arange(len(found)) if rows is None else rows
        if found.next_frame and not self.next_frame:  # features that happen to be 0 and 1, without answers
            found = replace(found, kind=self.kind, answers=None, labels=[], next_frame=False)
        self._check(found)
        if self.kind == "events":
            return self._records(found, rows)
        answers = None
        if answered and found.answers is not None:
            answers = Sequences(self._answers(found), found.answers.lengths).take(rows)
        return Part(found, rows, self._inputs(found, rows), answers)

    def _check(self, found: Found) -> None:
        # Features without answers may be any kind's.
        if found.kind != self.kind and (found.answers is not None or "events" in (found.kind, self.kind)):
            raise DataError(
                f"{found.name} holds data for {found.kind}, the model is for {self.kind}; pass data like its own."
            )
        if bool(found.words) != bool(self.words) and not self.width == 0:
            raise DataError(f"{found.name} holds tokens, the model reads features; pass data like its own.")
        if not found.words and self.width == 0:
            raise DataError(f"{found.name} holds features, the model reads tokens; pass data like its own.")
        if not found.words and found.inputs.values.shape[1] != self.width:
            raise DataError(
                f"{found.name} has {found.inputs.values.shape[1]} features at each step, the model reads {self.width}."
            )
        if self.next_frame and not found.next_frame:
            raise DataError(
                f"{found.name} holds no frames of 0 and 1 alone, which the model foretells; pass piano rolls."
            )
        if self.rate is not None and found.rate != self.rate:
            raise DataError(
                f"{found.name} has {found.rate:g} samples a second, the model learned {self.rate:g}; resample it."
            )

    def _inputs(self, found: Found, rows: Tensor) -> Sequences:
        if found.words:
            known = {word: n for n, word in enumerate(self.words, start=1)}
            number = torch.tensor([known.get(word, UNKNOWN) for word in found.words], dtype=torch.int64)
            return Sequences(number[found.inputs.values], found.inputs.lengths).take(rows)
        own = found.inputs.take(rows)
        if self.next_frame:
            return Sequences.of([shifted(own[n]) for n in range(len(own))]) if len(own) else own
        return Sequences.of([self._scaled(own[n]) for n in range(len(own))]) if len(own) else own

    def _scaled(self, x: Tensor) -> Tensor:
        """Features [T, D] in the units that the model reads; what never changed stays 0."""
        if self.normalize == "none" or not len(x):
            return x
        if self.normalize == "train":
            mean, deviation = torch.tensor(self.mean), torch.tensor(self.deviation)
        else:
            mean, deviation = x.double().mean(0).float(), x.double().std(0, correction=0).float()
        return (x - mean) / torch.where(deviation > 1e-8, deviation, 1.0)

    def _answers(self, found: Found) -> Tensor:
        assert found.answers is not None
        values = found.answers.values
        if found.next_frame:
            return values
        known = {label: n for n, label in enumerate(self.labels)}
        number = torch.tensor([known.get(label, -1) for label in found.labels], dtype=torch.int64)
        if bool((number < 0).any()):
            used = number[values] < 0 if values.dim() == 1 else values[:, number < 0].any(1)
            if bool(used.any()):
                step = int(used.nonzero()[0])
                strange = values[step] if values.dim() == 1 else ((values[step] > 0) & (number < 0)).nonzero()[0]
                raise DataError(
                    f"{found.at(step)}: {found.labels[int(strange)]!r} is a label the model never learned; it knows "
                    f"{_listed(self.labels)}."
                )
        if values.dim() == 1:
            return number[values]
        there = number >= 0
        out = torch.zeros(len(values), len(self.labels))
        out[:, number[there]] = values[:, there]
        return out

    def _records(self, found: Found, rows: Tensor) -> Part:
        """Signals in frames [F, D frame], and whether an event lies in each or near it, [F, 1]."""
        inputs: list[Tensor] = []
        answers: list[Tensor] = []
        for row in rows.tolist():
            x = found.inputs[row]
            x = self._scaled(detrended(x, self.detrend) if self.detrend else x)
            steps = -(-len(x) // self.frame)
            x = torch.cat([x, x[-1:].expand(steps * self.frame - len(x), -1)])
            inputs.append(x.reshape(steps, -1))
            if found.events is not None:
                y = torch.zeros(steps, 1)
                reach = torch.arange(-self.spread, self.spread + 1)
                y[((found.events[row][:, None] + reach) // self.frame).clamp(0, steps - 1)] = 1.0
                answers.append(y)
        return Part(found, rows, Sequences.of(inputs), Sequences.of(answers) if answers else None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Any) -> Scheme:
        """From what `to_json` gave."""
        return cls(**value)


def _spread(options: EventOptions, rate: float | None) -> int:
    """Samples on each side of an event whose steps hold it too."""
    milliseconds = options.tolerance / 4 if options.spread is None else options.spread
    return 0 if rate is None else round(milliseconds * rate / 1000.0)


def shifted(frames: Tensor) -> Tensor:
    """Before each frame the one before it, and before the first one nothing: zeros. [T, K]."""
    return torch.cat([torch.zeros_like(frames[:1]), frames[:-1]])


def detrended(x: Tensor, width: int) -> Tensor:
    """A signal [T, C] without its running mean over `width` samples around each, fewer near its ends.

    >>> detrended(torch.tensor([[1.0], [2.0], [3.0], [7.0]]), 3).flatten().tolist()
    [-0.5, 0.0, -1.0, 2.0]
    """
    total = torch.cat([x.new_zeros(1, x.shape[1], dtype=torch.float64), x.double().cumsum(0)])
    at = torch.arange(len(x))
    start, stop = (at - width // 2).clamp(min=0), (at + width // 2 + 1).clamp(max=len(x))
    return (x.double() - (total[stop] - total[start]) / (stop - start)[:, None]).float()


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:12])
    return shown if len(labels) <= 12 else f"{shown} and {len(labels) - 12} more"
