"""Several processes train as one: the same losses for the same batch, one folder, one end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ostinato.tasks import train
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from small_classes import SMALL as SMALL_CLASSES
from small_classes import text_table
from small_labels import pulses
from tiny_commands import SMALL, command, ostinato
from tiny_runs import TEXT, same_run

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
OPTIONS = [*SMALL, "--epochs", "1", "--log-every", "3", "--eval-every", "17"]
FEW = [*OPTIONS, "--batch-size", "1", "--bptt", "90"]
RANDOM = [*OPTIONS, "--dropout", "0.2"]
CLASSIFY = SMALL_CLASSES | {"batch_size": 9, "epochs": 3, "log_every": 1, "evaluations": 1, "class_weights": "balanced"}
LABEL = {"window": 60, "frame": 2, "epochs": 1, "hidden_size": 4, "log_every": 1, "evaluations": 1}

Ended = dict[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a file in a run folder's place."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "beer.txt").write_text(TEXT)
    (folder / "file").write_text("precious")
    text_table(folder)
    pulses(folder / "pulses.npz", records=3, seconds=4)
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    return folder / "beer.txt"


@pytest.fixture(scope="module")
def alone(text: Path) -> Path:
    """A run of one process."""
    by_itself("train", "text", text, "--out", text.parent / "alone", *OPTIONS)
    return text.parent / "alone"


@pytest.fixture(scope="module")
def ended(folder: Path, text: Path) -> tuple[Ended, Ended]:
    """How each of two processes that torchrun started ended each of several commands."""
    runs = {
        "text": (text, OPTIONS),
        "few": (text, FEW),
        "random": (text, RANDOM),
        "classify": (folder / "texts.csv", flags(CLASSIFY)),
        "label": (folder / "pulses.npz", flags(LABEL)),
        "file": (text, OPTIONS),
        "streams": (text, [*OPTIONS, "--batch-size", "999"]),
        "diverged": (text, [*OPTIONS, "--learning-rate", "1e30", "--clip", "0"]),
    }
    commands: dict[str, list[object]] = {
        name: ["train", name if name in ("classify", "label") else "text", data, "--out", folder / name, *options]
        for name, (data, options) in runs.items()
    }
    commands["rate"] = ["train", "text", text, *SMALL, "--find-learning-rate", folder / "rate.png"]
    written = {name: [str(a) for a in arguments] for name, arguments in commands.items()}
    (folder / "commands.json").write_text(json.dumps(written))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    several = Path(__file__).with_name("several.py")
    finished([*launcher, str(several), str(folder / "commands.json"), str(folder)])
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1))
    return first, second


def flags(options: dict[str, object]) -> list[str]:
    """Options of Python as they are typed."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def by_itself(*arguments: object) -> str:
    """A command in this process, which is all that takes part."""
    code, out, err = ostinato(*arguments)
    assert code == 0, out + err
    return out


def finished(arguments: list[str]) -> str:
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def numbers(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: float(v) for k, v in row.items() if v and k != "seconds"} for row in csv.DictReader(stream)]


def same_losses(a: Path, b: Path, rel: float = 1e-4) -> None:
    left, right = numbers(a), numbers(b)
    assert [row.keys() for row in left] == [row.keys() for row in right] and left
    for mine, theirs in zip(left, right, strict=True):
        for name, value in mine.items():
            # Sums of the same float32 numbers in another order.
            assert value == pytest.approx(theirs[name], rel=rel), (mine["step"], name)


def test_two_processes_give_the_losses_of_one(alone, ended, folder):
    first, second = ended
    code, said, _ = first["text"]
    assert code == 0 and said.count("done: 34 steps") == 1
    assert second["text"] == [0, "", ""]  # one of them speaks
    same_losses(alone, folder / "text")
    assert len(numbers(alone)) > 10
    machine = read_checkpoint(find_checkpoint(folder / "text")).document["config"]["machine"]
    assert machine["devices"] == 2


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_read_in_parts_gives_the_same_losses(alone, text, tmp_path, parts):
    """Of 4 streams, in 3 parts some have two, in 7 parts some have none."""
    by_itself("train", "text", text, "--out", tmp_path / "parts", "--accumulate", parts, *OPTIONS)
    same_losses(alone, tmp_path / "parts")


def test_more_processes_than_streams(ended, text, folder, tmp_path):
    """A process without a stream takes part with nothing."""
    by_itself("train", "text", text, "--out", tmp_path / "one", *FEW)
    assert numbers(tmp_path / "one")[-1] == pytest.approx(numbers(folder / "few")[-1], rel=1e-4)


def test_classes_of_two_processes_are_those_of_one(ended, folder, tmp_path):
    """Of the 6 sequences of an epoch's last batch in 2 parts, and of an evaluation in 2 shares."""
    train("classify", folder / "texts.csv", out=tmp_path / "one", **CLASSIFY)
    same_losses(tmp_path / "one", folder / "classify")
    assert len(numbers(tmp_path / "one")) > 10


def test_labels_of_two_processes_are_those_of_one(ended, folder, tmp_path):
    train("label", folder / "pulses.npz", out=tmp_path / "one", **LABEL)
    same_losses(tmp_path / "one", folder / "label", rel=1e-3)
    assert "validation_f1" in numbers(tmp_path / "one")[-1]


def test_processes_look_for_one_learning_rate(ended, text, tmp_path):
    """Once, and the same."""
    alone = by_itself("train", "text", text, *SMALL, "--find-learning-rate", tmp_path / "rate.png")
    first, second = ended
    assert first["rate"][1].replace(str(text.parent), "") == alone.replace(str(tmp_path), "")
    assert second["rate"] == [0, "", ""]


def test_two_processes_stop_and_go_on_exactly(ended, text, folder, tmp_path):
    """Started by the command itself: torchrun's two are the same to the last bit."""
    out = tmp_path / "run"
    options = [*RANDOM, "--devices", 2, "--save-every", "0.000001"]
    process = subprocess.Popen(
        command("train", "text", text, "--out", out, *options),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
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
    said = finished(command("train", "text", "--out", out, "--resume"))
    assert said.count("done: 34 steps") == 1  # one of them speaks
    same_run(folder / "random", out)


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


def test_what_ends_one_process_ends_all_with_one_message(ended, text, folder):
    """An error of the first alone, one of all of them, and one in the middle of a training."""
    words = {
        "file": "is a file, a run needs a folder",
        "streams": "too few for 999 streams",
        "diverged": "the training diverged",
    }
    for name, message in words.items():
        (code, _, said), (other, *nothing) = (each[name] for each in ended)
        assert code in (1, 2) and other in (1, 2)
        assert said.count("error:") == 1 and message in said and nothing == ["", ""]
    arguments = command("train", "text", text, "--out", folder / "file", "--devices", 2, *OPTIONS)
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode in (1, 2)
    assert done.stderr.count("error:") == 1 and words["file"] in done.stderr and "Traceback" not in done.stderr


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
