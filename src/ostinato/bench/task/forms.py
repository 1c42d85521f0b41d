"""The forms in which a cell is measured: plain, as sequences of several lengths, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from .contest import TOLERANCE, Problem, TorchContestant

__all__ = ["FORMS", "PLAIN", "Form"]

# Two ways of rounding to 8 bits: gradients of an lstm, H = 256, over 100 steps differ by 0.6 % of their norm, and each
# by as much from float32.
NARROW_TOLERANCE = 2e-2


@dataclass(frozen=True)
class Form:
    """What is different from plain float32 over sequences of one length.

    Args:
        name: plain, packed, bfloat16 or autocast.
        dtype: of weights, x and the gradient that arrives; autocast: the forward pass runs in torch.autocast.
        peers: who is measured beside ours in this form alone.
        tolerance: how far values may be apart, relative to their norm.
    """

    name: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    peers: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    @property
    def products(self) -> torch.dtype:
        """The dtype in which products are made."""
        return torch.bfloat16 if self.autocast else self.dtype

    def contestant(
        self,
        problem: Problem,
        forward: Callable[[Any, Any], tuple[Any, Any]],
        parameters: Sequence[Tensor],
        gradients: Callable[[], Mapping[str, Tensor]],
    ) -> TorchContestant:
        """A contestant in this form."""
        if self.name == "packed":
            return _packed(problem, forward, parameters, gradients)
        around = (lambda: torch.autocast("cpu", dtype=torch.bfloat16)) if self.autocast else nullcontext
        return TorchContestant(problem, forward, parameters, gradients, self.dtype, around)


# Peers called "ours ..." are our own layer in another form; their ratios say what a form costs or saves.
FORMS: dict[str, Form] = {
    "plain": Form("plain"),
    "packed": Form("packed", peers=("ours lengths=", "ours padded", "torch.nn padded")),
    "bfloat16": Form(
        "bfloat16", torch.bfloat16, peers=("ours float32", "torch.nn float32"), tolerance=NARROW_TOLERANCE
    ),
    "autocast": Form("autocast", autocast=True, peers=("ours float32", "torch.nn float32"), tolerance=NARROW_TOLERANCE),
}
PLAIN = FORMS["plain"]


def pack(problem: Problem, whole: Tensor) -> PackedSequence:
    """The steps [T, B, S] that lie before the ends of the sequences."""
    return pack_padded_sequence(whole, problem.lengths, enforce_sorted=False)


def _packed(
    problem: Problem,
    forward: Callable[[Any, Any], tuple[Any, Any]],
    parameters: Sequence[Tensor],
    gradients: Callable[[], Mapping[str, Tensor]],
) -> TorchContestant:
    like = pack(problem, problem.x)
    return TorchContestant(
        problem,
        forward,
        parameters,
        gradients,
        lay=lambda whole: pack(problem, whole).data,
        given=lambda data: PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices),
        flat=lambda output: output.data,
    )
