"""The task label, from a file to a run and from a run to answers."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryJaccardIndex, MulticlassF1Score, MultilabelF1Score

from ostinato.errors import DataError, OptionError, RunError
from ostinato.tasks import evaluate, resume, train
from ostinato.tasks.label.config import LabelConfig
from ostinato.tasks.label.measures import MultiGatherer, TagGatherer
from ostinato.tasks.label.task import Label
from ostinato.tasks.run import Run
from ostinato.tasks.use import open_predictor, predict
from ostinato.training.task import WHOLE, Share
from small_labels import RATE, jsonl, parity, pulses, rolls, small
from tiny_commands import ostinato
from tiny_runs import StopAt, same_run

PNG = b"\x89PNG\r\n\x1a\n"

# ---------------------------------------------------------------- tags


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Whether so many ones were odd: learned from the past alone."""
    folder = tmp_path_factory.mktemp("tags")
    data = parity(folder / "bits.txt", sequences=120, longest=6)
    return small(data, folder / "run", epochs=10, learning_rate=0.05, hidden_size=12, evaluations=2)


def test_tags_are_learned(tags):
    measures = evaluate(tags.path)
    assert measures["accuracy"] == measures["f1"] == 1.0 and measures["nll"] < 0.1
    assert tags.best == pytest.approx(
        {k: v for k, v in evaluate(tags.path, part="validation").items() if k in tags.best}
    )


def test_a_run_holds_its_pictures_and_tables(tags):
    assert (tags.path / "pictures" / "confusion.png").read_bytes()[:8] == PNG
    with open(tags.path / "tables" / "confusion.csv", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0][1:] == ["even", "odd"] and int(rows[1][2]) == int(rows[2][1]) == 0
    data = tags.about["data"]
    assert (data["train_sequences"], data["validation_sequences"], data["test_sequences"]) == (84, 18, 18)


def test_tags_are_predicted_from_a_pipe(tags):
    rows = list(predict(tags.path, io.BytesIO(b"1\n0\n1\n\n1\n")))
    assert [(r["sequence"], r["step"], r["token"], r["tag"]) for r in rows] == [
        ("1", 1, "1", "odd"),
        ("1", 2, "0", "odd"),
        ("1", 3, "1", "even"),
        ("2", 1, "1", "odd"),
    ]
    assert all(0.5 < r["probability"] <= 1 for r in rows)


def test_what_cannot_be_compared_is_refused(tags, tmp_path):
    with pytest.raises(DataError, match="has no tags"):
        evaluate(tags.path, io.BytesIO(b"1\n0\n"))
    with pytest.raises(DataError, match="line 2: 'maybe' is a label the model never learned"):
        evaluate(tags.path, io.BytesIO(b"1 odd\n0 maybe\n"))
    assert len(list(predict(tags.path, io.BytesIO(b"1 odd\n0 maybe\n")))) == 2  # where nothing is compared


