"""Drawing text from a model, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...data import Tokenizer
from ...errors import DataError, RunError
from ...models import LanguageModel, State

__all__ = ["Reader", "Sampler", "beam_search", "filter_probabilities", "generate"]


def filter_probabilities(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The distribution that is drawn from.

        p = softmax(logits / temperature), then zero outside the top k, then outside the nucleus, renormalised

    The nucleus (Holtzman et al. 2020) is the smallest set of most likely entries that together have a
    probability of at least `top_p`. Among equal entries the earlier one is taken first.

    Args:
        logits: `[V]`; `-inf` where an entry must not be drawn.
        temperature: 0 puts everything on the most likely entry.
        top_k: how many entries stay, or None.
        top_p: the share that stays, in (0, 1], or None.

    Returns:
        probabilities `[V]`, float64, with sum 1.

    >>> filter_probabilities(torch.tensor([0.5, 0.3, 0.2]).log(), top_k=2)
    tensor([0.6250, 0.3750, 0.0000], dtype=torch.float64)
    """
    scores = logits.double()
    if temperature == 0.0:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double()
    # The largest is taken off first, so that a tiny temperature cannot overflow.
    probabilities = torch.softmax((scores - scores.max()) / temperature, dim=0)
    if top_k is not None or (top_p is not None and top_p < 1.0):
        ranked, order = torch.sort(probabilities, descending=True, stable=True)
        if top_k is not None:
            ranked[top_k:] = 0.0
            ranked = ranked / ranked.sum()
        if top_p is not None and top_p < 1.0:
            before = torch.cumsum(ranked, 0) - ranked
            ranked[before >= top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(0, order, ranked / ranked.sum())
    return probabilities


class Sampler:
    """A model in the middle of a text: `feed` it what was written, `draw` what comes next.

    Args:
        model: put into evaluation mode.
        tokenizer: of its tokens.
        temperature: 0 or more; below 1 sharper, above 1 flatter, 0 always the most likely token.
        top_k: draw among the k most likely, 1 or more; None for all.
        top_p: draw among the most likely that make up this share, in (0, 1]; None for all.
        seed: with the same seed and the same text comes the same text; None is a fresh seed.

    Raises:
        DataError: an argument out of its range, or a tokenizer of another size than the model's.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not 0.0 <= temperature < math.inf:
            raise DataError(f"temperature is {temperature}; pass 0 (the most likely token) or more.")
        if top_k is not None and top_k < 1:
            raise DataError(f"top_k is {top_k}; pass 1 or more, or leave it out.")
        if top_p is not None and not 0.0 < top_p <= 1.0:
            raise DataError(f"top_p is {top_p}; pass more than 0 and at most 1, or leave it out.")
        self.reader = Reader(model, tokenizer)
        self.tokenizer = tokenizer
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._decoder = tokenizer.decoder()
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % 2**64)

    def feed(self, text: str) -> None:
        """Read a text.

        Raises:
            DataError: something in it that the model never saw; nothing was read then.
        """
        tokens = self.tokenizer.encode_strictly(text)
        if len(tokens):
            self.reader.read(tokens)
            self._decoder = self.tokenizer.decoder()
            for token in tokens.tolist():  # so that what comes next is spaced as after this
                self._decoder.push(token)

    def draw(self) -> str:
        """Draw the next token, and read it; its text, or as much of it as is certain.

        Raises:
            RunError: the model's numbers are not finite.
        """
        probabilities = filter_probabilities(self.reader.scores()[0], self.temperature, self.top_k, self.top_p)
        token = torch.multinomial(probabilities, 1, generator=self._generator)  # [1]
        self.reader.read(token)
        return self._decoder.push(int(token))


class Reader:
    """A model with its state: one text, or several abreast, each with the scores of what comes next.

    Args:
        model: put into evaluation mode.
        tokenizer: of its tokens.

    Raises:
        DataError: a tokenizer of another size than the model's, or without a token that may be drawn.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        if len(tokenizer) != model.vocab_size:
            raise DataError(
                f"the vocabulary has {len(tokenizer)} tokens, the model {model.vocab_size}; take both from one run."
            )
        if len(tokenizer) <= len(tokenizer.never):
            raise DataError("the vocabulary is empty, so nothing can be drawn from it.")
        self.model = model.eval()
        self._never = torch.tensor(tokenizer.never, dtype=torch.long)
        self._start = torch.tensor([tokenizer.start])
        self._device = next(model.parameters()).device
        self._state: State | None = None
        self._scores: Tensor | None = None  # [B, V], on the CPU

    def read(self, tokens: Tensor) -> None:
        """Go on by tokens [T], or [T, B] of texts abreast.

        Raises:
            RunError: the model's numbers are not finite.
        """
        tokens = tokens[:, None] if tokens.dim() == 1 else tokens
        with torch.inference_mode():
            scores, self._state = self.model.next_log_probs(tokens.to(self._device), self._state)  # [B, V]
        scores = scores.float().cpu().clone()
        if torch.isnan(scores).any():
            raise RunError(
                "the model's numbers are not finite: its training diverged. Sample another checkpoint "
                "(--checkpoint best), or train again with a lower --learning-rate."
            )
        scores[:, self._never] = -math.inf
        self._scores = scores

    def scores(self) -> Tensor:
        """log p of the next token, [B, V]; -inf for those that are never drawn."""
        if self._scores is None:
            self.read(self._start)  # nothing was read yet: a text begins as a line does
        assert self._scores is not None
        return self._scores

    def choose(self, rows: Tensor) -> None:
        """Go on with these of the texts abreast; one may be there several times."""
        self._state = _chosen(self._state, rows.to(self._device))
        self._scores = None if self._scores is None else self._scores[rows]


def _chosen(state: Any, rows: Tensor) -> Any:
    """A state [L, B, S], or a nest of them, of some rows of the batch."""
    if isinstance(state, Tensor):
        return state.index_select(1, rows)
    return None if state is None else tuple(_chosen(part, rows) for part in state)


def beam_search(
    model: LanguageModel, tokenizer: Tokenizer, prime: str = "", length: int = 200, beams: int = 5
) -> tuple[str, float]:
    """The most likely continuation that a beam finds: of all that go on from the best `beams` texts, the best are kept.

    Args:
        model, tokenizer: as `Sampler` takes them.
        prime: what the text begins with; empty begins a new line.
        length: how many tokens, 0 or more.
        beams: how many texts are kept abreast, 1 or more; 1 always takes the most likely token.

    Returns:
        the continuation, and its log-probability in nats.

    Raises:
        DataError: an argument out of its range, or something in `prime` that the model never saw.
    """
    if length < 0 or beams < 1:
        raise DataError(f"length is {length} and beams is {beams}; pass 0 or more, and 1 or more.")
    reader = Reader(model, tokenizer)
    primed = tokenizer.encode_strictly(prime)
    if len(primed):
        reader.read(primed)
    kept = torch.zeros(1, dtype=torch.float64)  # log p of each text
    written = torch.zeros(0, 1, dtype=torch.long)
    for _ in range(length):
        totals = kept[:, None] + reader.scores().double()  # [B, V]
        best, places = totals.flatten().topk(min(beams, totals.numel()))
        best, places = best[best > -math.inf], places[best > -math.inf]
        rows, tokens = places // totals.shape[1], places % totals.shape[1]
        reader.choose(rows)
        reader.read(tokens[None])
        kept, written = best, torch.cat([written[:, rows], tokens[None]])
    whole = torch.cat([primed, written[:, 0]]).tolist()
    decoder = tokenizer.decoder()
    texts = [decoder.push(token) for token in whole]
    return "".join(texts[len(primed) :]), float(kept[0])


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prime: str = "",
    length: int = 500,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """Go on from `prime`, yielding each token's text as it is drawn; `prime` itself is not yielded.

    Args:
        model, tokenizer, temperature, top_k, top_p, seed: as `Sampler` takes them.
        prime: what the text begins with; empty begins a new line.
        length: how many tokens, 0 or more.

    Raises:
        DataError: an argument out of its range, or something in `prime` that the model never saw. It is
            raised by this call, not by the first token asked for.
    """
    if length < 0:
        raise DataError(f"length is {length}; pass 0 or more.")
    sampler = Sampler(model, tokenizer, temperature, top_k, top_p, seed)
    sampler.feed(prime)
    sampler.reader.scores()
    return (sampler.draw() for _ in range(length))
