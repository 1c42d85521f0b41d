"""How well predictions fit labels: accuracy, macro F1, nats, calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...training.task import WHOLE, Share
from ..common.batches import in_order
from .data import Part

__all__ = ["BINS", "Scores", "predicted", "scored"]

BINS = 15


@dataclass(frozen=True)
class Scores:
    """What a model said of N labelled sequences.

    Args:
        guesses: the most likely class of each, [N] int64.
        confidences: its probability, [N] float64.
        nats: -log of the probability of the true class, [N] float64.
        labels: the true classes, [N] int64.
        classes: K.
    """

    guesses: Tensor
    confidences: Tensor
    nats: Tensor
    labels: Tensor
    classes: int

    def measures(self) -> dict[str, float]:
        """Accuracy, the mean of the classes' F1 (of those that are there or were guessed), and mean nats."""
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

        given = {"preds": self.guesses, "target": self.labels, "num_classes": self.classes, "validate_args": False}
        return {
            "accuracy": float(multiclass_accuracy(**given, average="micro")),
            "macro_f1": float(multiclass_f1_score(**given, average="macro")),
            "loss": float(self.nats.mean()),
        }

    def confusion(self) -> Tensor:
        """How often a class (row) was taken for another (column), [K, K] int64."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.guesses, self.labels, self.classes, validate_args=False)

    def reliability(self) -> tuple[Tensor, Tensor, Tensor]:
        """Guesses in bins of equal width by their confidence: how many, their mean confidence, how many were right.

        Returns:
            count, confidence and accuracy, each [BINS] float64; 0 where a bin is empty.
        """
        bins = (self.confidences * BINS).ceil().long().clamp(1, BINS) - 1  # a bin holds its upper end
        right = (self.guesses == self.labels).double()
        count, confidence, accuracy = (
            torch.bincount(bins, weights=weights, minlength=BINS)
            for weights in (torch.ones_like(right), self.confidences, right)
        )
        whole = count.clamp(min=1)
        return count, confidence / whole, accuracy / whole

    def calibration_error(self) -> float:
        """The expected calibration error: Σ over bins of their share times |accuracy - confidence| (Naeini 2015)."""
        count, confidence, accuracy = self.reliability()
        return float((count * (accuracy - confidence).abs()).sum() / count.sum().clamp(min=1))


def scored(
    model: nn.Module,
    part: Part,
    classes: int,
    share: Share = WHOLE,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """What a model, in evaluation mode, says of a part; None where `should_stop` said so midway.

    Args:
        model: called as `model(inputs, lengths)`, gives logits [B, K].
        part: with labels.
        classes: K.
        share: which of the sequences this process reads; each gets the results of all.
        should_stop: asked now and then.
    """
    device = next(model.parameters()).device
    found = torch.zeros(3, len(part), device=device)  # guess, confidence, nats
    for rows in in_order(part.sequences.lengths, share):
        if should_stop():
            return None
        logs = _logs(model, part, rows)  # [B, K]
        confidence, guess = logs.max(1)
        nats = F.nll_loss(logs, part.targets[rows].to(device), reduction="none")
        found[:, rows.to(device)] = torch.stack([guess.float(), confidence.exp(), nats])
    guesses, confidences, nats = share.summed(found).cpu().double()
    return Scores(guesses.long(), confidences, nats, part.targets, classes)


def predicted(model: nn.Module, part: Part, classes: int) -> Tensor:
    """The probabilities of the classes, [N, K] float64 on the CPU; the model is in evaluation mode."""
    found = torch.zeros(len(part), classes, dtype=torch.float64)
    with torch.inference_mode():
        for rows in in_order(part.sequences.lengths, WHOLE):
            found[rows] = _logs(model, part, rows).cpu().double().exp()
    return found


def _logs(model: nn.Module, part: Part, rows: Tensor) -> Tensor:
    weights = next(model.parameters())
    inputs, lengths = part.sequences.padded(rows)
    inputs = inputs.to(weights) if inputs.is_floating_point() else inputs.to(weights.device)
    logits = model(inputs, lengths.to(weights.device))
    return F.log_softmax(logits.float(), 1)
