"""How well the answers at the steps of a part are given: one gatherer for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...training.task import WHOLE, Share
from .config import EventOptions
from .peaks import Matched, heart_rate, match, pick, refine, steady_level
from .scheme import Part, Scheme
from .windows import Piece, Windows

__all__ = [
    "EventGatherer",
    "Gatherer",
    "MultiGatherer",
    "TagGatherer",
    "gather",
    "logits_of",
    "summed_loss",
    "told",
]

_FLOOR = 0.01  # peaks below are never detections
_THRESHOLDS = (0.01, 0.02, 0.03, *(k / 20 for k in range(1, 20)), 0.97)


def summed_loss(kind: str, logits: Tensor, answers: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over steps and labels.

        tags:           - Σ_t log softmax(logits_t)[y_t]
        multi, events:  - Σ_t Σ_k log σ(±logits_tk), + where y_tk = 1

    Args:
        kind: "tags", "multi" or "events".
        logits: [n, K].
        answers: [n] integers, or [n, K] of 0 and 1.
    """
    if kind == "tags":
        return F.cross_entropy(logits, answers, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, answers.to(logits.dtype), reduction="sum")


class Gatherer(Protocol):
    """Takes steps as they come, and says at the end how well they were answered."""

    @property
    def names(self) -> tuple[str, ...]:
        """The measures, in order."""
        ...

    def add(self, logits: Tensor, answers: Tensor, where: Tensor) -> None:
        """Steps: logits [n, K], answers [n] or [n, K], and which steps of the part they are, [n]."""
        ...

    def measures(self, share: Share) -> dict[str, float]:
        """The measures over all processes' steps."""
        ...


