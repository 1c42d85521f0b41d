"""Text is drawn rightly and step by step; the schedule, the budget and the evaluation are what they say."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import Vocabulary
from ostinato.errors import DataError, RunError
from ostinato.models import LanguageModel
from ostinato.tasks import Sampler, generate
from ostinato.tasks.text.held_out import HeldOut
from ostinato.tasks.text.sampling import filter_probabilities
from ostinato.training.config import Optimization
from ostinato.training.schedule import Budget, momentum_at, rate_at

# ---------------------------------------------------------------- sampling


def constant_model(probabilities: list[float]) -> tuple[LanguageModel, Vocabulary]:
    """A model that says the same whatever it read: the first probability is the unknown character's."""
    vocabulary = Vocabulary("abcdefgh"[: len(probabilities) - 1])
    model = LanguageModel(len(probabilities), "elman", hidden_size=4)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.tensor(probabilities).log())
    return model, vocabulary


def by_hand(logits: list[float], temperature: float, top_k: int | None, top_p: float | None) -> list[float]:
    """The distribution, in plain Python, by its definition."""
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])
    kept = ranked[:top_k] if top_k else ranked
    if top_p is not None:
        mass, total, nucleus = 0.0, sum(weights[i] for i in kept), []
        for i in kept:
            nucleus.append(i)
            mass += weights[i] / total
            if mass >= top_p:
                break
        kept = nucleus
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=12, unique=True),
    st.floats(0.2, 4),
    st.none() | st.integers(1, 14),
    st.none() | st.floats(0.05, 0.999),
)
def test_the_distribution_is_the_definitions(logits, temperature, top_k, top_p):
    logits = [round(x, 3) for x in logits]
    if len(set(logits)) < len(logits):
        return
    found = filter_probabilities(torch.tensor(logits, dtype=torch.float64), temperature, top_k, top_p)
    assert float(found.sum()) == pytest.approx(1.0)
    expected = by_hand(logits, temperature, top_k, top_p)
    if top_p is None or all(abs(top_p - s) > 1e-9 for s in _sums(by_hand(logits, temperature, top_k, None))):
        assert found.tolist() == pytest.approx(expected, abs=1e-9)


def _sums(probabilities: list[float]) -> list[float]:
    ranked = sorted(probabilities, reverse=True)
    return [sum(ranked[: i + 1]) for i in range(len(ranked))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [p * p / 0.345 for p in (0.5, 0.25, 0.15, 0.1)]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.6}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.8}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"top_k": 3, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
    ],
)
def test_characters_are_drawn_as_often_as_they_should_be(options, expected):
    # The unknown character is half of what the model says, and is never written.
    model, vocabulary = constant_model([0.5, 0.25, 0.125, 0.075, 0.05])
    n = 2000
    text = "".join(generate(model, vocabulary, "a", n, seed=1, **options))
    assert len(text) == n
    for character, p in zip("abcd", expected, strict=True):
        assert abs(text.count(character) / n - p) < 4 * math.sqrt(p * (1 - p) / n) + 1e-12