def test_measures_are_those_of_torchmetrics():
    drawn = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(200, 5, generator=drawn), torch.randint(4, (200,), generator=drawn)
    gatherer = TagGatherer(6, torch.device("cpu"))  # two tags never occur, one of them is never given
    logits = torch.cat([logits, torch.full((200, 1), -9.0)], 1)
    gatherer.add(logits, answers, torch.arange(200))
    measures = gatherer.measures(WHOLE)
    assert measures["f1"] == pytest.approx(float(MulticlassF1Score(6)(logits, answers)))
    assert measures["accuracy"] == pytest.approx(float((logits.argmax(1) == answers).float().mean()))
    assert measures["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, answers)), rel=1e-6)


# ---------------------------------------------------------------- several labels


def test_measures_of_several_labels_are_those_of_torchmetrics():
    drawn = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(50, 4, generator=drawn), torch.randint(2, (50, 4), generator=drawn).float()
    gatherer = MultiGatherer(torch.device("cpu"))
    for part in (slice(0, 20), slice(20, 50)):
        gatherer.add(logits[part], answers[part], torch.arange(50)[part])
    measures = gatherer.measures(WHOLE)
    given, true = (logits > 0).int(), answers.int()
    assert measures["f1"] == pytest.approx(float(MultilabelF1Score(4, average="micro")(given, true)))
    assert measures["accuracy"] == pytest.approx(float(BinaryJaccardIndex()(given.flatten(), true.flatten())))
    nats = torch.nn.functional.binary_cross_entropy_with_logits(logits, answers, reduction="none").sum(1).mean()
    assert measures["nll"] == pytest.approx(float(nats), rel=1e-6)


def test_an_untrained_model_that_says_nothing_costs_88_times_log_2(tmp_path):
    task = Label.begin(LabelConfig.of(data=str(rolls(tmp_path / "rolls.npz")), hidden_size=4))
    torch.nn.init.zeros_(task.model.decoder.weight)
    torch.nn.init.zeros_(task.model.decoder.bias)
    with torch.no_grad():
        measures = task.evaluate(task.model.eval(), WHOLE, lambda: False)
    assert measures["nll"] == pytest.approx(88 * math.log(2), rel=1e-6)


def test_a_model_begins_at_the_base_rates(tmp_path):
    task = Label.begin(LabelConfig.of(data=str(rolls(tmp_path / "rolls.npz")), hidden_size=4))
    share = task.parts["train"].answers.values.mean(0)
    assert torch.allclose(task.model.decoder.bias.sigmoid(), share, atol=0.01)


def test_the_next_frame_is_foretold_and_never_seen(tmp_path):
    run = small(rolls(tmp_path / "rolls.npz"), tmp_path / "run", epochs=2, transpose=3)
    assert (run.path / "pictures" / "roll.png").read_bytes()[:8] == PNG
    frames = np.zeros((4, 88), np.float32)
    frames[:, 30] = 1

    def rows(frames):
        np.savez(tmp_path / "new.npz", values=frames, lengths=np.array([len(frames)]))
        return list(predict(run.path, tmp_path / "new.npz"))

    before = rows(frames)
    assert [row["step"] for row in before] == [1, 2, 3, 4, 5]  # the last is after all that is known
    assert list(before[0])[2:5] == ["A0", "A#0", "B0"] and len(before[0]) == 90
    frames[2, 60] = 1
    after = rows(frames)
    assert before[:3] == after[:3] and before[3] != after[3]
    with pytest.raises(OptionError, match="read the frames that are to be foretold"):
        small(tmp_path / "rolls.npz", tmp_path / "other", bidirectional=True)


def test_lists_of_labels_are_learned(tmp_path):
    words = {"a": ["A"], "b": ["B"], "c": ["A", "B"], "d": []}
    lines = [{"tokens": list(text), "tags": [words[w] for w in text]} for text in ("abcd", "dcba", "aabb", "cd") * 10]
    data = jsonl(tmp_path / "a.jsonl", *lines)
    run = small(data, tmp_path / "run", epochs=8, learning_rate=0.1, bidirectional=True, watch="f1")
    measures = evaluate(run.path)
    assert measures["accuracy"] == measures["f1"] == 1.0
    (row,) = predict(run.path, io.BytesIO(b'{"tokens": ["c"]}\n'))
    assert row["A"] > 0.5 and row["B"] > 0.5


def test_rolls_that_come_in_parts_stay_in_them(tmp_path):
    arrays = {}
    for n, part in enumerate(("train", "valid", "test")):
        arrays[f"{part}_values"] = np.eye(5, dtype=np.float32)[: n + 2]
        arrays[f"{part}_lengths"] = np.array([1, n + 1])
    np.savez(tmp_path / "a.npz", **arrays)
    run = small(tmp_path / "a.npz", tmp_path / "run")
    for part, steps in (("train", 2), ("validation", 3), ("test", 4)):
        assert evaluate(run.path, part=part)["steps"] == steps
    assert evaluate(run.path, tmp_path / "a.npz")["steps"] == 4  # the test part
    with pytest.raises(OptionError, match="the data come in parts"):
        small(tmp_path / "a.npz", tmp_path / "other", folds=2)


# ---------------------------------------------------------------- events


EVENTS = {"frame": 2, "tolerance": 30.0, "refractory": 200.0, "window": 100, "context": 20}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Pulses in noise."""
    folder = tmp_path_factory.mktemp("events")
    data = pulses(folder / "pulses.npz")
    named = {"test_records": ["r1", "r4"], "validation_records": ["r2"]}
    return small(data, folder / "run", epochs=8, learning_rate=0.05, evaluations=2, **EVENTS, **named)


def test_pulses_are_detected(events):
    measures = evaluate(events.path, pictures=events.path.parent / "drawn")
    assert measures["f1"] == measures["precision"] == measures["recall"] == 1.0
    assert measures["timing_error"] <= 1000 * 2 / RATE and measures["sequences"] == 2
    assert measures["rate_error"] <= measures["worst_rate_error"] < 0.2
    assert (events.path / "pictures" / "events.png").read_bytes()[:8] == PNG
    with open(events.path.parent / "drawn" / "records.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["record"] for row in rows] == ["r1", "r4"]
    assert all(row["events"] == row["detections"] and row["missed"] == row["false"] == "0" for row in rows)


def test_the_threshold_is_the_validation_parts(events):
    assert evaluate(events.path)["threshold"] == events.best["threshold"]
    assert set(events.metrics[-1]) >= {"validation_f1", "validation_timing_error", "validation_threshold"}


def test_events_are_predicted_as_samples_and_seconds(events):
    arrays = np.load(events.path.parent / "pulses.npz")
    signal, truth = arrays["signal_r4"], arrays["events_r4"]
    stream = io.BytesIO()
    np.savez(stream, signal_new=signal, fs=np.array(RATE))
    stream.seek(0)
    rows = list(predict(events.path, stream))
    assert len(rows) == len(truth) and {row["record"] for row in rows} == {"new"}
    for row, at in zip(rows, truth, strict=True):
        assert abs(row["sample"] - at) <= 3 and row["seconds"] == pytest.approx(row["sample"] / RATE, abs=0.01)


def test_later_samples_change_nothing_before_them(events):
    arrays = np.load(events.path.parent / "pulses.npz")
    predictor = open_predictor(events.path)
    config, scheme = predictor.config, predictor.scheme
    assert not config.model.bidirectional and scheme.normalize == "record"
    stream = io.BytesIO()
    np.savez(stream, signal_new=arrays["signal_r4"], fs=np.array(RATE))
    stream.seek(0)
    part = predictor.read(stream)
    before = predictor._logits(part)
    part.inputs.values[600:] = 0
    after = predictor._logits(part)
    assert torch.equal(before[:600], after[:600]) and not torch.equal(before[600:], after[600:])


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("kind", ["tags", "multi", "events"])
def test_a_resumed_run_is_the_uninterrupted_one(kind, tmp_path):
    make = {"tags": parity, "multi": rolls, "events": pulses}[kind]
    data = make(
        tmp_path / ("data.txt" if kind == "tags" else "data.npz"), **({"seconds": 5} if kind == "events" else {})
    )
    options = {"epochs": 3, "dropout": 0.3, "num_layers": 2, "hidden_dropout": 0.2, "eval_every": 8}
    options |= {
        "tags": {"word_dropout": 0.2},
        "multi": {"transpose": 4, "batch_size": 3},
        "events": EVENTS
        | {"gain": 0.3, "flip": 0.5, "detrend": 0.3, "input_noise": 0.1, "projection_size": 5, "head_dropout": 0.2},
    }[kind]
    whole = small(data, tmp_path / "whole", **options)
    stopped = small(data, tmp_path / "cut", reporter=StopAt(4), **options)
    assert whole.outcome.finished and not stopped.outcome.finished
    assert resume(tmp_path / "cut").outcome.finished
    same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("kind", ["tags", "multi", "events"])
def test_shares_sum_to_the_whole(kind, tmp_path):
    make = {"tags": parity, "multi": rolls, "events": pulses}[kind]
    data = make(tmp_path / ("data.txt" if kind == "tags" else "data.npz"))
    more = {"events": EVENTS}.get(kind, {})
    task = Label.begin(LabelConfig.of(data=str(data), hidden_size=4, batch_size=5, **more))

    def cost(shares):
        task.model.zero_grad()
        batches = [task.batches.get(0, 0, share) for share in shares]
        losses = [task.loss(task.model, batch, None) for batch in batches]
        torch.stack([loss.total for loss in losses]).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in task.model.parameters()])
        assert {batch.weight for batch in batches} == {sum(loss.weight for loss in losses)}
        return sum(float(loss.total.detach()) for loss in losses), gradients

    whole, gradients = cost([WHOLE])
    for count in (2, 7):  # more shares than rows: some are empty
        parts, summed = cost([Share(k, count) for k in range(count)])
        assert parts == pytest.approx(whole, rel=1e-5)
        assert torch.allclose(summed, gradients, rtol=1e-4, atol=1e-5 * float(gradients.abs().max()))


def test_data_that_changed_are_refused(tmp_path):
    data = parity(tmp_path / "bits.txt")
    run = small(data, tmp_path / "run")
    parity(data, seed=1)
    for again in (lambda: resume(run.path, epochs=2), lambda: evaluate(run.path)):
        with pytest.raises(RunError, match="content has changed"):
            again()


def test_options_that_do_not_fit_the_data_are_refused(tmp_path):
    data = parity(tmp_path / "bits.txt")
    for options, words in (
        ({"transpose": 2}, "shifts piano rolls"),
        ({"input_noise": 0.1}, "change measured features"),
        ({"test_records": ["100"]}, "have no records"),
    ):
        with pytest.raises(OptionError, match=words):
            small(data, tmp_path / "run", **options)
    with pytest.raises(OptionError, match="events do not have"):
        small(pulses(tmp_path / "a.npz", seconds=5), tmp_path / "run", watch="accuracy")
    with pytest.raises(RunError, match="without a test part"):
        evaluate(small(data, tmp_path / "untested", test=0.0).path)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions(precision, tmp_path):
    run = small(rolls(tmp_path / "a.npz"), tmp_path / "run", precision=precision, backend="eager")
    assert math.isfinite(run.best["nll"])


def test_the_command_line(tmp_path):
    data = parity(tmp_path / "bits.txt")
    out = tmp_path / "run"
    code, said, _ = ostinato("train", "label", data, "--out", out, "--epochs", 1, "--hidden-size", 6)
    assert code == 0 and "42 sequences to train on" in said
    code, said, _ = ostinato("evaluate", out, "--json", "--pictures", tmp_path / "drawn")
    assert code == 0 and json.loads(said)["sequences"] == 9
    assert (tmp_path / "drawn" / "confusion.png").is_file()
    code, said, _ = ostinato("predict", out, "-", input="1\n0\n")
    assert code == 0 and said.splitlines()[0] == "sequence,step,token,tag,probability"
    assert Path(out / "loss.png").is_file()


def test_a_cell_of_ones_own(tmp_path):
    import ostinato as library

    data, cell = parity(tmp_path / "bits.txt", sequences=20), library.cells.gru
    run = train("label", data, out=tmp_path / "run", cell=cell, epochs=1, backend="eager", hidden_size=4)
    assert run.model().cell_name == "gru"
