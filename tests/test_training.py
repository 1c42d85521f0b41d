"""Training: what a run writes, and that it goes on exactly after whatever stopped it."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import ostinato
from laws import THOROUGH
from ostinato.errors import DataError, RunError, ShapeError
from ostinato.tasks import generate, load_model
from ostinato.tasks.text.held_out import HeldOut
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from ostinato.training.interrupt import Interrupt
from tiny_runs import TEXT, StopAt, begin, go_on, losses, same_run, tiny

# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 3 epochs."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = begin(tiny(folder, epochs=3), folder / "run")
    assert outcome.finished and outcome.steps == 3 * 34
    return folder / "run"


def test_a_run_folder_holds_what_it_promises(whole):
    assert json.loads((whole / "run.json").read_text())["config"]["model"]["hidden_size"] == 8
    assert (whole / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(whole.glob("events.out.tfevents.*"))
    for name in ("best", "last"):
        beside = json.loads((whole / "checkpoints" / f"{name}.json").read_text())
        assert beside["tensors"] == f"{name}.safetensors"
        assert beside["position"]["step"] <= 102
        assert "W" in json.dumps(beside["model"]["rnn"])  # the equations
    for step in (25, 100, 102):
        assert len((whole / "samples" / f"step-{step:08d}.txt").read_text()) == 13
    assert not list(whole.rglob("*.partial"))


def test_metrics_have_a_row_for_each_stretch_and_each_evaluation(whole):
    with open(whole / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rates = ["learning_rate", "gradient_norm"]
    measures = [f"{part}_{name}" for part in ("train", "validation") for name in ("nats", "bits", "perplexity")]
    assert list(rows[0]) == ["step", "epoch", "characters", "seconds", *rates, *measures]
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted({s for s in range(1, 103) if s % 3 == 0 or s % 25 == 0 or s == 102})
    evaluated = [row for row in rows if row["validation_nats"]]
    assert [int(row["step"]) for row in evaluated] == [25, 50, 75, 100, 102]
    for row in evaluated:
        assert float(row["validation_bits"]) == pytest.approx(float(row["validation_nats"]) / math.log(2))
    # The training's loss is a mean over whole stretches of log_every steps, never over a rest of one.
    trained = [row for row in rows if row["train_nats"]]
    assert [int(row["step"]) for row in trained] == list(range(3, 103, 3))
    for row in trained:
        assert float(row["train_bits"]) == pytest.approx(float(row["train_nats"]) / math.log(2))
        assert float(row["learning_rate"]) > 0 and float(row["gradient_norm"]) > 0
    characters = len(TEXT[: int(len(TEXT) * 0.9)]) - 1
    assert int(rows[-1]["characters"]) == 3 * (characters // 4) * 4
    assert float(rows[-1]["epoch"]) == 3.0
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert float(evaluated[-1]["validation_nats"]) < float(evaluated[0]["validation_nats"])


def test_tensorboard_reads_the_events(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole))
    events.Reload()
    drawn = [(event.step, event.value) for event in events.Scalars("validation/bits")]
    rows = [row for row in losses(whole) if row["validation_bits"]]
    assert drawn == [(int(row["step"]), pytest.approx(float(row["validation_bits"]), rel=1e-6)) for row in rows]


def test_the_same_seed_gives_the_same_run_and_another_another(whole, tmp_path):
    begin(tiny(tmp_path, epochs=3), tmp_path / "again")
    same_run(whole, tmp_path / "again")
    begin(tiny(tmp_path, epochs=0.2, seed=6), tmp_path / "other")
    assert losses(tmp_path / "other")[0]["train_nats"] != losses(whole)[0]["train_nats"]


def test_the_loss_written_is_the_loss_of_the_model_written(whole):
    model, vocabulary = load_model(whole, "last")
    cut = int(len(TEXT) * 0.9)
    tokens = vocabulary.encode(TEXT)
    with torch.no_grad():
        logits, _ = model(tokens[cut - 256 : -1, None])
    nats = F.cross_entropy(logits[255:, 0], tokens[cut:])
    assert float(nats) == pytest.approx(float(losses(whole)[-1]["validation_nats"]), rel=1e-5)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("step", [1, 25, 33, 34, 102])
def test_a_run_stopped_by_ctrl_c_goes_on_exactly(whole, tmp_path, step):
    before = signal.getsignal(signal.SIGINT)
    outcome = begin(tiny(tmp_path, epochs=3), tmp_path / "run", reporter=StopAt(step))
    assert not outcome.finished and outcome.steps == step
    assert signal.getsignal(signal.SIGINT) is before
    torch.manual_seed(99)  # what was drawn in between is no matter
    outcome = go_on(tmp_path / "run")
    assert outcome.finished and outcome.steps == 102
    same_run(whole, tmp_path / "run")


def test_a_run_stopped_again_and_again_goes_on_exactly(whole, tmp_path):
    outcome = begin(tiny(tmp_path, epochs=3), tmp_path / "run", reporter=StopAt(13))
    while not outcome.finished:
        outcome = go_on(tmp_path / "run", reporter=StopAt(13))
    same_run(whole, tmp_path / "run")


def test_going_on_from_the_best_repeats_what_came_after_it(whole, tmp_path):
    begin(tiny(tmp_path, epochs=3), tmp_path / "run", reporter=StopAt(40))
    best = read_checkpoint(find_checkpoint(tmp_path / "run", "best")).document["position"]["step"]
    assert best < 40
    go_on(tmp_path / "run", checkpoint="best")
    same_run(whole, tmp_path / "run")


def test_tensorboard_forgets_what_was_taken_back(whole, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    begin(tiny(tmp_path, epochs=3), tmp_path / "run", reporter=StopAt(40))
    go_on(tmp_path / "run", checkpoint="best")  # steps 26 to 40 a second time
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    steps = [event.step for event in events.Scalars("train/bits")]
    assert steps == [int(row["step"]) for row in losses(whole) if row["train_bits"]]


def test_a_finished_run_is_finished_and_may_be_given_more(whole, tmp_path):
    begin(tiny(tmp_path, epochs=1), tmp_path / "run")
    rows = losses(tmp_path / "run")
    outcome = go_on(tmp_path / "run")
    assert outcome.finished and outcome.steps == 34
    assert losses(tmp_path / "run") == rows
    outcome = go_on(tmp_path / "run", epochs=2)
    assert outcome.finished and outcome.steps == 68
    assert losses(tmp_path / "run")[: len(rows)] == rows


def test_minutes_count_over_every_time_it_was_resumed(tmp_path, monkeypatch):
    clock = itertools.count()  # a hundredth of a second passes whenever somebody looks
    monkeypatch.setattr("ostinato.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    config = tiny(tmp_path, minutes=0.05, eval_every=None)
    outcome = begin(config, tmp_path / "run", reporter=StopAt(20))
    assert not outcome.finished
    assert 0.4 < outcome.seconds < 0.6
    for _ in range(1000):  # a pause between the two is not training
        next(clock)
    outcome = go_on(tmp_path / "run")
    assert outcome.finished
    assert 3.0 <= outcome.seconds < 3.1
    rows = losses(tmp_path / "run")
    assert sum(bool(row["validation_nats"]) for row in rows) == 10
    rates = [float(row["learning_rate"]) for row in rows if row["learning_rate"]]
    assert max(rates) > 0.9 * 4e-3
    assert rates[-1] < 0.1 * 4e-3  # the schedule ran out with the time


def test_slow_evaluations_take_a_fifth_of_the_time_at_most(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("ostinato.training.loop.time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    nats = HeldOut.nats

    def slow(self, *args):
        for _ in range(40):
            next(clock)
        return nats(self, *args)

    monkeypatch.setattr(HeldOut, "nats", slow)
    outcome = begin(tiny(tmp_path, minutes=0.1, eval_every=None), tmp_path / "run")  # 6 seconds
    assert outcome.finished
    evaluations = sum(bool(row["validation_nats"]) for row in losses(tmp_path / "run"))
    assert 2 <= evaluations <= 4  # 0.4 seconds each, one of them at the end


def test_a_cell_whose_statistics_count_steps_is_refused_before_anything_is_written(tmp_path):
    """A piece of truncated backpropagation would be normalised as the beginning of the text."""
    for cell in ("batch_norm(lstm, 50)", "zoneout(batch_norm(gru, 50), 0.1)"):
        with pytest.raises(ShapeError, match="count from the first step of a call: .* take layer_norm"):
            begin(tiny(tmp_path, cell=cell), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_text_or_another_model_is_another_run(tmp_path):
    begin(tiny(tmp_path), tmp_path / "run", reporter=StopAt(3))
    with pytest.raises(RunError, match="begun with hidden_size = 8, got 9; leave --hidden-size out"):
        go_on(tmp_path / "run", hidden_size=9)
    (tmp_path / "other.txt").write_text(TEXT + "!")
    with pytest.raises(RunError, match=r"other.txt is not what .* its content has changed"):
        go_on(tmp_path / "run", data=str(tmp_path / "other.txt"))
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    with pytest.raises(DataError, match="there is no file"):
        go_on(tmp_path / "run")
    assert go_on(tmp_path / "run", data=str(tmp_path / "moved.txt"), hidden_size=8).finished


def test_metrics_ahead_of_the_checkpoint_are_cut_back(whole, tmp_path):
    begin(tiny(tmp_path, epochs=3), tmp_path / "run", reporter=StopAt(30))
    with open(tmp_path / "run" / "metrics.csv", "a") as stream:
        stream.write("33" + "," * 11 + "\n")
    (tmp_path / "run" / "samples" / "step-00000035.txt").write_text("of a step not yet taken")
    go_on(tmp_path / "run")
    same_run(whole, tmp_path / "run")


# ---------------------------------------------------------------- kills

SCRIPT = """
import sys
from ostinato.tasks import resume, train
options, out, going_on = eval(sys.argv[1]), sys.argv[2], sys.argv[3] == "resume"
print("ready", flush=True)
resume(out) if going_on else train("text", out=out, **options)
"""


def start(options: dict[str, object], out: Path, mode: str, **more: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, repr(options), str(out), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **more,
    )


@pytest.mark.usefixtures("one_thread")
def test_kill_9_loses_only_what_came_after_the_last_checkpoint(tmp_path):
    config = tiny(tmp_path, epochs=2, save_every=1e-6, eval_every=50)  # a checkpoint after every step
    out = tmp_path / "run"
    process = start(config, out, "new")
    last = 0
    for wanted in (3, 40) if THOROUGH else (20,):
        while last < wanted:
            assert process.poll() is None, process.communicate()
            if (out / "checkpoints" / "last.json").exists():
                last = read_checkpoint(find_checkpoint(out, "last")).document["position"]["step"]
            time.sleep(0.01)
        process.kill()
        process.communicate()
        # Whatever was being written, both that are there are whole.
        for path in (out / "checkpoints").glob("*.safetensors"):
            read_checkpoint(path)
        process = start(config, out, "resume")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert not list(out.rglob("*.partial"))
    begin(tiny(tmp_path, epochs=2, eval_every=50), tmp_path / "whole")
    same_run(tmp_path / "whole", out)


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file may become larger, as on a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(whole, tmp_path):
    out = tmp_path / "run"
    begin(tiny(tmp_path, epochs=3), out, reporter=StopAt(40))
    before = (out / "checkpoints" / "last.safetensors").read_bytes()
    limit = len(before) // 2  # no file may become as large as a checkpoint

    with small_disk(limit), pytest.raises(RunError, match=r"(?s)the disk is full.*--resume"):
        go_on(out)
    assert (out / "checkpoints" / "last.safetensors").read_bytes() == before
    assert not list(out.rglob("*.partial"))
    go_on(out)
    same_run(whole, out)


def test_the_second_ctrl_c_aborts_at_once():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.requested)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False] and signal.getsignal(signal.SIGINT) is before


# ---------------------------------------------------------------- a cell of one's own


@ostinato.cell
def leaky_motif(p, x, h):
    """A cell that no catalogue has (Nobody 2026)."""
    n = ostinato.tanh(p.W @ x + p.U @ h + p.b)
    return 0.25 * h + 0.75 * n


READ_ELSEWHERE = """
import sys
from ostinato.tasks import generate, load_model
model, vocabulary = load_model(sys.argv[1])
print("".join(generate(model, vocabulary, "1", 60, temperature=0.0)), end="")
"""


def test_ones_own_cell_is_trained_resumed_and_read_without_its_code(tmp_path):
    outcome = begin(tiny(tmp_path), tmp_path / "run", cell=leaky_motif, reporter=StopAt(20))
    assert not outcome.finished
    assert go_on(tmp_path / "run").finished
    model, vocabulary = load_model(tmp_path / "run")
    here = "".join(generate(model, vocabulary, "1", 60, temperature=0.0))
    elsewhere = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ_ELSEWHERE, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert elsewhere.stdout == here
    assert model.cell_name == "leaky_motif"
