"""What the verbs say of places, devices and folders that cannot be used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import ostinato as library
from ostinato.cli import app
from ostinato.data.catalogue import fetch
from ostinato.errors import DataError, OptionError, RunError
from ostinato.runtime import CHOICES
from ostinato.tasks import resume
from ostinato.tasks.registry import TASKS
from ostinato.tasks.text.task import Text
from ostinato.training.config import BACKENDS, Machine
from ostinato.training.machine import make_fabric
from ostinato.training.options import declared
from ostinato.training.processes import is_first
from small_classes import text_table
from tiny_commands import SMALL, ostinato, trained
from tiny_runs import begin, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"))


def told(error: str) -> str:
    return " ".join(re.sub("[│╭╮╰╯─]", " ", error).split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(run):
    beer = run.parent / "beer.txt"
    for verb in ("evaluate", "predict"):
        code, out, err = ostinato(verb, run, beer, "--device", "cuda")
        assert (code, out) == (2, "") and "device 'cuda' is not here; torch sees cpu" in err
        assert ostinato(verb, run, beer, "--device", "auto")[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_needs_a_gpu_is_said_in_one_line(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    beer = run.parent / "beer.txt"
    for arguments in (
        ("train", "text", beer, *SMALL, "--out", tmp_path / "triton", "--backend", "triton"),
        ("evaluate", run, beer, "--backend", "triton"),
        ("predict", run, beer, "--backend", "triton"),
        ("sample", run, "--length", 3, "--backend", "triton"),
    ):
        code, _, err = ostinato(*arguments)
        assert code == 2 and "this backend runs on a GPU" in err and "Traceback" not in err, arguments
        assert len([line for line in err.splitlines() if "error" in line]) == 1
    assert not (tmp_path / "triton").exists()
    assert BACKENDS == CHOICES
    assert ostinato("evaluate", run, beer, "--backend", "cuda")[0] == 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_a_backend_that_cannot_run_leaves_a_run_as_it_was(run, tmp_path, monkeypatch, precision):
    """It is asked before a folder is made, or overwritten, or gone on with; of the numbers that training will have."""
    monkeypatch.setenv("TRITON_INTERPRET", "1" if precision == "64-true" else "0")
    beer, kept = run.parent / "beer.txt", tmp_path / "kept"
    shutil.copytree(run, kept)
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    why = "the tensors are torch.float64" if precision == "64-true" else "runs on a GPU"
    refused = ("--backend", "triton", "--precision", precision)
    for out, more in ((tmp_path / "new", ()), (kept, ("--force",))):
        code, _, err = ostinato("train", "text", beer, *SMALL, "--out", out, *refused, *more)
        assert code == 2 and why in err and "use backend='auto'" in err, err
    if precision == "32-true":  # which a run keeps
        assert ostinato("train", "text", "--out", kept, "--resume", "--epochs", 2, "--backend", "triton")[0] == 2
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_places_that_cannot_be_written_are_said(run, tmp_path):
    beer = run.parent / "beer.txt"
    (tmp_path / "file").write_text("precious")
    for arguments in (
        ("predict", run, beer, "--out", tmp_path / "file" / "table.csv"),
        ("predict", run, beer, "--out", tmp_path),
        ("train", "text", beer, *SMALL, "--find-learning-rate", tmp_path / "file" / "rate.png"),
    ):
        code, _, err = ostinato(*arguments)
        assert code == 1 and "could not be written" in err, arguments
    assert (tmp_path / "file").read_text() == "precious"
    code, _, err = ostinato("evaluate", run, beer, "--pictures", tmp_path / "drawn")
    assert code == 2 and "has no pictures" in err and not (tmp_path / "drawn").exists()


def test_a_damaged_run_does_not_hide_the_others(run, tmp_path):
    for name, damage in (
        ("list", lambda path: (path / "run.json").write_text("[]")),
        ("half", lambda path: (path / "run.json").write_text('{"format": 1')),
        ("less", lambda path: (path / "run.json").write_text('{"format": 1}')),
        ("bytes", lambda path: (path / "run.json").write_bytes(b"\xff\xfe")),
        ("cut", lambda path: (path / "checkpoints" / "last.safetensors").write_bytes(b"")),
    ):
        shutil.copytree(run, tmp_path / name)
        damage(tmp_path / name)
        code, out, err = ostinato("runs", run, tmp_path / name)
        assert code == 0 and str(run) in out and name not in out
        assert err.startswith("left out: ") and str(tmp_path / name) in err
        code, out, err = ostinato("runs", tmp_path / name)
        assert (code, out) == (1, "") and str(tmp_path / name) in err
    about = json.loads((run / "run.json").read_text()) | {"format": 99, "ostinato": "9.9"}
    (tmp_path / "list" / "run.json").write_text(json.dumps(about))
    code, _, err = ostinato("runs", tmp_path / "list")
    assert code == 1 and "of format 99" in err and "use the version that wrote it (9.9)" in err
    shutil.rmtree(tmp_path / "half" / "checkpoints")
    code, _, err = ostinato("runs", tmp_path / "half")
    assert code == 1 and "there is no run in" in err


def test_options_of_other_tasks_leave_a_blank(run, tmp_path):
    table = text_table(tmp_path)
    classes = tmp_path / "classes"
    options = ["--hidden-size", 4, "--embedding-size", 4, "--epochs", 1]
    assert ostinato("train", "classify", table, "--out", classes, *options)[0] == 0
    code, out, err = ostinato("runs", run, classes, "--options", "bptt")
    assert (code, err) == (0, "") and "bptt" in out.splitlines()[0]


def test_numbers_that_are_none_are_shown():
    for option, value, words in (
        ("--hidden-size", "wide", "'wide' is not a whole number"),
        ("--hidden-size", "2.5", "'2.5' is not a whole number"),
        ("--hidden-size", "0", "hidden_size is 0; pass 1 or more"),
        ("--epochs", "many", "'many' is not a number"),
        ("--adaptive", "x", "'x' is not a whole number"),
        ("--seeds", "0", "seeds is 0"),
    ):
        code, _, err = ostinato("train", "text", option, value)
        assert code == 2 and words in told(err)
    code, _, err = ostinato("sample", "none", "--length", "-1")
    assert code == 2 and "-1 is below 0" in told(err)


def test_a_checkpoint_without_a_run_to_go_on_with_is_refused(run):
    code, _, err = ostinato("train", "text", run.parent / "beer.txt", "--checkpoint", "best", "--out", run.parent / "n")
    assert code == 2 and "--checkpoint says where --resume goes on" in told(err)


def test_the_defaults_that_help_names_are_those_of_the_config():
    for entry in TASKS.values():
        values = entry.config_type()().values()
        _, out, _ = ostinato("train", entry.name, "--help")
        for place in declared(entry.config_type()):
            value = values[place.name]
            if value is None or value == () or place.name == "data":
                continue
            shown = {True: "yes", False: "no"}.get(value) if isinstance(value, bool) else None
            shown = shown or (", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
            assert f"{place.option.help} Default: {shown}." in told(out)
        assert "[default" not in out and "[[" not in out


def test_verbs_stand_in_the_order_of_their_use():
    _, out, _ = ostinato("--help")
    places = [out.index(f" {verb} ") for verb in ("train", "evaluate", "predict", "sample", "runs", "data", "bench")]
    assert places == sorted(places)
    assert len(app.registered_commands) + len(app.registered_groups) == 9


def test_the_test_part_is_read_again_where_the_best_weights_are_others(tmp_path):
    table = str(text_table(tmp_path))
    options = {"hidden_size": 4, "embedding_size": 4, "batch_size": 8, "evaluations": 2, "learning_rate": 0.02}
    run = library.train("classify", table, out=tmp_path / "run", epochs=1, **options)
    (tmp_path / "file").write_text("precious")
    for place in ("file", "file/deeper"):
        with pytest.raises(OptionError, match="cannot be a folder"):
            run.evaluate(pictures=tmp_path / place)
    first = run.test()
    held = json.loads((run.path / "results.json").read_text())
    held["measures"]["accuracy"] = -1.0
    (run.path / "results.json").write_text(json.dumps(held))
    assert run.test()["accuracy"] == -1.0  # kept, not measured twice
    run = resume(run.path, epochs=4)
    assert run.position["best_step"] > held["step"]
    assert run.results == {}
    assert run.test().keys() == first.keys() and run.test()["accuracy"] >= 0.0


def test_a_run_that_came_and_went_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    """Another training may begin and end in a folder while this one still reads its data."""
    out, plain = tmp_path / "run", Text.begin

    def slow(config, cell):
        begun = plain(config, cell)
        monkeypatch.setattr(Text, "begin", plain)
        begin(tiny(tmp_path), out)
        return begun

    monkeypatch.setattr(Text, "begin", slow)
    with pytest.raises(RunError, match="already holds a run"):
        library.train("text", out=out, **tiny(tmp_path, seed=9))
    assert library.Run(out).config.values()["seed"] == 5


def test_a_folder_of_data_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("OSTINATO_DATA", str(tmp_path / "tpyo"))
    with pytest.raises(DataError, match=r"OSTINATO_DATA is '.*tpyo', and there is no such folder"):
        fetch("tinyshakespeare")


def test_the_list_of_data_sets_says_which_task_takes_them():
    _, out, _ = ostinato("data", "list")
    rows = [line.split() for line in out.splitlines()]
    tasks = {row[0]: row[1] for row in rows if len(row) > 1}
    assert (tasks["tinyshakespeare"], tasks["mnist"], tasks["mitbih"], tasks["etth1"], tasks["cmudict"]) == (
        "text",
        "classify",
        "label",
        "forecast",
        "-",
    )
    assert "a million characters of Shakespeare's plays" in out


def test_machines_that_nothing_tells_apart_are_refused(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(OptionError, match="nodes is 2, and nothing says which of them this is"):
        make_fabric(Machine(nodes=2))


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "3"}, True),  # set by something else: there is one process
        ({"RANK": "0", "WORLD_SIZE": "4"}, True),
        ({"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, False),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, False),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, True),
    ],
)
def test_one_of_several_processes_speaks(variables, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
