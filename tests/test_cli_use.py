"""The verbs that use trained models, and those that list what there is."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch

import ostinato as library
from ostinato.tasks.text.held_out import HeldOut
from tiny_commands import SMALL, command, ostinato, trained
from tiny_runs import TEXT, begin, losses, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"))


# ---------------------------------------------------------------- evaluate


def test_evaluating_the_held_out_part_gives_what_the_training_wrote(run):
    code, out, _ = ostinato("evaluate", run, "--part", "validation", "--checkpoint", "last", "--json")
    assert code == 0
    measures = json.loads(out)
    assert measures["nats"] == pytest.approx(float(losses(run)[-1]["validation_nats"]), rel=1e-5)
    assert measures["bits"] == pytest.approx(measures["nats"] / math.log(2))
    assert measures["perplexity"] == pytest.approx(math.exp(measures["nats"]))
    _, said, _ = ostinato("evaluate", run, "--part", "validation", "--checkpoint", "last")
    assert f"{measures['bits']:.4f} bits per character" in said and "over 120 characters" in said
    assert library.evaluate(run, part="validation", checkpoint="last") == measures
    assert library.Run(run).evaluate(part="validation", checkpoint="last") == measures


def test_evaluating_a_file_a_pipe_and_the_training_part(run):
    beer = run.parent / "beer.txt"
    _, of_file, _ = ostinato("evaluate", run, beer, "--json")
    with open(beer, "rb") as stream:
        assert library.evaluate(run, stream) == json.loads(of_file)
    code, of_pipe, _ = ostinato("evaluate", run, "-", "--json", input=beer.read_bytes())
    assert code == 0 and of_pipe == of_file
    _, of_training, _ = ostinato("evaluate", run, "--part", "train", "--json")
    assert json.loads(of_training)["characters"] == 1080 < json.loads(of_file)["characters"] == 1200


def test_what_is_wrong_with_an_evaluation_is_said(run, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for arguments, expected, words in (
        ([run], 1, "a text has no test part, its end is held out for validation; pass --part validation"),
        ([run, "--part", "exam"], 2, "'exam' is none of train, validation, test"),
        ([run, tmp_path / "none.txt"], 2, "there is no file"),
        ([run, tmp_path / "empty.txt"], 2, "is empty"),
        ([tmp_path / "none"], 1, "there is no run"),
        ([run, "--checkpoint", "worst"], 1, "there is no checkpoint"),
        ([run, "--backend", "rust"], 2, "none of auto, c, triton, eager"),
        ([run, "--part", "validation", "--pictures", tmp_path / "empty.txt"], 2, "has no pictures"),
        ([run, "--interval", 0.5], 2, "interval is 0.5, but the task text has no intervals"),
        *([] if torch.cuda.is_available() else [([run, "--device", "cuda"], 2, "device 'cuda' is not here")]),
    ):
        code, out, err = ostinato("evaluate", *arguments, terminal_width=200)
        assert (code, out) == (expected, ""), err
        assert words in " ".join(err.replace("│", " ").split())


def test_data_that_changed_since_are_not_evaluated(tmp_path):
    begin(tiny(tmp_path), tmp_path / "run")
    (tmp_path / "text.txt").write_text(TEXT.replace("beer", "wine"))
    code, _, err = ostinato("evaluate", tmp_path / "run", "--part", "validation")
    assert code == 1 and "its content has changed" in err


# ---------------------------------------------------------------- predict


def test_a_text_s_lines_are_told_by_how_surprising_they_are(run, tmp_path):
    text = TEXT[: TEXT.index("\n2 bottles") + 1] + "\nxyz"
    code, out, _ = ostinato("predict", run, "-", input=text.encode())
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["text"] for row in rows] == text.split("\n")
    assert [int(row["characters"]) for row in rows] == [len(line) + 1 for line in text.split("\n")[:-1]] + [3]
    model, vocabulary = library.tasks.load_model(run)
    with torch.no_grad():
        whole = HeldOut(vocabulary.encode("\n"), vocabulary.encode(text)).nats(model)
    assert sum(float(row["nats"]) for row in rows) / len(text) == pytest.approx(whole, rel=1e-4)
    assert float(rows[-1]["bits_per_character"]) > float(rows[0]["bits_per_character"])  # it never read such
    (tmp_path / "it.txt").write_text(text)
    code, said, _ = ostinato("predict", run, tmp_path / "it.txt", "--out", tmp_path / "new" / "table.csv")
    assert code == 0 and f"{len(rows)} rows written to" in said
    assert (tmp_path / "new" / "table.csv").read_text() == out
    assert [{k: str(v) for k, v in row.items()} for row in library.predict(run, tmp_path / "it.txt")] == rows


# ---------------------------------------------------------------- runs and data


def test_runs_are_compared_in_a_table(run, tmp_path):
    begin(tiny(tmp_path, hidden_size=9), tmp_path / "runs" / "a")
    begin(tiny(tmp_path, cell="gru"), tmp_path / "runs" / "deeper" / "b")
    code, out, _ = ostinato("runs", tmp_path / "runs", run, "--options", "hidden_size,cell", "--sort", "parameters")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["run", "task", "model", "parameters"] and lines[0].split()[-1] == "perplexity"
    assert len(lines) == 4 and sum("gru, 2 x 8" in line for line in lines) == 1
    counts = [library.Run(path).about["parameters"] for path in (run, tmp_path / "runs/a", tmp_path / "runs/deeper/b")]
    shown = [line.split() for line in lines[1:]]
    assert [f"{count:,}" in words for count, words in zip(sorted(counts), shown, strict=True)] == [True] * 3
    best = library.Run(run).best["nats"]
    assert any(f"{best:.5g}" in line for line in lines)
    for arguments, words in (
        ([tmp_path / "void"], "there is no folder"),
        ([tmp_path / "runs", "--sort", "beauty"], "there is no column 'beauty'"),
        ([tmp_path / "runs", "--options", "colour"], "there is no option 'colour'"),
    ):
        code, _, err = ostinato("runs", *arguments)
        assert code != 0 and words in err
    (tmp_path / "void").mkdir()
    assert "there is no run in" in ostinato("runs", tmp_path / "void")[2]


def test_data_sets_are_listed_and_taken_from_a_folder(tmp_path, monkeypatch):
    code, out, _ = ostinato("data", "list")
    assert code == 0 and "tinyshakespeare" in out and "MIT" in out
    code, _, err = ostinato("data", "get", "tinyshakespear")
    assert code == 2 and "did you mean tinyshakespeare" in err


# ---------------------------------------------------------------- looking for a learning rate


@pytest.mark.usefixtures("rendered")
def test_a_learning_rate_is_looked_for_and_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("beer.txt").write_text(TEXT)
    code, out, err = ostinato("train", "text", "beer.txt", *SMALL, "--find-learning-rate", "rate.png")
    assert code == 0, err
    assert "the loss falls fastest at a learning rate of" in out
    assert Path("rate.png").read_bytes()[:4] == b"\x89PNG" and sorted(p.name for p in Path().iterdir()) == [
        "beer.txt",
        "rate.png",
    ]
    found = library.find_learning_rate("text", "beer.txt", hidden_size=8, embedding_size=6, batch_size=4, bptt=8)
    assert found.rates[0] == pytest.approx(1e-6) and found.rates == tuple(sorted(found.rates))
    assert 1e-5 < found.rate < 1.0 and len(found.losses) == len(found.rates) > 50
    code, _, err = ostinato("train", "text", "beer.txt", *SMALL, "--find-learning-rate", "rate.jpg")
    assert code == 2 and "is not named .png" in " ".join(err.replace("│", " ").split())


def test_a_config_file_and_options_before_it(tmp_path):
    (tmp_path / "beer.txt").write_text(TEXT)
    run = tmp_path / "run"
    arguments = ["train", "text", tmp_path / "beer.txt", "--epochs", "0.2", *SMALL]
    assert ostinato(*arguments, "--out", run, "--clip", "0.5")[0] == 0
    again = tmp_path / "again"
    code, _, err = ostinato("train", "text", "--config", run / "config.toml", "--out", again, "--clip", "0.7")
    assert code == 0, err
    mine, theirs = library.Run(run).config.values(), library.Run(again).config.values()
    assert mine.pop("clip") == 0.5 and theirs.pop("clip") == 0.7
    assert mine == theirs
    code, _, err = ostinato("train", "text", "--config", run / "config.toml", "--out", run, "--resume")
    assert code == 2 and "leave --config out" in " ".join(err.replace("│", " ").split())


def test_a_checkpoint_of_its_own_every_so_many_steps(tmp_path):
    begin(tiny(tmp_path, keep_every=10), tmp_path / "run")
    names = sorted(path.stem for path in (tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    assert names == ["step-00000010", "step-00000020", "step-00000030"]
    code, out, err = ostinato("sample", tmp_path / "run", "--checkpoint", "step-00000020", "--length", 5, "--seed", 1)
    assert code == 0 and len(out) >= 5, err


def test_help_of_the_verbs_needs_no_torch():
    import subprocess

    code = "import sys; sys.argv = ['ostinato', {!r}, '--help']; from ostinato.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules, 'torch'"
    for verb in ("train", "evaluate", "predict", "runs", "data"):
        done = subprocess.run([command()[0], "-c", code.format(verb)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
