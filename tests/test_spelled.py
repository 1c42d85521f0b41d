"""Words whose spelling counts: their vectors, and what a classifier makes of words that it has never seen."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ostinato.errors import OptionError, ShapeError
from ostinato.models import Classifier, Encoder, SpelledInput, model_from_spec, spelled
from ostinato.tasks import evaluate, predict, resume, train
from ostinato.tasks.classify.config import ClassifyConfig
from ostinato.tasks.classify.data import Dataset
from ostinato.tasks.classify.readers import reader_from_json
from ostinato.tasks.classify.task import Classify
from ostinato.training.task import WHOLE, Share
from small_classes import SMALL, text_table
from tiny_runs import StopAt, same_run

WORDS = ["film", "boredom", "bored", "filmed", "good", "well", "goodness"]
SUBWORDS = SMALL | {"tokens": "words", "subwords": 2}


def batch(*texts: list[tuple[int, str]], width: int = 9) -> torch.Tensor:
    """Words by number and spelling as a source reads them, [T, B, 1 + S]; all of one length."""
    return torch.tensor([[[number, *spelled(word, width)] for number, word in text] for text in texts]).transpose(0, 1)


def endings(count: int = 300) -> list[tuple[str, str]]:
    """Texts of words that no two texts share: how they end says the class."""
    draw = random.Random(0)

    def word(ending: str) -> str:
        return "".join(draw.choice("abcdefghijklmnop") for _ in range(8)) + ending

    return [(f"{word('us')} {word(('ity', 'wards')[n % 2])} {word('em')}", f"c{n % 2}") for n in range(count)]


# ---------------------------------------------------------------- the source


def test_a_word_is_its_own_vector_and_those_of_its_known_pieces():
    words = ["bananas", "a", "éa𝄞", "ananas", "exceedingly"]
    source = SpelledInput.of(words, 4, shortest=2, longest=4)

    def pieces(word: str) -> list[str]:
        shown = f"<{word}>"
        return [shown[i : i + k] for k in (2, 3, 4) for i in range(len(shown) - k + 1)]

    def hashed(piece: str) -> int:
        value = 0
        for sign in piece:
            value = (value * 1_000_003 + ord(sign)) % (2**31 - 1)
        return value

    known = [piece for piece in {p for w in words for p in pieces(w)} if sum(piece in pieces(w) for w in words) >= 2]
    assert source.known.tolist() == sorted(map(hashed, known))
    assert "anas" in known and "ban" not in known

    def expected(word: str) -> torch.Tensor:
        own = [source.known.tolist().index(hashed(piece)) for piece in pieces(word) if piece in known]
        number = words.index(word) + 1 if word in words else 0
        return source.embedding.weight[number] + source.pieces.weight[own].sum(0) / math.sqrt(len(own) or 1)

    texts = [["bananas", "exceedingly", "qq"], ["éa𝄞", "nana", "a"]]
    numbers = [[(words.index(w) + 1 if w in words else 0, w) for w in text] for text in texts]
    found = source(batch(*numbers, width=14))
    for b, text in enumerate(texts):
        torch.testing.assert_close(found[:, b], torch.stack([expected(word) for word in text]))
    assert torch.equal(found[2, 0], source.embedding.weight[0])


def test_how_wide_the_spelling_is_padded_and_its_integers_are_nothing():
    source = SpelledInput.of(WORDS, 4)
    text = [(3, "bored"), (1, "."), (0, "boring")]
    expected = source(batch(text))
    assert torch.equal(source(batch(text, width=20)), expected)
    assert torch.equal(source(batch(text).int()), expected)


def test_a_word_without_pieces_is_its_own_vector():
    source = SpelledInput.of(WORDS, 4)
    words = torch.tensor([[[7]]])
    assert torch.equal(source(words)[0, 0], source.embedding.weight[7])
    assert torch.equal(source(torch.tensor([[[7, 0, 0]]]))[0, 0], source.embedding.weight[7])
    assert source(torch.zeros(1, 0, 6, dtype=torch.int32)).shape == (1, 0, 4)


def test_gradients_are_those_of_differences():
    source = SpelledInput.of(["abab", "cab", "b", "ab"], 3).double()
    words = batch([(1, "abab"), (2, "cab")], [(0, "b"), (1, "abab")])
    weights = torch.randn(2, 2, 3, dtype=torch.float64)
    (source(words) * weights).sum().backward()
    for parameter in source.parameters():
        for place in range(0, parameter.numel(), 4):
            flat, step = parameter.data.view(-1), 1e-4
            values = []
            for sign in (1, -1):
                flat[place] += sign * step
                values.append(float((source(words) * weights).sum().detach()))
                flat[place] -= sign * step
            difference = (values[0] - values[1]) / (2 * step)
            assert float(parameter.grad.view(-1)[place]) == pytest.approx(difference, abs=1e-8)


def test_words_are_dropped_with_their_spelling_and_wherever_they_stand():
    torch.manual_seed(0)
    source = SpelledInput.of([f"w{n}" for n in range(1, 1000)], 3, dropout=0.25)
    words = batch([(n, f"w{n}") for n in range(1000)], [(n, f"w{n}") for n in range(1000)])
    whole, found = source.eval()(words), source.train()(words)
    dropped = found.eq(0).all(2)
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert abs(dropped.double().mean() - 0.25) < 0.05
    torch.testing.assert_close(found[~dropped], whole[~dropped] / 0.75)


def test_a_model_is_rebuilt_from_its_spec():
    source = SpelledInput.of(WORDS, 4, shortest=2, longest=5, dropout=0.1)
    model = Classifier(Encoder.of(source, "gru", 6, bidirectional=True), 3, pooling="max").eval()
    twin = model_from_spec(json.loads(json.dumps(model.spec()))).eval()
    twin.load_state_dict(model.state_dict())
    words = batch([(3, "bored"), (0, "boring")], [(1, "."), (3, "bored")])
    assert torch.equal(twin(words, [2, 1]), model(words, [2, 1]))
    assert torch.equal(twin.encoder.source.known, source.known)
    assert twin.spec() == model.spec()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpelledInput(5, 3, pieces=0), "pieces is 0; give a whole number"),
        (lambda: SpelledInput.of(["ab", "cd"], 3), "no piece of 2 to 6 signs is in 2 of the 2 words"),
        (lambda: SpelledInput.of(["ab", "ab"], 3, least=0), "least is 0"),
        (lambda: SpelledInput(5, 3, 9, shortest=4, longest=3), "4 to 3 signs; give shortest <= longest"),
        (lambda: SpelledInput(5, 3, 9, dropout=1.0), "embedding_dropout is 1.0"),
        (lambda: SpelledInput(5, 3, 9)([[1]]), "spelled words are list"),
        (lambda: SpelledInput(5, 3, 9)(torch.zeros(2, 2).long()), r"int64 of shape \[2, 2\]; give int32 or int64 \[T"),
        (lambda: SpelledInput(5, 3, 9)(torch.zeros(2, 2, 3)), "float32 of shape"),
        (lambda: SpelledInput(5, 3, 9)(batch([(5, "a")])), r"a token is 5, .* give tokens in 0\.\.4"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


# ---------------------------------------------------------------- the task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned how words end."""
    folder = tmp_path_factory.mktemp("endings")
    options = SUBWORDS | {"epochs": 20, "min_count": 1, "word_dropout": 0.5, "pooling": ["max"]}
    train("classify", text_table(folder, endings()), out=folder / "run", **options)
    return folder / "run"


