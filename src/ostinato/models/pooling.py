"""From the outputs at all steps to one vector for each sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..nn.checks import Lengths, check_sizes, lengths_tensor
from ..nn.wiring import at_the_end
from .checks import real_steps

__all__ = ["POOLINGS", "AttentionPooling", "Pooling", "check_nonempty", "max_pool", "mean_pool"]

POOLINGS = ("last", "mean", "max", "attention")


def mean_pool(output: Tensor, lengths: Lengths | None = None) -> Tensor:
    """The mean over a sequence's own steps: output [T, B, O], lengths [B] -> [B, O].

    >>> mean_pool(torch.arange(4.0).view(4, 1, 1), [3])
    tensor([[1.]])
    """
    if lengths is None:
        return output.mean(0)
    real = real_steps(output, lengths)
    total = output.masked_fill(~real.unsqueeze(2), 0.0).sum(0)
    return total / real.sum(0).unsqueeze(1)


def max_pool(output: Tensor, lengths: Lengths | None = None) -> Tensor:
    """The greatest value over a sequence's own steps, each feature by itself: [T, B, O] -> [B, O].

    >>> max_pool(torch.arange(4.0).view(4, 1, 1), [3])
    tensor([[2.]])
    """
    if lengths is None:
        return output.amax(0)
    return output.masked_fill(~real_steps(output, lengths).unsqueeze(2), -torch.inf).amax(0)


class AttentionPooling(nn.Module):
    """A mean whose weights are learned: additive attention with one query (Bahdanau et al. 2015; Yang et al. 2016).

        u_t = v · tanh(W y_t + b)
        a = softmax(u) over the sequence's own steps
        pooled = Σ_t a_t y_t

    Args:
        size: O, the width of y.
        attention_size: A, the rows of W; None means O.

    Call:
        ``pooled = pooling(output, lengths=None)``, output [T, B, O]; gives [B, O].

    >>> AttentionPooling(8)(torch.zeros(5, 2, 8), lengths=[5, 3]).shape
    torch.Size([2, 8])
    """

    def __init__(self, size: int, attention_size: int | None = None) -> None:
        super().__init__()
        attention_size = size if attention_size is None else attention_size
        check_sizes(attention_size=attention_size)
        self.projection = nn.Linear(size, attention_size)
        self.query = nn.Linear(attention_size, 1, bias=False)

    def weights(self, output: Tensor, lengths: Lengths | None = None) -> Tensor:
        """The weights a [T, B] of the steps, 0 past an end: what a picture of the model shows."""
        scores = self.query(torch.tanh(self.projection(output))).squeeze(2)  # [T, B]
        if lengths is not None:
            scores = scores.masked_fill(~real_steps(output, lengths), -torch.inf)
        return scores.softmax(0)

    def forward(self, output: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class."""
        if lengths is not None:  # 0 times what is no number would be no number
            output = output.masked_fill(~real_steps(output, lengths).unsqueeze(2), 0.0)
        return (self.weights(output, lengths).unsqueeze(2) * output).sum(0)


class Pooling(nn.Module):
    """One vector of each sequence, by one kind of pooling or by several beside each other (Howard & Ruder 2018).

    Args:
        kinds: of "last", "mean", "max" and "attention": a name, or several of them.
        size: O, the width of what is pooled.
        directions: 2 if the last half of O is that of a reverse direction, whose last output is the first in time.
        attention_size: as `AttentionPooling` takes it.

    Attributes:
        kinds: all of them.
        output_size: O for each kind.

    Call:
        ``pooled = pooling(output, lengths=None)``, output [T, B, O]; gives [B, output_size].

    Raises:
        ShapeError: an unknown kind; a sequence without steps.

    >>> Pooling(("last", "mean", "max"), 8)(torch.zeros(5, 2, 8)).shape
    torch.Size([2, 24])
    """

    def __init__(
        self,
        kinds: str | Sequence[str],
        size: int,
        directions: int = 1,
        attention_size: int | None = None,
    ) -> None:
        super().__init__()
        self.kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or any(k not in POOLINGS for k in self.kinds):
            raise ShapeError(f"pooling is {kinds!r}; give one of {', '.join(POOLINGS)}, or several, each once.")
        if attention_size is not None and "attention" not in self.kinds:
            raise ShapeError(f"attention_size is {attention_size}, but pooling is {kinds!r}; leave it out.")
        self.size = size
        self.directions = directions
        self.output_size = size * len(self.kinds)
        self.attention = AttentionPooling(size, attention_size) if "attention" in self.kinds else None

    def forward(self, output: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class."""
        check_nonempty(output, lengths)
        return torch.cat([self._pooled(kind, output, lengths) for kind in self.kinds], 1)

    def _pooled(self, kind: str, output: Tensor, lengths: Lengths | None) -> Tensor:
        if kind == "mean":
            return mean_pool(output, lengths)
        if kind == "max":
            return max_pool(output, lengths)
        if self.attention is not None and kind == "attention":
            return self.attention(output, lengths)
        own = None if lengths is None else lengths_tensor(lengths, output.shape[1], output.shape[0])
        if self.directions == 1:
            return at_the_end(output, own)
        half = self.size // 2
        return torch.cat([at_the_end(output[..., :half], own), output[0, :, half:]], 1)


def check_nonempty(x: Tensor, lengths: Lengths | None) -> None:
    """Each sequence of x [T, B, ...] has a step: what has none cannot be pooled.

    Raises:
        ShapeError: one has none.
    """
    if not x.shape[0]:
        raise ShapeError(f"the input has no steps (shape {list(x.shape)}); give sequences of at least one.")
    if lengths is not None and not torch.compiler.is_compiling():
        for b, n in enumerate(lengths_tensor(lengths, x.shape[1], x.shape[0]).tolist()):
            if n == 0:
                raise ShapeError(f"lengths[{b}] = 0: a sequence without steps has no class; leave it out of the batch.")
