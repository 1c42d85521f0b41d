"""Several processes train as one: the same losses for the same batch, one folder, one end."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from tiny_commands import SMALL, command, ostinato
from tiny_runs import TEXT, same_run

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
OPTIONS = [*SMALL, "--epochs", "1", "--log-every", "3", "--eval-every", "17"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "beer.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def alone(text: Path) -> Path:
    """A run of one process."""
    by_itself("train", "text", text, "--out", text.parent / "alone", *OPTIONS)
    return text.parent / "alone"


def by_itself(*arguments: object) -> None:
    """A command in this process, which is all that takes part."""
    code, out, err = ostinato(*arguments)
    assert code == 0, out + err


def finished(arguments: list[str], code: int = 0) -> str:
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def numbers(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: float(v) for k, v in row.items() if v and k != "seconds"} for row in csv.DictReader(stream)]


def same_losses(a: Path, b: Path) -> None:
    left, right = numbers(a), numbers(b)
    assert [row.keys() for row in left] == [row.keys() for row in right] and len(left) > 10
    for mine, theirs in zip(left, right, strict=True):
        for name, value in mine.items():
            # Sums of the same float32 numbers in another order.
            assert value == pytest.approx(theirs[name], rel=1e-4), (mine["step"], name)


def torchrun(*arguments: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "-m", "ostinato", *map(str, arguments)]


def test_two_processes_give_the_losses_of_one(alone, text, tmp_path):
    said = finished(command("train", "text", text, "--out", tmp_path / "two", "--devices", 2, *OPTIONS))
    assert said.count("done: 34 steps") == 1  # one of them speaks
    same_losses(alone, tmp_path / "two")


def test_torchrun_starts_the_same(alone, text, tmp_path):
    said = finished(torchrun("train", "text", text, "--out", tmp_path / "two", *OPTIONS))
    assert said.count("done: 34 steps") == 1
    same_losses(alone, tmp_path / "two")
    machine = read_checkpoint(find_checkpoint(tmp_path / "two")).document["config"]["machine"]
    assert machine["devices"] == 2


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_read_in_parts_gives_the_same_losses(alone, text, tmp_path, parts):
    """Of 4 streams, in 3 parts some have two, in 7 parts some have none."""
    by_itself("train", "text", text, "--out", tmp_path / "parts", "--accumulate", parts, *OPTIONS)
    same_losses(alone, tmp_path / "parts")


def test_more_processes_than_streams(text, tmp_path):
    """A process without a stream takes part with nothing."""
    options = [*OPTIONS, "--batch-size", "1", "--bptt", "90"]
    by_itself("train", "text", text, "--out", tmp_path / "one", *options)
    finished(command("train", "text", text, "--out", tmp_path / "two", "--devices", 2, *options))
    assert numbers(tmp_path / "one")[-1] == pytest.approx(numbers(tmp_path / "two")[-1], rel=1e-4)


def test_two_processes_stop_and_go_on_exactly(text, tmp_path):
    options = [*OPTIONS, "--dropout", "0.2", "--devices", "2"]
    finished(command("train", "text", text, "--out", tmp_path / "whole", *options))
    out = tmp_path / "run"
    arguments = command("train", "text", text, "--out", out, *options, "--save-every", "0.000001")
    process = subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    step = 0
    while step < 3 and time.monotonic() < deadline and process.poll() is None:
        if (out / "checkpoints" / "last.safetensors").exists():
            step = read_checkpoint(find_checkpoint(out, "last")).document["position"]["step"]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to all of them
    said, errors = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("it was done before it could be stopped")
    assert process.returncode == 130, said + errors
    assert "To go on:" in said and "Traceback" not in errors
    finished(command("train", "text", "--out", out, "--resume"))
    same_run(tmp_path / "whole", out)


def test_wrong_numbers_of_processes_are_refused(text, tmp_path, monkeypatch):
    for options, words in (
        (["--devices", "0"], "devices is 0; pass 1 or more"),
        (["--precision", "16-mixed"], "precision 16-mixed needs a GPU"),
    ):
        code, _, err = ostinato("train", "text", text, "--out", tmp_path / "r", *OPTIONS, *options)
        assert code == 2 and words in err
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)  # as torchrun does
    code, _, err = ostinato("train", "text", text, "--out", tmp_path / "r", "--devices", 3, *OPTIONS)
    assert code == 2 and "torchrun started 2 processes here; leave --devices out" in err
    assert not (tmp_path / "r").exists()


def test_what_ends_one_process_ends_all_with_one_message(text, tmp_path):
    """An error of the first alone, one of all of them, and one in the middle of a training."""
    (tmp_path / "file").write_text("precious")
    for place, options, words in (
        ("file", [], "is a file, a run needs a folder"),
        ("run", ["--batch-size", "999"], "too few for 999 streams"),
        ("run", ["--learning-rate", "1e30", "--clip", "0"], "the training diverged"),
    ):
        arguments = command("train", "text", text, "--out", tmp_path / place, "--devices", 2, *OPTIONS, *options)
        done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        assert done.returncode in (1, 2)
        assert done.stderr.count("error:") == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_a_killed_process_is_missed(text, tmp_path):
    options = [*OPTIONS, "--epochs", "9999", "--devices", "2"]
    arguments = command("train", "text", text, "--out", tmp_path / "run", *options)
    with open(tmp_path / "said", "wb") as said, open(tmp_path / "errors", "wb") as errors:
        process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=said, stderr=errors)
    deadline = time.monotonic() + 120
    while b"step" not in (tmp_path / "said").read_bytes() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("the system does not tell which processes are another's children")
    for child in map(int, children.read_text().split()):
        os.kill(child, signal.SIGKILL)
    assert process.wait(timeout=60) != 0
    errors = (tmp_path / "errors").read_text()
    assert "lost another one, which was killed or failed" in errors and "go on with --resume" in errors
    assert "Traceback" not in errors
    position = read_checkpoint(find_checkpoint(tmp_path / "run", "last")).document["position"]
    assert position["step"] >= 0


def test_processes_look_for_one_learning_rate(text, tmp_path):
    options = ["train", "text", text, *SMALL, "--find-learning-rate", tmp_path / "rate.png"]
    alone, together = finished(command(*options)), finished(command(*options, "--devices", 2))
    assert alone == together  # once, and the same