def gather(
    model: nn.Module,
    windows: Windows,
    gatherer: Gatherer,
    share: Share = WHOLE,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """The measures of a part, each step counted once, after the steps before it; None where stopped midway.

    Args:
        model: in evaluation mode.
        windows: of the part, whose answers are known.
        gatherer: fresh.
        share: which of the windows this process reads.
        should_stop: asked now and then.
    """
    device = next(model.parameters()).device
    for piece in windows.pieces(share):
        if should_stop():
            return None
        piece = piece.to(device)
        assert piece.answers is not None
        logits = logits_of(model, piece)
        gatherer.add(logits, piece.counted(piece.answers), piece.counted(piece.where))
    return gatherer.measures(share)


def logits_of(model: nn.Module, piece: Piece) -> Tensor:
    """The logits of the steps of a piece that count, [n, K] float32, from a model of any dtype."""
    weight = next(model.parameters())
    piece = piece.to(weight.device)
    inputs = piece.inputs.to(weight.dtype) if piece.inputs.is_floating_point() else piece.inputs
    logits, _ = model(inputs, piece.lengths)  # [T, B, K]
    return piece.counted(logits).float()


class _Loss:
    """The mean negative log-likelihood of a step."""

    def __init__(self, kind: str, device: torch.device) -> None:
        self.kind, self.device = kind, device
        self.nats, self.steps = 0.0, 0

    def add(self, logits: Tensor, answers: Tensor) -> None:
        self.nats += float(summed_loss(self.kind, logits, answers))
        self.steps += len(logits)

    def mean(self, share: Share) -> float:
        wide = torch.float32 if self.device.type == "mps" else torch.float64  # which has no float64
        nats, steps = share.summed(torch.tensor([self.nats, self.steps], dtype=wide, device=self.device)).tolist()
        return nats / max(steps, 1.0)


class TagGatherer:
    """Of tags: nats a step, the share that is right, and F1 as a mean over the tags that occur.

    Args:
        count: K.
        device: where the logits are.

    Attributes:
        confusion: after `measures`, how often each tag [rows] was given each tag [columns].
    """

    names = ("nll", "accuracy", "f1")

    def __init__(self, count: int, device: torch.device) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.loss = _Loss("tags", device)
        self.counted: Any = MulticlassConfusionMatrix(count).to(device)
        self.confusion = torch.zeros(count, count, dtype=torch.int64)
        # A process without steps has gathered nothing, which is no mistake.
        self.add(torch.zeros(0, count, device=device), *torch.zeros(2, 0, dtype=torch.int64, device=device))

    def add(self, logits: Tensor, answers: Tensor, where: Tensor) -> None:
        """See `Gatherer`."""
        self.loss.add(logits, answers)
        self.counted.update(logits.argmax(1), answers)

    def measures(self, share: Share) -> dict[str, float]:
        """See `Gatherer`."""
        self.confusion = self.counted.compute().cpu()
        table = self.confusion.double()
        right, given, true = table.diag(), table.sum(0), table.sum(1)
        f1 = 2 * right / (given + true).clamp(min=1.0)
        occurs = given + true > 0
        return {
            "nll": self.loss.mean(share),
            "accuracy": float(right.sum() / true.sum().clamp(min=1.0)),
            "f1": float(f1[occurs].mean()) if bool(occurs.any()) else 0.0,
        }


class MultiGatherer:
    """Of several labels: nats a step, summed over its labels; true among true or given; F1 over all labels at once.

    Accuracy is TP / (TP + FP + FN) (Bay, Ehmann & Downie 2009), with a label given where its probability is above 1/2.

    Args:
        device: where the logits are.
    """

    names = ("nll", "accuracy", "f1")

    def __init__(self, device: torch.device) -> None:
        from torchmetrics.classification import BinaryConfusionMatrix

        self.loss = _Loss("multi", device)
        self.counted: Any = BinaryConfusionMatrix().to(device)
        none = torch.zeros(0, 1, device=device)
        self.add(none, none, none[:, 0])  # as for tags

    def add(self, logits: Tensor, answers: Tensor, where: Tensor) -> None:
        """See `Gatherer`."""
        self.loss.add(logits, answers)
        given, true = (logits > 0).flatten().int(), answers.flatten().int()
        self.counted.update(given, true)

    def measures(self, share: Share) -> dict[str, float]:
        """See `Gatherer`."""
        (_, false), (missed, right) = self.counted.compute().tolist()
        return {
            "nll": self.loss.mean(share),
            "accuracy": right / max(right + missed + false, 1),
            "f1": 2 * right / max(2 * right + missed + false, 1),
        }


class EventGatherer:
    """Of events: what is detected, against what is there.

    A detection is a peak of the probability that no higher one is near, above a threshold; it is right where it is
    matched, one to one, to an event within the tolerance.

        precision = right / detections    recall = right / events    F1 = 2 right / (detections + events)

    Beside them the mean distance of matched pairs in milliseconds and, over records, the mean and the largest error
    of the mean rate in events a minute.

    Args:
        part: with its events.
        scheme: its frames and rate.
        options: tolerance and refractory time.
        device: where the logits are.
        threshold: of a detection; None: the middle of those that are about as good as the best on this part (see
            `steady_level`).

    Attributes:
        probabilities: of every step of the part, [S]; after `measures`, those that other processes read too.
    """

    names = ("nll", "f1", "precision", "recall", "timing_error", "rate_error", "worst_rate_error", "threshold")

    def __init__(
        self,
        part: Part,
        scheme: Scheme,
        options: EventOptions,
        device: torch.device,
        threshold: float | None = None,
    ) -> None:
        assert scheme.rate is not None
        self.part, self.frame, self.rate = part, scheme.frame, scheme.rate
        self.tolerance = options.tolerance * scheme.rate / 1000.0  # samples
        self.reach = 1 + 2 * -(-scheme.spread // scheme.frame)  # steps, beyond the other end of a flat top
        self.distance = max(1, round(options.refractory * scheme.rate / 1000.0 / scheme.frame))  # steps
        self.threshold = threshold
        self.loss = _Loss("events", device)
        self.probabilities = torch.zeros(part.steps, device=device)

    def add(self, logits: Tensor, answers: Tensor, where: Tensor) -> None:
        """See `Gatherer`."""
        self.loss.add(logits, answers)
        self.probabilities[where] = logits[:, 0].sigmoid()

    def measures(self, share: Share) -> dict[str, float]:
        """See `Gatherer`."""
        self.probabilities = share.summed(self.probabilities)
        candidates = self.peaks()
        truth = [self.part.events(n).numpy() for n in range(len(self.part))]
        threshold = self.threshold if self.threshold is not None else self._best(truth, candidates)
        found = [samples[heights >= threshold] for samples, heights in candidates]
        matched = [match(t, f, self.tolerance) for t, f in zip(truth, found, strict=True)]
        right = sum(len(m.pairs) for m in matched)
        events, detections = sum(m.events for m in matched), sum(m.detections for m in matched)
        apart = np.concatenate(
            [np.abs(t[m.pairs[:, 0]] - f[m.pairs[:, 1]]) for t, f, m in zip(truth, found, matched, strict=True)]
        )
        rates = [
            abs(heart_rate(t, self.rate) - heart_rate(f, self.rate))
            for t, f in zip(truth, found, strict=True)
            if len(t) > 1
        ]
        return {
            "nll": self.loss.mean(share),
            "f1": _f1(matched),
            "precision": right / max(detections, 1),
            "recall": right / max(events, 1),
            "timing_error": float(apart.mean() * 1000.0 / self.rate) if len(apart) else 0.0,
            "rate_error": sum(rates) / max(len(rates), 1),
            "worst_rate_error": max(rates, default=0.0),
            "threshold": threshold,
        }

    def peaks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each record the samples of its peaks and their heights, whatever the threshold."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for p in self.probabilities.cpu().split(self.part.inputs.lengths.tolist()):
            p = p.numpy()
            steps = pick(p, self.distance, _FLOOR)
            found.append((refine(p, steps, self.frame, self.reach), p[steps]))
        return found

    def _best(self, truth: list[np.ndarray], candidates: list[tuple[np.ndarray, np.ndarray]]) -> float:
        """The threshold that a run keeps."""
        right, total = np.zeros((2, len(_THRESHOLDS)))
        for k, level in enumerate(_THRESHOLDS):
            for t, (s, h) in zip(truth, candidates, strict=True):
                matched = match(t, s[h >= level], self.tolerance)
                right[k] += len(matched.pairs)
                total[k] += matched.events + matched.detections
        return steady_level(np.array(_THRESHOLDS), right, total)


def _f1(matched: list[Matched]) -> float:
    right = sum(len(m.pairs) for m in matched)
    return 2 * right / max(sum(m.events + m.detections for m in matched), 1)


def told(kind: str, measures: Mapping[str, float], labels: int) -> str:
    """Measures in words, on one line."""
    if kind == "events":
        return (
            f"F1 {measures['f1']:.4f} (precision {measures['precision']:.4f}, recall {measures['recall']:.4f}), "
            f"{measures['timing_error']:.1f} ms off, rate {measures['rate_error']:.3f} a minute off"
        )
    nats = f"{measures['nll']:.4f} nats a step"
    if kind == "multi":
        nats += f" over {labels} labels"
    return f"{nats}, accuracy {100 * measures['accuracy']:.2f} %, F1 {measures['f1']:.4f}"
