"""The task classify: it learns what can be learned, goes on exactly, and says what it knows of new sequences."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from ostinato.data import Sequences
from ostinato.errors import DataError, RunError
from ostinato.tasks import evaluate, predict, resume, train
from ostinato.tasks.classify.config import ClassifyConfig
from ostinato.tasks.classify.data import Part
from ostinato.tasks.classify.pictures import draw_confusion
from ostinato.tasks.classify.scores import BINS, Scores, scored
from ostinato.tasks.classify.task import Classify, class_weights
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from ostinato.training.task import WHOLE, Share, Watched
from small_classes import SMALL, idx_images, text_table, wave_arrays, wave_table, words
from tiny_commands import ostinato
from tiny_runs import StopAt, losses, same_run

PNG = b"\x89PNG\r\n\x1a\n"


def begun(data: Path, **options: object) -> Classify:
    return Classify.begin(ClassifyConfig.of(data=str(data), **SMALL | options))


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned its texts."""
    folder = tmp_path_factory.mktemp("texts")
    train("classify", text_table(folder), out=folder / "run", **SMALL | {"epochs": 25})
    return folder / "run"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned sequences of channels of very different sizes."""
    folder = tmp_path_factory.mktemp("numbers")
    more = {"epochs": 30, "pooling": ["last", "attention"], "bidirectional": True, "cell": "gru", "input_noise": 0.05}
    train("classify", wave_table(folder), out=folder / "run", **SMALL | more)
    return folder / "run"


@pytest.mark.parametrize("kind", ["texts", "numbers"])
def test_what_can_be_told_apart_is(kind, request):
    measures = evaluate(request.getfixturevalue(kind))
    assert measures["accuracy"] == measures["macro_f1"] == 1.0
    assert measures["right"] == measures["sequences"] == (9.0 if kind == "texts" else 8.0)
    assert measures["loss"] < 0.2


def test_images_are_learned_by_rows_and_by_pixels(tmp_path):
    idx_images(tmp_path, "train", 40), idx_images(tmp_path, "t10k", 10)
    for more in ({}, {"images_by": "pixels", "permute": 1}):
        run = train("classify", tmp_path, out=tmp_path / "run", force=True, **SMALL | {"epochs": 12} | more)
        assert run.evaluate()["accuracy"] == 1.0
        assert run.evaluate()["sequences"] == 10.0


def test_a_run_folder_holds_pictures_and_measures(texts):
    for name in ("loss.png", "pictures/confusion.png", "pictures/reliability.png"):
        assert (texts / name).read_bytes()[:8] == PNG
    last = losses(texts)[-1]
    assert {"train_loss", "validation_accuracy", "validation_macro_f1", "validation_loss"} <= last.keys()
    about = json.loads((texts / "run.json").read_text())
    assert about["data"] == {"source": "texts.csv", "sha256": about["data"]["sha256"]} | {
        "train": 42,
        "validation": 9,
        "test": 9,
    }
    assert about["title"] == "lstm, 1 x 8, last, on texts.csv"


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_numbers_are_read_at_any_precision(tmp_path, precision):
    options = SMALL | {"epochs": 1, "evaluations": 1, "precision": precision}
    run = train("classify", wave_arrays(tmp_path), out=tmp_path / "run", **options)
    assert run.evaluate(part="validation")["loss"] == pytest.approx(run.best["loss"], rel=1e-2)


def test_between_equals_the_loss_decides():
    watched = Watched("accuracy", higher=True, tie="loss")
    best = {"accuracy": 0.9, "loss": 0.5}
    assert watched.better(best, {})
    assert watched.better({"accuracy": 0.9, "loss": 0.4}, best)
    assert not watched.better({"accuracy": 0.9, "loss": 0.5}, best)
    assert watched.better({"accuracy": 0.91, "loss": 2.0}, best)
    assert not watched.better({"accuracy": 0.89, "loss": 0.1}, best)


@pytest.mark.parametrize("watch", ["macro_f1", "loss"])
def test_the_watched_measure_picks_the_best(tmp_path, watch):
    options = SMALL | {"epochs": 3, "watch": watch, "evaluations": 3}
    run = train("classify", text_table(tmp_path), out=tmp_path / "run", **options)
    rows = [row for row in losses(run.path) if row["validation_loss"]]
    values = [float(row[f"validation_{watch}"]) for row in rows]
    assert run.best[watch] == pytest.approx(min(values) if watch == "loss" else max(values), rel=1e-6)


@pytest.mark.parametrize("table", [text_table, wave_arrays])
def test_a_stopped_run_goes_on_exactly(tmp_path, table):
    """With every random draw there is: dropout of all kinds, of words, and noise."""
    options = SMALL | {"epochs": 3, "dropout": 0.2, "head_dropout": 0.2, "input_dropout": 0.1, "log_every": 3}
    options |= {"embedding_dropout": 0.1, "word_dropout": 0.1, "input_noise": 0.1, "average": "ema"}
    data = table(tmp_path)
    train("classify", data, out=tmp_path / "whole", **options)
    for stop in (7, 9):  # in the midst of an epoch, and where an evaluation is due
        out = tmp_path / f"run{stop}"
        assert not train("classify", data, out=out, reporter=StopAt(stop), **options).outcome.finished
        assert resume(out).outcome.finished
        same_run(tmp_path / "whole", out)


def test_a_run_goes_on_only_with_its_own_data(tmp_path):
    data = text_table(tmp_path)
    train("classify", data, out=tmp_path / "run", reporter=StopAt(4), **SMALL | {"epochs": 2})
    text_table(tmp_path, [*words()[:-1], ("xxq", "c0")])
    with pytest.raises(RunError, match="its content has changed"):
        resume(tmp_path / "run")
    with pytest.raises(RunError, match="its content has changed"):
        evaluate(tmp_path / "run")
    moved = tmp_path / "moved.csv"
    text_table(tmp_path, name=moved.name)
    assert resume(tmp_path / "run", data=str(moved)).outcome.finished


# ---------------------------------------------------------------- the loss


def gradient(task: Classify, share: Share) -> tuple[float, list[torch.Tensor]]:
    task.model.zero_grad()
    loss = task.loss(task.model, task.batches.get(1, 2, share), None)
    loss.total.backward()
    return float(loss.total.detach()), [p.grad.clone() for p in task.model.parameters()]


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("table", [text_table, wave_arrays])
def test_shares_sum_to_the_whole(tmp_path, table, pooling):
    """Of a batch of 8 in 2, 5 and 11 parts: of the last, some are empty."""
    options = {"class_weights": "balanced", "label_smoothing": 0.1, "pooling": [pooling], "bidirectional": True}
    task = begun(table(tmp_path), **options)
    total, whole = gradient(task, WHOLE)
    for count in (2, 5, 11):
        parts = [gradient(task, Share(k, count)) for k in range(count)]
        assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-5)
        for n, expected in enumerate(whole):
            torch.testing.assert_close(sum(part[1][n] for part in parts), expected, rtol=1e-4, atol=1e-6)
        seen = [task.batches.get(1, 2, Share(k, count)) for k in range(count)]
        assert {batch.weight for batch in seen} == {8.0}
        assert sum(len(batch.labels) for batch in seen) == 8


def test_the_loss_is_weighed_and_smoothed_but_plain_nats_are_told(tmp_path):
    task = begun(text_table(tmp_path, words()[:40] + words()[:1] * 9), class_weights="balanced", label_smoothing=0.2)
    batch = task.batches.get(0, 0, WHOLE)
    loss = task.loss(task.model, batch, None)
    logs = F.log_softmax(task.model(batch.inputs, batch.lengths), 1)
    plain = -logs[range(8), batch.labels]
    labels = task.dataset.parts["train"].targets
    weights = class_weights(labels, 3)
    smoothed = -(0.8 * weights[batch.labels] * logs[range(8), batch.labels] + 0.2 / 3 * (weights * logs).sum(1))
    assert float(loss.terms) == pytest.approx(float(plain.detach().sum()), rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(float(smoothed.detach().sum()), rel=1e-5)
    assert loss.weight == 8.0
    assert float(weights[labels].mean()) == pytest.approx(1.0)
    each = torch.bincount(labels, weights=weights[labels].double())
    torch.testing.assert_close(each, torch.full_like(each, float(each[0])))


def test_dropped_words_are_read_as_unknown(tmp_path):
    task = begun(text_table(tmp_path), word_dropout=0.999999)
    batch = task.batches.get(0, 0, WHOLE)
    unknown = task.model(torch.zeros_like(batch.inputs), batch.lengths)
    expected = F.cross_entropy(unknown, batch.labels, reduction="sum")
    torch.testing.assert_close(task.loss(task.model, batch, None).total, expected)


# ---------------------------------------------------------------- measures


def random_scores(count: int = 400, classes: int = 5) -> tuple[torch.Tensor, Scores]:
    torch.manual_seed(0)
    probabilities = torch.softmax(2 * torch.randn(count, classes).double(), 1)
    labels = torch.multinomial(probabilities.sqrt(), 1).flatten()
    confidence, guess = probabilities.max(1)
    nats = -probabilities[range(count), labels].log()
    return probabilities, Scores(guess, confidence, nats, labels, classes)


def test_measures_are_what_their_definitions_say():
    probabilities, scores = random_scores()
    confusion = scores.confusion()
    right, rows, columns = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    measures = scores.measures()
    assert confusion.sum() == 400
    assert confusion[2, 3] == ((scores.labels == 2) & (scores.guesses == 3)).sum()
    assert measures["accuracy"] == pytest.approx(float(right.sum()) / 400)
    assert measures["macro_f1"] == pytest.approx(float((2 * right / (rows + columns)).mean()))
    assert measures["loss"] == pytest.approx(float(scores.nats.mean()))
    expected = multiclass_calibration_error(probabilities, scores.labels, 5, n_bins=BINS, norm="l1")
    assert scores.calibration_error() == pytest.approx(float(expected), abs=1e-6)
    count, confidence, accuracy = scores.reliability()
    assert int(count.sum()) == 400
    assert float((count * accuracy).sum()) == float(right.sum())
    assert float((count * confidence).sum()) == pytest.approx(float(scores.confidences.sum()))


def test_a_share_of_an_evaluation_is_its_own_sequences_alone(tmp_path):
    task = begun(text_table(tmp_path))
    part = task.dataset.parts["train"]
    model = task.model.eval()
    with torch.no_grad():
        whole = scored(model, part, 3)
        shares = [scored(model, part, 3, Share(k, 4)) for k in range(4)]
        assert scored(model, part, 3, WHOLE, lambda: True) is None
    torch.testing.assert_close(sum(s.nats for s in shares), whole.nats, rtol=1e-5, atol=1e-6)
    assert torch.equal(sum(s.guesses for s in shares), whole.guesses)


def test_a_picture_of_many_classes_and_of_long_names(tmp_path):
    _, scores = random_scores(300, 70)
    draw_confusion(tmp_path / "many.png", scores, tuple(f"c{n}" for n in range(70)), "many")
    _, scores = random_scores(50, 2)
    draw_confusion(tmp_path / "long.png", scores, ("a" * 90, "no"), "long")
    assert (tmp_path / "many.png").read_bytes()[:8] == (tmp_path / "long.png").read_bytes()[:8] == PNG


# ---------------------------------------------------------------- a trained model


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predictions_come_from_a_pipe(texts):
    lines = ["xxq", "zwz", "xe"]
    code, out, _ = ostinato("predict", texts, "-", input="\n".join(lines))
    assert code == 0
    rows = table(out)
    assert [row["text"] for row in rows] == lines
    assert [row["label"] for row in rows] == ["c0", "c1", "c2"]
    for n, row in enumerate(rows, 1):
        probabilities = [float(row[f"probability c{k}"]) for k in range(3)]
        assert row["number"] == str(n)
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
        assert max(probabilities) == float(row["confidence"])
    as_table = "id,text,label\n" + "".join(f"n{n},{line},no such label\n" for n, line in enumerate(lines))
    as_json = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    for content in (as_table, as_table.replace(",", "\t"), as_json):
        _, out, _ = ostinato("predict", texts, "-", input=content)
        again = table(out)
        assert [(row["text"], row["label"]) for row in again] == [(row["text"], row["label"]) for row in rows]
    assert [row["id"] for row in table(ostinato("predict", texts, "-", input=as_table)[1])] == ["n0", "n1", "n2"]


def test_measures_come_from_a_pipe(texts, tmp_path):
    code, out, _ = ostinato("evaluate", texts, "-", "--json", input="text,label\nxxq,c0\nzwz,c1\nxe,c1\n")
    measures = json.loads(out)
    assert code == 0
    assert measures["accuracy"] == pytest.approx(2 / 3)
    assert measures["sequences"] == 3.0
    code, out, _ = ostinato("evaluate", texts, "--pictures", tmp_path / "new")
    assert code == 0
    assert "100.00% right (9 of 9 sequences)" in out
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["confusion.png", "reliability.png"]


def test_predictions_do_not_depend_on_what_stands_beside(numbers, tmp_path):
    """A long table in another order of sequences and columns, without labels, with a channel that was not trained."""
    data = wave_table(tmp_path, labelled=False)
    rows = {row["id"]: row for row in predict(numbers, data)}
    lines = data.read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    turned = ["b,more,a,id", *(f"{b},{n},{a},{name}" for n, (name, a, b) in enumerate(cells))]
    for row in predict(numbers, io.BytesIO("\n".join(turned).encode())):
        assert row["label"] == rows[row["id"]]["label"]
        assert row["confidence"] == pytest.approx(rows[row["id"]]["confidence"], abs=1e-5)
    code, out, _ = ostinato("predict", numbers, "-", input="\n".join([lines[0], *lines[1:5]]))
    assert code == 0
    assert table(out)[0]["id"] == "w0"


def test_channels_are_scaled_as_in_training(numbers):
    found = read_checkpoint(find_checkpoint(numbers))
    reading = found.document["reading"]
    task = Classify.resume(ClassifyConfig.from_json(found.document["config"]), found)
    values = task.dataset.parts["train"].sequences.values
    torch.testing.assert_close(values.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert reading["channels"] == ["a", "b"]
    assert 900 < reading["mean"][1] < 1100
    other = task.dataset.parts["validation"].sequences.values
    assert float(other.mean(0).abs().max()) > 1e-3  # it had no say


def test_any_part_of_the_own_data_is_evaluated(texts):
    assert evaluate(texts, part="train")["sequences"] == 42.0
    assert evaluate(texts, part="validation")["sequences"] == 9.0


def test_a_run_without_a_test_part_says_so(tmp_path):
    run = train("classify", text_table(tmp_path), out=tmp_path / "run", **SMALL | {"epochs": 1, "test": 0.0})
    with pytest.raises(RunError, match=r"no test part \(--test 0\); pass --part validation"):
        run.evaluate()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nxq,c0\nxw,klingon\nxe,elvish\nxe,c2\n", r"line 3: the label 'klingon' is none of the 3 classes"),
        ("text,label\nxq,c0\nxw,klingon\nxe,elvish\nxe,c2\n", r"2 of 4 have such labels \(elvish, klingon\)"),
        ("text\nxq\n", "has no labels"),
        ("xq\nxw\n", "has no labels"),
        ("text,label\nxq,\n", r"line 2: 'label' is missing"),
        ("text,label\n  ,c0\n", r"line 2: the text is empty"),
        ("review,label\nxq,c0\n", r"no column 'text'; it has 'review', 'label'"),
        ("text,label\nxq\n", r"line 2: 1 values, but the header has 2"),
        ("", "is empty"),
        ("PK\3\4", "write images and arrays into a file"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(texts, content, message):
    with pytest.raises(DataError, match=message):
        evaluate(texts, io.BytesIO(content.encode()))


def test_data_of_another_kind_are_refused(texts, numbers, tmp_path):
    with pytest.raises(DataError, match="holds series, but what the run was trained with holds texts"):
        evaluate(texts, wave_arrays(tmp_path))
    with pytest.raises(DataError, match="holds images, but what the run was trained with holds series"):
        evaluate(numbers, idx_images(tmp_path, "train", 4))
    with pytest.raises(DataError, match="no column 'b'"):
        evaluate(numbers, io.BytesIO(b"id,a,label\n1,2,up\n"))
    np.savez(tmp_path / "wide.npz", values=np.zeros((5, 4, 3)), labels=np.array(["up"] * 5))
    with pytest.raises(DataError, match="has 3 channels, but the training part 2"):
        evaluate(numbers, tmp_path / "wide.npz")
    with pytest.raises(DataError, match="there is no file or folder"):
        evaluate(texts, tmp_path / "none.csv")


def test_a_sequence_of_one_step_is_classified(texts):
    part = Part(Sequences.of([torch.tensor([1]), torch.tensor([2, 3])]), torch.tensor([0, 1]))
    from ostinato.tasks.use import open_predictor

    with torch.no_grad():
        scores = scored(open_predictor(texts).model, part, 3)
    assert scores is not None
    assert torch.isfinite(scores.nats).all()
