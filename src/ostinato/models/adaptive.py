"""Large vocabularies: the adaptive softmax, and an embedding that reads its matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ShapeError
from ..nn.checks import Lengths
from .checks import check_rates
from .sources import check_tokens, drop_words

__all__ = ["AdaptiveInput", "adaptive_nll", "adaptive_softmax"]


def adaptive_softmax(
    size: int, vocab_size: int, cutoffs: Sequence[int], div_value: float = 4.0
) -> nn.AdaptiveLogSoftmaxWithLoss:
    """torch's adaptive softmax, checked (Grave, Joulin, Cissé, Grangier & Jégou 2017).

    Tokens are numbered by falling frequency. The first `cutoffs[0]` stand in the head with one entry for each further
    band; band k is asked only where the target is in it, and through a width of size / div_value^k.

        log p(w | y) = log softmax(H y)_w                                       w in the head
        log p(w | y) = log softmax(H y)_band + log softmax(E_k P_k y)_w         w in band k

    Args:
        size: O, the width of y.
        vocab_size: V.
        cutoffs: where bands end, rising, each in 1..V-1; V ends the last.
        div_value: how much narrower each band is than the one before it.

    Raises:
        ShapeError: cutoffs that do not rise, or a band of no width.

    >>> adaptive_softmax(16, 1000, [100, 400]).log_prob(torch.zeros(3, 16)).shape
    torch.Size([3, 1000])
    """
    ends = list(cutoffs)
    rising = all(isinstance(c, int) and not isinstance(c, bool) for c in ends) and ends == sorted(set(ends))
    if not ends or not rising or not (ends[0] >= 1 and ends[-1] < vocab_size):
        raise ShapeError(
            f"adaptive is {ends}; give the token numbers where bands end, rising and within 1..{vocab_size - 1}, as "
            f"[{max(1, vocab_size // 10)}]."
        )
    if not div_value >= 1.0 or size // div_value ** len(ends) < 1:
        raise ShapeError(
            f"div_value is {div_value}: of a width of {size} nothing would be left for band {len(ends)}; pass 1.0 or "
            "more, and less than that."
        )
    return nn.AdaptiveLogSoftmaxWithLoss(size, vocab_size, ends, div_value, head_bias=True)


def adaptive_nll(softmax: nn.AdaptiveLogSoftmaxWithLoss, rows: Tensor, targets: Tensor) -> Tensor:
    """The sum of `-log p(target)` over rows [N, O], targets [N]: no [N, V] is built.

    Each band has a gradient, 0 where it holds no target, so that processes that train together agree on what has one.
    """
    total = -softmax(rows, targets).output.sum()
    if torch.is_grad_enabled():
        return total + sum(0.0 * weight.flatten()[0] for weight in softmax.tail.parameters())
    return total


class AdaptiveInput(nn.Module):
    """An embedding that is the transpose of an adaptive softmax, projections too (Baevski & Auli 2019).

        e_t = H_w            token w in the head
        e_t = P_k^T E_k,w    token w in band k

    The matrices are the softmax's, and so are their names among the parameters: here are none.

    Args:
        softmax: of `adaptive_softmax`.
        dropout: the rate at which words are dropped, as `TokenInput` takes it.

    Attributes:
        size: D, the width of e, which is that of what the softmax reads.

    Call:
        ``embedded = source(tokens, lengths=None)``, tokens [T, B] integers in [0, V); gives [T, B, D].

    >>> AdaptiveInput(adaptive_softmax(16, 1000, [100, 400]))(torch.tensor([[5, 999]])).shape
    torch.Size([1, 2, 16])
    """

    def __init__(self, softmax: nn.AdaptiveLogSoftmaxWithLoss, dropout: float = 0.0) -> None:
        super().__init__()
        check_rates(embedding_dropout=dropout)
        self._softmax = (softmax,)  # in a tuple it is no part of this module, and stands once among the weights
        self.vocab_size = softmax.n_classes
        self.size = softmax.in_features
        self.dropout = float(dropout)

    def forward(self, tokens: Tensor, lengths: Lengths | None = None) -> Tensor:
        """See the class."""
        check_tokens(tokens)
        softmax = self._softmax[0]
        flat = tokens.flatten()
        if not torch.compiler.is_compiling() and not flat.is_cuda and flat.numel():
            low, high = int(flat.min()), int(flat.max())
            if low < 0 or high >= self.vocab_size:
                worst = low if low < 0 else high
                raise ShapeError(
                    f"a token is {worst}, but the vocabulary has {self.vocab_size}; give tokens in "
                    f"0..{self.vocab_size - 1}."
                )
        head = softmax.head.weight[: softmax.shortlist_size]
        embedded = functional.embedding(flat.clamp(max=softmax.shortlist_size - 1), head)  # [T B, D]
        ends: list[int] = list(softmax.cutoffs)
        for band, (begin, end) in enumerate(pairwise(ends)):
            project, words = softmax.tail[band]  # pyright: ignore[reportGeneralTypeIssues]
            places = ((flat >= begin) & (flat < end)).nonzero().squeeze(1)
            rows = functional.embedding(flat[places] - begin, words.weight) @ project.weight
            embedded = embedded.index_copy(0, places, rows.to(embedded.dtype))
        embedded = embedded.view(*tokens.shape, self.size)
        return drop_words(embedded, tokens, self.vocab_size, self.dropout) if self.training else embedded

    def spec(self) -> dict[str, Any]:
        """The arguments, in plain values, but the softmax, which is another's."""
        return {"kind": "adaptive", "dropout": self.dropout}