def test_the_same_seed_draws_the_same_text():
    torch.manual_seed(0)
    vocabulary = Vocabulary.of("hello world\n")
    model = LanguageModel(len(vocabulary), "lstm", hidden_size=12, num_layers=2, dropout=0.5)
    first = "".join(generate(model, vocabulary, "he", 80, seed=3))
    torch.rand(5)  # other people's random numbers are no matter, and theirs are left alone
    state = torch.get_rng_state()
    assert "".join(generate(model, vocabulary, "he", 80, seed=3)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert "".join(generate(model, vocabulary, "he", 80, seed=4)) != first
    assert "".join(generate(model, vocabulary, "he", 80)) != "".join(generate(model, vocabulary, "he", 80))
    assert set(first) <= set("hello world\n")


def test_drawing_step_by_step_is_the_model_of_the_whole_text():
    torch.manual_seed(0)
    vocabulary = Vocabulary.of("hello world\n")
    model = LanguageModel(len(vocabulary), "gru", hidden_size=12)
    text = "wor" + "".join(generate(model, vocabulary, "wor", 40, temperature=0.0))
    with torch.no_grad():
        logits, _ = model(vocabulary.encode(text)[:-1, None])
    greedy = logits[:, 0, 1:].argmax(1) + 1
    assert vocabulary.decode(greedy[2:]) == text[3:]


def test_feeding_in_pieces_is_feeding_at_once():
    torch.manual_seed(0)
    vocabulary = Vocabulary.of("hello world\n")
    model = LanguageModel(len(vocabulary), "lstm", hidden_size=12)
    at_once, in_pieces = Sampler(model, vocabulary, seed=0), Sampler(model, vocabulary, seed=0)
    at_once.feed("hello")
    for piece in ("he", "", "llo"):
        in_pieces.feed(piece)
    assert [at_once.draw() for _ in range(20)] == [in_pieces.draw() for _ in range(20)]


def test_text_comes_as_it_is_drawn_and_gradients_stay_on_outside():
    model, vocabulary = constant_model([0.2, 0.8])
    text = generate(model, vocabulary, length=10**12)
    assert [next(text) for _ in range(3)] == ["a", "a", "a"]
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert list(generate(model, vocabulary, length=0)) == []


def test_arguments_out_of_range_are_refused_before_anything_is_drawn():
    model, vocabulary = constant_model([0.2, 0.8])
    for options, words in (
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, r"top_p is 0.0; pass more than 0 and at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"length": -1}, "length is -1"),
        ({"prime": "q"}, "never saw 'q'"),
    ):
        with pytest.raises(DataError, match=words):
            generate(model, vocabulary, **options)
    with pytest.raises(DataError, match="the vocabulary has 3 tokens, the model 2"):
        generate(model, Vocabulary("ab"))


def test_a_model_whose_numbers_are_not_finite_is_not_drawn_from():
    model, vocabulary = constant_model([0.2, 0.8])
    with torch.no_grad():
        model.decoder.bias[1] = math.nan
    with pytest.raises(RunError, match="not finite"):
        generate(model, vocabulary, "a")


# ---------------------------------------------------------------- the schedule


def test_the_learning_rate_rises_then_falls_by_a_half_cosine():
    config = Optimization(learning_rate=2.0, warmup=0.1, final_rate=0.25)
    rate = [rate_at(config, i / 100) for i in range(101)]
    assert 0 < rate[0] < 0.01
    assert rate[5] == pytest.approx(1.0)
    assert rate[10] == 2.0
    assert rate[55] == pytest.approx(2.0 * (0.25 + 0.75 / 2))
    assert rate[100] == pytest.approx(0.5)
    assert rate[:11] == sorted(rate[:11]) and rate[10:] == sorted(rate[10:], reverse=True)
    assert rate_at(Optimization(learning_rate=2.0, warmup=0.0, final_rate=0.0), 0.0) == 2.0


def test_the_other_schedules_are_what_they_say():
    constant = Optimization(learning_rate=2.0, warmup=0.1, schedule="constant")
    assert [rate_at(constant, p) for p in (0.05, 0.1, 0.9)] == [1.0, 2.0, 2.0]
    for schedule in ("step", "plateau"):
        config = Optimization(learning_rate=2.0, warmup=0.1, schedule=schedule, decay=0.5)
        assert [rate_at(config, 0.5, decays) for decays in (0, 1, 3)] == [2.0, 1.0, 0.25]
        assert rate_at(config, 0.05, 2) == 1.0  # the warm-up is not shortened by a decay
    cycle = Optimization(learning_rate=2.0, schedule="one-cycle", final_rate=0.01)
    rate = [rate_at(cycle, i / 100) for i in range(101)]
    assert max(rate) == rate[30] == 2.0 and rate[100] == pytest.approx(0.02) and rate[0] == pytest.approx(0.02)
    assert rate[:31] == sorted(rate[:31]) and rate[30:] == sorted(rate[30:], reverse=True)
    momentum = [momentum_at(cycle, i / 100) for i in range(101)]
    assert momentum[0] == momentum[100] == pytest.approx(0.95) and min(momentum) == momentum[30] == 0.85
    assert momentum_at(constant, 0.5) == constant.momentum


def test_a_budget_is_steps_or_seconds():
    assert Budget.of(epochs=2.5, minutes=None, steps_per_epoch=10).progress(step=5, seconds=1e9) == 0.2
    assert Budget.of(epochs=1e-9, minutes=None, steps_per_epoch=10).progress(step=1, seconds=0) == 1.0
    assert Budget.of(epochs=None, minutes=0.5, steps_per_epoch=10).progress(step=10**9, seconds=15.0) == 0.5


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("held", [1, 37, 5000])
def test_the_whole_tail_is_evaluated_with_its_past(held):
    torch.manual_seed(0)
    model = LanguageModel(7, "elman", hidden_size=5)
    text = torch.randint(7, (300 + held,))
    with torch.no_grad():
        nats = HeldOut(text[:300], text[300:]).nats(model)
        logits, _ = model(text[:-1, None])
    expected = F.cross_entropy(logits[299:, 0], text[300:])
    # Each window knows the 256 characters before it; a fresh elman has long forgotten what lies further back.
    assert nats == pytest.approx(float(expected), rel=1e-5)


def test_an_evaluation_can_be_given_up():
    model = LanguageModel(7, "elman", hidden_size=5)
    text = torch.randint(7, (3000,))
    assert HeldOut(text[:300], text[300:]).nats(model, should_stop=lambda: True) is None