def test_words_that_are_new_are_known_by_how_they_end(run, tmp_path):
    assert evaluate(run)["accuracy"] > 0.95
    rows = [("qqqqqqqus qqqqqqqity qqqqqqqem", "c0"), ("qqqqqqqus qqqqqqqwards qqqqqqqem", "c1")]
    found = list(predict(run, text_table(tmp_path, rows, "new.csv")))
    assert [row["label"] for row in found] == ["c0", "c1"]


def test_without_their_spelling_they_are_not(tmp_path):
    options = SUBWORDS | {"epochs": 20, "subwords": 0, "pooling": ["max"]}
    trained = train("classify", text_table(tmp_path, endings()), out=tmp_path / "run", **options)
    assert trained.evaluate()["accuracy"] < 0.8


def test_words_are_read_with_their_spelling(tmp_path):
    rows = [("Good it’s", "a"), ("bad", "b")] * 8 + [(f"good {'x' * 40}", "a")] * 4
    config = ClassifyConfig.of(data=str(text_table(tmp_path, rows)), lower=True, test=0.0, **SUBWORDS)
    data = Dataset.read(config)
    again = reader_from_json(json.loads(json.dumps(data.reader.to_json())))
    assert again == data.reader
    numbers = {word: n for n, word in enumerate(data.reader.entries, 1)}
    train_part = data.parts["train"].sequences
    texts = {tuple(tuple(step) for step in train_part[n].tolist()) for n in range(len(train_part))}
    width = train_part.values.shape[1] - 1
    assert width == 32 and train_part.values.dtype == torch.int32

    def coded(*words: str) -> tuple[tuple[int, ...], ...]:
        return tuple((numbers[word], *spelled(word, width)) for word in words)

    assert texts == {coded("good", "it’s"), coded("bad"), coded("good", "x" * 40)}


def test_dropped_words_keep_their_spelling(tmp_path):
    options = SUBWORDS | {"word_dropout": 0.999999}
    task = Classify.begin(ClassifyConfig.of(data=str(text_table(tmp_path, endings(40))), **options))
    rows = task.batches.get(0, 0, WHOLE)
    unknown = rows.inputs.clone()
    unknown[..., 0] = 0
    expected = F.cross_entropy(task.model(unknown, rows.lengths), rows.labels, reduction="sum")
    torch.testing.assert_close(task.loss(task.model, rows, None).total, expected)


def test_shares_sum_to_the_whole(tmp_path):
    """Of a batch of 8 in 11 parts some are empty."""
    options = SUBWORDS | {"pooling": ["mean"]}
    task = Classify.begin(ClassifyConfig.of(data=str(text_table(tmp_path, endings(40))), **options))

    def gradient(share: Share) -> list[torch.Tensor]:
        task.model.zero_grad()
        task.loss(task.model, task.batches.get(1, 2, share), None).total.backward()
        return [p.grad.clone() for p in task.model.parameters()]

    parts = [gradient(Share(k, 11)) for k in range(11)]
    for n, expected in enumerate(gradient(WHOLE)):
        torch.testing.assert_close(sum(part[n] for part in parts), expected, rtol=1e-4, atol=1e-6)


def test_a_stopped_run_goes_on_exactly(tmp_path):
    data = text_table(tmp_path, endings(60))
    options = SUBWORDS | {"epochs": 2, "word_dropout": 0.3, "embedding_dropout": 0.1, "log_every": 3}
    train("classify", data, out=tmp_path / "whole", **options)
    assert not train("classify", data, out=tmp_path / "run", reporter=StopAt(7), **options).outcome.finished
    assert resume(tmp_path / "run").outcome.finished
    same_run(tmp_path / "whole", tmp_path / "run")


def test_pieces_of_characters_are_refused():
    with pytest.raises(OptionError, match="pieces of words, but tokens is characters; pass --tokens words"):
        ClassifyConfig.of(subwords=100)
