"""Sequences as they were found, with their answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...data import Sequences
from ...errors import DataError

__all__ = ["Found"]


@dataclass(frozen=True, eq=False)
class Found:
    """N sequences.

    Args:
        kind: "tags", "multi" or "events".
        name: what the errors call them.
        inputs: numbers of words [S], or features [S, D].
        words: what the numbers stand for; empty where there are features.
        answers: numbers of labels [S] (tags), or a 1 for each label that holds [S, K] (multi); None: not given.
        labels: the tags or labels, K of them.
        places: the line of the file that each step stands on, [S]; None where there are no lines.
        next_frame: the answer is the frame itself, to be foretold from those before it.
        parts: rows of "train", "validation" and "test", where the data come in parts.
        names: of the sequences; none but of records.
        events: the samples at which events stand, [K_n] each; None: not given.
        rate: samples a second, of events.
    """

    kind: str
    name: str
    inputs: Sequences
    words: list[str] = field(default_factory=list)
    answers: Sequences | None = None
    labels: list[str] = field(default_factory=list)
    places: Tensor | None = None
    next_frame: bool = False
    parts: dict[str, Tensor] | None = None
    names: list[str] = field(default_factory=list)
    events: list[Tensor] | None = None
    rate: float | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def called(self, row: int) -> str:
        """What a sequence is called: its name, or its number from 1."""
        return self.names[row] if self.names else str(row + 1)

    def at(self, step: int) -> str:
        """Where a step, counted over all sequences, stands."""
        if self.places is not None:
            return f"{self.name}, line {int(self.places[step])}"
        row = int(torch.searchsorted(self.inputs.lengths.cumsum(0), step, right=True))
        within = step - int(self.inputs.lengths[:row].sum())
        return f"{self.name}, sequence {self.called(row)}, step {within + 1}"

    def need_answers(self) -> None:
        """See that there are answers.

        Raises:
            DataError: there are none.
        """
        if self.answers is None and self.events is None:
            what = {"tags": "tags", "multi": "targets", "events": "events"}[self.kind]
            raise DataError(f"{self.name} has no {what}, so there is nothing to compare with; pass data that have.")

    def sha256(self) -> str:
        """What their content is known by."""
        total = hashlib.sha256()
        tensors = [self.inputs.values, self.inputs.lengths, *(self.events or ())]
        if self.answers is not None:
            tensors.append(self.answers.values)
        for text in (self.kind, str(self.rate), *self.words, *self.labels, *self.names):
            total.update(f"{text}\n".encode("utf-8", "surrogatepass"))
        for tensor in (*tensors, *(self.parts or {}).values()):
            total.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
            total.update(tensor.contiguous().numpy().tobytes())
        return total.hexdigest()
