"""Drawing text from a model, one character at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...data import Vocabulary
from ...errors import DataError, RunError
from ...models import LanguageModel, State

__all__ = ["Sampler", "filter_probabilities", "generate"]

_NEVER = torch.tensor([-math.inf])


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
        vocabulary: the characters of its tokens.
        temperature: 0 or more; below 1 sharper, above 1 flatter, 0 always the most likely character.
        top_k: draw among the k most likely, 1 or more; None for all.
        top_p: draw among the most likely that make up this share, in (0, 1]; None for all.
        seed: with the same seed and the same text comes the same text; None is a fresh seed.

    Raises:
        DataError: an argument out of its range, or a vocabulary of another size than the model's.
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not 0.0 <= temperature < math.inf:
            raise DataError(f"temperature is {temperature}; pass 0 (the most likely character) or more.")
        if top_k is not None and top_k < 1:
            raise DataError(f"top_k is {top_k}; pass 1 or more, or leave it out.")
        if top_p is not None and not 0.0 < top_p <= 1.0:
            raise DataError(f"top_p is {top_p}; pass more than 0 and at most 1, or leave it out.")
        if len(vocabulary) != model.vocab_size:
            raise DataError(
                f"the vocabulary has {len(vocabulary)} tokens, the model {model.vocab_size}; take both from one run."
            )
        if len(vocabulary) < 2:
            raise DataError("the vocabulary has no characters, so nothing can be drawn from it.")
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._device = next(model.parameters()).device
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % 2**64)
        self._state: State | None = None
        self._logits: Tensor | None = None  # of the next character, [V], on the CPU

    def feed(self, text: str) -> None:
        """Read a text.

        Raises:
            DataError: a character the model never saw; nothing was read then.
        """
        tokens = self.vocabulary.encode_strictly(text)
        if len(tokens):
            self._advance(tokens)

    def draw(self) -> str:
        """Draw the next character, and read it.

        Raises:
            RunError: the model's numbers are not finite.
        """
        if self._logits is None:
            # Nothing was read yet: a text begins as a line does.
            start = "\n" if "\n" in self.vocabulary else self.vocabulary.characters[0]
            self._advance(self.vocabulary.encode(start))
        assert self._logits is not None
        probabilities = filter_probabilities(self._logits, self.temperature, self.top_k, self.top_p)
        token = torch.multinomial(probabilities, 1, generator=self._generator)  # [1]
        self._advance(token)
        return self.vocabulary.characters[int(token) - 1]

    def _advance(self, tokens: Tensor) -> None:
        with torch.inference_mode():
            logits, self._state = self.model(tokens.to(self._device)[:, None], self._state)  # [T, 1, V]
            last = logits[-1, 0].to("cpu", torch.float32)
        if not torch.isfinite(last).all():
            raise RunError(
                "the model's output is not finite: its training diverged. Sample another checkpoint "
                "(--checkpoint best), or train again with a lower --learning-rate."
            )
        self._logits = torch.cat([_NEVER, last[1:]])  # the unknown character is not for writing


def generate(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prime: str = "",
    length: int = 500,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[str]:
    """Go on from `prime`, yielding each character as it is drawn; `prime` itself is not yielded.

    Args:
        model, vocabulary, temperature, top_k, top_p, seed: as `Sampler` takes them.
        prime: what the text begins with; empty begins a new line.
        length: how many characters, 0 or more.

    Raises:
        DataError: an argument out of its range, or a character in `prime` that the model never saw. It is
            raised by this call, not by the first character asked for.
    """
    if length < 0:
        raise DataError(f"length is {length}; pass 0 or more.")
    sampler = Sampler(model, vocabulary, temperature, top_k, top_p, seed)
    sampler.feed(prime)
    return (sampler.draw() for _ in range(length))
