"""The command line: what a person types, sees, and gets wrong."""

from __future__ import annotations

import csv
import inspect
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from laws import THOROUGH
from ostinato import transforms
from ostinato.cells import catalogue
from ostinato.gallery.facts import Facts
from ostinato.gallery.transformed import transformed
from ostinato.ir import equations, simplify
from ostinato.tasks.text.config import TextConfig
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from tiny_commands import MINE, ONE_THREAD, SMALL, command, ostinato, trained
from tiny_runs import TEXT, losses


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "beer.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"))


# ---------------------------------------------------------------- train


def test_training_says_what_it_does_in_plain_lines(text, tmp_path):
    code, out, err = ostinato("train", "text", text, "--out", tmp_path / "r", "--epochs", 1, *SMALL)
    assert code == 0 and err == ""
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0].startswith("lstm, 1 x 8: ") and lines[0].endswith(" parameters")
    assert lines[1].startswith("beer.txt: 1,080 characters") and "held out" in lines[1]
    evaluations = [line for line in lines if "held out" in line and line.startswith("step ")]
    assert len(evaluations) == 10
    with open(tmp_path / "r" / "metrics.csv", newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    assert (
        f"held out {float(last['validation_bits']):.3f} bits/char ({float(last['validation_nats']):.3f} nats)"
        in evaluations[-1]
    )
    sample = (tmp_path / "r" / "samples" / f"step-{int(last['step']):08d}.txt").read_text()
    for line in sample.strip("\n").split("\n"):
        assert "    " + line in lines
    assert lines[-2].endswith("r/loss.png") and lines[-1].endswith(f"ostinato sample {tmp_path / 'r'}")


def test_options_reach_the_run_and_the_rest_is_the_recipe(run):
    config = TextConfig.from_json(read_checkpoint(find_checkpoint(run)).document["config"])
    expected = TextConfig.of(
        data=str(run.parent / "beer.txt"),
        epochs=1.0,
        hidden_size=8,
        embedding_size=6,
        batch_size=4,
        bptt=8,
        sample_length=30,
    )
    assert config == expected


def test_every_entry_of_the_config_is_an_option():
    code, out, _ = ostinato("train", "text", "--help", terminal_width=200)
    assert code == 0
    for name in TextConfig().values():
        option = "DATA" if name == "data" else "--" + name.replace("_", "-")
        assert f"{option} " in out or f"[{option}] " in out, name


def test_the_library_of_python_is_the_text_without_a_file(tmp_path):
    options = ["--max-characters", 20000, "--epochs", 0.05, *SMALL]
    code, out, _ = ostinato("train", "text", "--out", tmp_path / "r", *options)
    assert code == 0
    assert "the standard library of Python 3" in out and "18,000 characters to train on, 2,000 held out" in out


def test_tied_weights_need_no_second_option(text, tmp_path):
    options = ["--tied", "--epochs", 0.1, "--hidden-size", 8, "--batch-size", 4, "--bptt", 20]
    assert ostinato("train", "text", text, "--out", tmp_path / "r", *options)[0] == 0
    document = read_checkpoint(find_checkpoint(tmp_path / "r")).document
    assert document["model"]["tied"] and document["model"]["rnn"]["input_size"] == 8


def test_a_cell_of_ones_own_comes_from_a_file(text, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    options = ["--cell", f"{tmp_path / 'mine.py'}:mine", "--epochs", 0.1, *SMALL]
    code, out, _ = ostinato("train", "text", text, "--out", tmp_path / "r", *options)
    assert code == 0 and out.startswith("mine, 1 x 8")
    (tmp_path / "mine.py").unlink()
    assert ostinato("sample", tmp_path / "r", "--length", 5)[0] == 0
    assert ostinato("train", "text", "--out", tmp_path / "r", "--resume", "--epochs", 0.2)[0] == 0


WRONG = {
    "missing": (["nothing.txt"], 2, "there is no file"),
    "folder": (["."], 2, "is a folder"),
    "empty": (["empty.txt"], 2, "is empty"),
    "binary": (["binary.txt"], 2, "not a text"),
    "latin": (["latin.txt"], 2, "--encoding latin-1"),
    "short": (["short.txt"], 2, "too few for"),
    "one character": (["one.txt"], 2, "has 1 characters"),
    "no such cell": (["text.txt", "--cell", "lstn"], 2, "lstm"),
    "no such file of cells": (["text.txt", "--cell", "no.py:mine"], 2, "there is no file no.py"),
    "no name of a cell": (["text.txt", "--cell", "bad.py"], 2, "write --cell bad.py:NAME"),
    "no such cell in the file": (["text.txt", "--cell", "good.py:yours"], 2, "its cells are: mine"),
    "a file of cells that fails": (
        ["text.txt", "--cell", "bad.py:mine"],
        2,
        "bad.py, line 2, could not be run: ZeroDivisionError",
    ),
    "a file of cells that is no Python": (
        ["text.txt", "--cell", "worse.py:mine"],
        2,
        "worse.py, line 1, could not be run: SyntaxError",
    ),
    "a size is missing": (["text.txt", "--cell", "projected_lstm"], 2, "pass --size P=NUMBER"),
    "not a size": (["text.txt", "--cell", "projected_lstm", "--size", "P"], 2, "is not NAME=NUMBER"),
    "not a rule": (["text.txt", "--init", "b_f"], 2, "is not NAME=RULE"),
    "no such rule": (["text.txt", "--init", "b_f=wishes"], 2, "wishes"),
    "a rule for nothing": (["text.txt", "--init", "b_q=zeros"], 2, "b_q"),
    "both budgets": (["text.txt", "--epochs", "1", "--minutes", "1"], 2, "pass one of them"),
    "resume and force": (["text.txt", "--resume", "--force"], 2, "pass one of them"),
    "hidden size": (["text.txt", "--hidden-size", "0"], 2, "hidden_size"),
    "not a number": (["text.txt", "--epochs", "many"], 2, "epochs"),
    "learning rate": (
        ["text.txt", "--learning-rate", "-1"],
        2,
        "learning_rate is -1.0; pass a number above 0",
    ),
    "dropout": (["text.txt", "--dropout", "1"], 2, "dropout is 1.0"),
    "device": (["text.txt", "--device", "toaster"], 2, "none of auto, cpu"),
    "backend": (["text.txt", "--backend", "rust"], 2, "none of auto, c, triton, eager"),
    "tied": (["text.txt", "--tied", "--embedding-size", "5"], 2, "tied weights"),
    "nothing to resume": (["text.txt", "--resume", "--out", "void"], 1, "does not exist"),
    "out is a file": (["text.txt", "--out", "text.txt"], 1, "is a file"),
    "out holds other things": (["text.txt", "--out", "full"], 1, "holds files that are not a run's"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_ends_with_one_message_and_leaves_nothing(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "text.txt": TEXT.encode(),
        "empty.txt": b"",
        "binary.txt": bytes(range(256)),
        "latin.txt": b"caf\xe9",
        "short.txt": b"too short",
        "one.txt": b"a",
        "good.py": MINE.encode(),
        "bad.py": b"# fails\nmine = 1 / 0\n",
        "worse.py": b"def (",
    }.items():
        Path(name).write_bytes(content)
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("mine")
    arguments, expected, words = WRONG[what]
    before = sorted(Path().rglob("*"))
    code, out, err = ostinato("train", "text", *arguments, terminal_width=200)
    assert code == expected, err
    assert words in " ".join(err.replace("│", " ").split())
    assert out == "" and "Traceback" not in err
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_run_is_not_overwritten_by_accident(text, run):
    before = losses(run)
    code, _, err = ostinato("train", "text", text, "--out", run, "--epochs", 1, *SMALL)
    assert code == 1 and "--resume" in err and "--force" in err
    assert losses(run) == before


def test_resuming_needs_no_option_and_refuses_to_become_another_run(run):
    code, out, _ = ostinato("train", "text", "--out", run, "--resume")
    assert code == 0 and "going on from step 34" in out
    code, _, err = ostinato("train", "text", "--out", run, "--resume", "--num-layers", 2)
    assert code == 1 and "begun with num_layers = 1, got 2" in err


# Ctrl-C ends the two processes of test_distributed in the same way
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if THOROUGH else [signal.SIGTERM])
def test_ctrl_c_stops_cleanly_says_how_to_go_on_and_that_works(text, tmp_path, number):
    out = tmp_path / "a run"
    arguments = ["train", "text", text, "--out", out, "--epochs", 3000, "--eval-every", 100000, *SMALL]
    process = subprocess.Popen(
        command(*arguments), env=ONE_THREAD, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (out / "checkpoints" / "last.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == ""
    step = read_checkpoint(find_checkpoint(out, "last")).document["position"]["step"]
    assert f"stopped after step {step:,}; everything is in '{out}'" in said
    assert said.splitlines()[-1].strip() == f"ostinato train text --out '{out}' --resume"
    code, said, _ = ostinato("train", "text", "--out", out, "--resume", "--epochs", step / 34 + 0.2)
    assert code == 0 and f"going on from step {step:,}" in said


def test_a_terminal_shows_a_live_bar_with_speed_loss_and_eta(text, tmp_path):
    master, slave = pty.openpty()
    arguments = ["train", "text", text, "--out", tmp_path / "r", "--epochs", 3, *SMALL]
    process = subprocess.Popen(
        command(*arguments),
        env=ONE_THREAD | {"TERM": "xterm-256color"},
        stdout=slave,
        stderr=slave,
        stdin=slave,
    )
    os.close(slave)
    seen = b""
    while True:
        if select.select([master], [], [], 60)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(master)
    assert process.wait() == 0
    shown = seen.decode()
    for word in ("training", "characters/s", "bits/char", "ETA", "held out", "loss.png"):
        assert word in shown, word
    assert shown.rindex("\x1b[?25h") > shown.index("\x1b[?25l")  # the cursor is back


# ---------------------------------------------------------------- the rest


def test_the_catalogue_is_listed_with_its_references():
    code, out, _ = ostinato("cells")
    assert code == 0
    for name, cell in catalogue().items():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert cell.reference in line and ", ".join(cell.states) in line and Facts(cell).text.summary in line


def test_the_transforms_stand_at_the_end_of_the_list():
    code, out, _ = ostinato("cells")
    lines = out.splitlines()
    after = lines[lines.index("Transforms, from cell to cell") + 1 :]
    assert code == 0 and max(map(len, lines)) <= 170
    assert [line.split()[0] for line in after if line.startswith("  ")] == transforms.__all__
    for t, line in zip(transformed(), after, strict=False):
        assert line.endswith(f" {t.text.summary} {t.reference}")


@pytest.mark.parametrize("name", transforms.__all__)
def test_one_transform_is_shown_in_full(name):
    code, out, err = ostinato("cells", name, terminal_width=100)
    assert code == 0 and err == "" and out.startswith(f"{name}, a transform of cells. ")
    shown = " ".join(out.split())
    (t,) = (t for t in transformed() if t.name == name)
    assert f"{t.text.summary} {t.reference}." in shown and f" {t.signature} " in shown
    for argument in [*inspect.signature(getattr(transforms, name)).parameters][1:]:
        assert f"    {argument}\n        {t.text.arguments[argument].split()[0]}" in out, argument
    assert all(note in shown for note in (" ".join(note.split()) for note in t.text.notes))
    for call, program in t.examples:
        assert f"\n{call}\n" in out and equations(simplify(program), width=96).splitlines()[0] in out


def test_a_transformed_cell_names_its_transforms():
    code, out, _ = ostinato("cells", "zoneout(layer_norm(lstm(forget_bias=0.0)), 0.1)")
    shown = " ".join(out.split())
    assert code == 0 and "zone_c[t] ⊙ c[t-1]" in out and "\ng_U_f " in out
    assert shown.startswith(
        "zoneout(layer_norm(lstm(forget_bias=0.0)), 0.1): lstm(forget_bias=0.0) under layer_norm, zoneout. "
    )
    for t in transformed():
        assert (f"{t.name}: {t.text.summary} {t.reference}." in shown) == (t.name in ("zoneout", "layer_norm"))
    assert f"lstm(forget_bias=0.0): {Facts(catalogue()['lstm']).text.summary} Gers et al. 2000." in shown
    assert "says more of each: zoneout, layer_norm, lstm." in shown and "says its options" not in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_of_any_width_shows_the_catalogue_within_it(columns, monkeypatch):
    monkeypatch.setattr(sys.modules["ostinato.cli.cells"], "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = ostinato("cells")
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) < columns
    for name, cell in catalogue().items():
        first = next(k for k, line in enumerate(lines) if line.startswith(f"  {name} "))
        said = " ".join(" ".join(lines[first : first + 5]).split())
        assert cell.reference in said and f"{Facts(cell).count:,} parameters" in said
    for t in transformed():
        first = next(k for k, line in enumerate(lines) if line.startswith(f"  {t.name} "))
        assert t.reference in " ".join(" ".join(lines[first : first + 5]).split())
    names = catalogue() if THOROUGH or columns == 80 else ()
    for name in (*names, *transforms.__all__, "zoneout(layer_norm(lstm), 0.1)"):
        assert max(map(len, ostinato("cells", name)[1].splitlines())) <= columns, name


@pytest.mark.parametrize("name", catalogue())
def test_one_cell_is_shown_in_full(name):
    code, out, _ = ostinato("cells", name)
    facts = Facts(catalogue()[name])
    assert code == 0 and out.startswith(f"{name}: ")
    for parameter, shape in facts.program.params.items():
        assert re.search(rf"^{parameter} +{re.escape('[' + ', '.join(shape) + ']')} +\S", out, re.MULTILINE), parameter
    for state, size in facts.program.state_sizes.items():
        assert f"{state} [{size}]" in out and f"{state}[t]" in out
    if facts.preset_of is None:
        assert all(f"    {option} = {value!r}\n" in out for option, value in facts.cell.options.items())


def test_one_s_own_cell_is_shown_too(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    code, out, _ = ostinato("cells", f"{tmp_path / 'mine.py'}:mine")
    assert code == 0 and "h[t] = tanh(W x[t] + U h[t-1])" in out


def test_the_page_of_all_cells_is_written_where_it_is_asked_for(tmp_path):
    code, out, _ = ostinato("cells", "--gallery", tmp_path / "new")
    assert code == 0 and "cells.md" in out
    assert {path.stem for path in (tmp_path / "new" / "cells").glob("*.svg")} == set(catalogue())
    assert (tmp_path / "new" / "cells.md").read_text().count("\n```math\n") >= len(catalogue())


def test_what_cells_cannot_do_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert ostinato("cells", "lstn")[0] == 2
    code, _, err = ostinato("cells", "lstm", "--gallery", tmp_path)
    assert code == 2 and "leave one of them out" in err and not list(tmp_path.glob("cells*"))
    code, _, err = ostinato("cells", "--gallery", tmp_path / "file" / "below")
    assert code == 1 and "could not be written" in err


def test_help_and_version_answer_without_torch():
    script = (
        "import sys\n"
        "from ostinato.cli import app\n"
        "try:\n    app(['{}'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    for option, words in (("--help", "train"), ("--version", "ostinato ")):
        done = subprocess.run(
            [sys.executable, "-c", script.format(option)], capture_output=True, text=True, env=ONE_THREAD
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_an_unknown_verb_is_refused():
    code, _, err = ostinato("dance")
    assert code == 2 and "dance" in err
