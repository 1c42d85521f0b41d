"""The files of a run: never torn, never another's, and what is wrong with them is said."""

from __future__ import annotations

import errno
import json
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ostinato.errors import DataError, OptionError, RunError
from ostinato.tasks import load_model
from ostinato.tasks.text.config import TextConfig
from ostinato.training.checkpoint import read_checkpoint, write_checkpoint
from ostinato.training.files import write_atomically
from ostinato.training.metrics import Metrics
from ostinato.training.run_folder import RunFolder
from ostinato.training.toml import read_toml, to_toml
from tiny_runs import StopAt, begin, go_on, losses, tiny, weights

# ---------------------------------------------------------------- files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def full(*args: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, function, full)
            with pytest.raises(RunError, match=r"the disk is full: .*file could not be written"):
                write_atomically(path, "new")
        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(RunError, match="could not be written: No such file"):
        write_atomically(tmp_path / "missing" / "file", "new")


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": base.t(), "b": base[1:], "c": base, "d": torch.tensor(3), "e": torch.zeros(0, 2)}
    write_checkpoint(tmp_path, ["best", "last"], {"say": "ünï"}, tensors)
    for name in ("best", "last"):
        found = read_checkpoint(tmp_path / f"{name}.safetensors")
        assert found.document == {"format": 1, "say": "ünï"}
        assert found.tensors.keys() == tensors.keys()
        for key, value in tensors.items():
            assert torch.equal(found.tensors[key], value)
    assert found.part("a") == {}


@given(st.data())
def test_a_checkpoint_cut_or_altered_anywhere_is_found_out(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    write_checkpoint(folder, ["last"], {"n": 1}, {"w": torch.arange(10.0), "v": torch.ones(3)})
    path = folder / "last.safetensors"
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        altered = bytearray(whole)
        altered[place] ^= 1 << bit
        path.write_bytes(altered)
    try:
        found = read_checkpoint(path)
    except RunError as error:
        assert str(path) in str(error)
    else:  # a blank of the header's padding, or the like, says nothing else
        assert found.document == {"format": 1, "n": 1}
        assert torch.equal(found.tensors["w"], torch.arange(10.0))
        assert torch.equal(found.tensors["v"], torch.ones(3))


def test_a_damaged_last_names_the_best_that_is_there(tmp_path):
    begin(tiny(tmp_path), tmp_path / "run", reporter=StopAt(30))
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    for use in (lambda: go_on(tmp_path / "run"), lambda: load_model(tmp_path / "run", "last")):
        with pytest.raises(RunError, match=r"last.safetensors is damaged: .* there is best: pass --checkpoint best"):
            use()
    load_model(tmp_path / "run")
    assert go_on(tmp_path / "run", checkpoint="best").finished


def test_other_formats_and_other_files_are_told_apart(tmp_path, monkeypatch):
    import safetensors.torch

    from ostinato.training import checkpoint

    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    write_checkpoint(tmp_path, ["last"], {"ostinato": "9.9"}, {"w": torch.ones(1)})
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"is of format 2, this Ostinato reads format 1; .* wrote it \(9.9\)"):
        read_checkpoint(tmp_path / "last.safetensors")
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(RunError, match="no checkpoint of Ostinato"):
        read_checkpoint(tmp_path / "foreign.safetensors")
    with pytest.raises(RunError, match="there is no run"):
        load_model(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="not a run folder"):
        load_model(tmp_path / "empty")


def test_a_checkpoint_that_lacks_an_entry_is_refused(tmp_path):
    write_checkpoint(tmp_path, ["last"], {"vocabulary": 3}, {"w": torch.ones(1)})
    with pytest.raises(RunError, match="does not hold a usable 'model'"):
        load_model(tmp_path / "last.safetensors")


COLUMNS = ("step", "characters", "train_nats", "validation_nats")


def test_metrics_that_are_no_metrics_are_refused_with_their_line(tmp_path):
    path = tmp_path / "metrics.csv"
    assert Metrics.load(path, COLUMNS, 10).rows == []
    metrics = Metrics(path, COLUMNS)
    metrics.add({"step": 1, "train_nats": 0.1 + 0.2})
    metrics.add({"step": 1, "validation_nats": 2.0})
    metrics.add({"step": 5})
    metrics.write()
    assert Metrics.load(path, COLUMNS, 10).rows == [
        {"step": 1, "train_nats": 0.1 + 0.2, "validation_nats": 2.0},
        {"step": 5},
    ]
    assert len(Metrics.load(path, COLUMNS, 4).rows) == 1
    for text, words in (
        ("", "does not begin with the names"),
        ("a,b\n", "does not begin with the names"),
        (",".join(COLUMNS) + "\n1,2\n", "line 2, has 2 fields of 4"),
        (",".join(COLUMNS) + "\n" + "x," * 3 + "\n", "line 2: could not convert"),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match=words):
            Metrics.load(path, COLUMNS, 10)


# ---------------------------------------------------------------- folders


def test_an_existing_run_is_overwritten_only_by_force(tmp_path):
    out = tmp_path / "run"
    begin(tiny(tmp_path), out, reporter=StopAt(30))
    (out / "notes.md").write_text("mine")
    before = losses(out)
    with pytest.raises(RunError, match=r"already holds a run; go on with it by --resume, overwrite it by --force"):
        begin(tiny(tmp_path), out)
    assert losses(out) == before
    with pytest.raises(DataError, match="too few"):
        begin(tiny(tmp_path, batch_size=5000), out, force=True)
    assert losses(out) == before  # a mistake in the new run costs nothing of the old one
    begin(tiny(tmp_path, eval_every=100), out, force=True, reporter=StopAt(6))
    assert [row["step"] for row in losses(out)] == ["3", "6"]
    assert (out / "notes.md").read_text() == "mine"
    assert len(list(out.glob("events*"))) == 1
    assert not list((out / "samples").iterdir())
    assert not (out / "checkpoints" / "best.safetensors").exists()


def test_a_folder_of_other_things_is_never_used(tmp_path):
    for force in (False, True):
        with pytest.raises(RunError, match=r"holds files that are not a run's \(text.txt\)"):
            begin(tiny(tmp_path), tmp_path, force=force)
        with pytest.raises(RunError, match="is a file"):
            begin(tiny(tmp_path), tmp_path / "text.txt", force=force)
    with pytest.raises(RunError, match="could not be written"):
        begin(tiny(tmp_path), tmp_path / "text.txt" / "run")
    with pytest.raises(RunError, match="nothing to resume"):
        go_on(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        go_on(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["text.txt"]


def test_what_a_run_killed_in_its_first_moment_leaves_is_no_hindrance(tmp_path):
    RunFolder(tmp_path / "run").close()
    (tmp_path / "run" / ".config.json.1.partial").write_bytes(b"half")
    assert begin(tiny(tmp_path, epochs=0.1), tmp_path / "run").finished
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_run_is_trained_by_one_at_a_time(tmp_path):
    begin(tiny(tmp_path), tmp_path / "run", reporter=StopAt(2))
    with RunFolder(tmp_path / "run"), pytest.raises(RunError, match="another training is at work"):
        go_on(tmp_path / "run")
    assert go_on(tmp_path / "run").finished


# ---------------------------------------------------------------- what may go wrong with numbers


def test_a_training_that_diverges_says_so_and_keeps_its_last_sound_checkpoint(tmp_path):
    options = tiny(tmp_path, learning_rate=1e30, clip=0.0, save_every=1e-6, eval_every=1000)
    with pytest.raises(RunError, match=r"diverged. Train again with a lower --learning-rate"):
        begin(options, tmp_path / "run")
    for value in weights(tmp_path / "run").values():
        assert torch.isfinite(value.double()).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 1, "minutes": 1}, "exactly one"),
        ({"epochs": 0}, "epochs is 0; pass a number above 0"),
        ({"epochs": math.nan}, "epochs is nan"),
        ({"minutes": math.inf}, "minutes is inf"),
        ({"hidden_size": 0}, "hidden_size is 0; pass 1 or more"),
        ({"hidden_size": 8.5}, "hidden_size is 8.5, a number; pass a whole number"),
        ({"tied": 1}, "tied is 1, a whole number; pass true or false"),
        ({"size": "P=3"}, "size is 'P=3'; pass a list"),
        ({"schedule": "sometimes"}, "pass one of constant, cosine"),
        ({"hiden_size": 8}, "there is no option 'hiden_size'; did you mean hidden_size"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0; pass 0 or more and less than 1"),
        ({"held_out": 0.0}, "held_out is 0.0"),
        ({"clip": -0.5}, "clip is -0.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_config_out_of_range_is_refused(options, words):
    with pytest.raises(OptionError, match=words):
        TextConfig.of(**options)


def test_a_config_survives_json_and_refuses_another_versions():
    config = TextConfig.of(epochs=3, size=["P=3"], data="a \"text\" \u00e9\x7f\n.txt")
    assert config.length.minutes is None and config.length.epochs == 3.0
    written = config.to_json()
    assert TextConfig.from_json(json.loads(json.dumps(written))) == config
    for wrong in ({}, written | {"more": {"flux": 1}}, [], written | {"length": 3}):
        with pytest.raises(RunError, match="does not fit this version"):
            TextConfig.from_json(wrong)
    with pytest.raises(RunError, match="hidden_size is 'wide', a text; pass a whole number"):
        TextConfig.from_json(written | {"model": written["model"] | {"hidden_size": "wide"}})


def test_a_config_survives_toml_and_what_is_wrong_in_one_is_said(tmp_path):
    config = TextConfig.of(epochs=3, size=["P=3"], data="a \"text\" \u00e9\x7f\n.txt", tied=True, final_rate=1e-9)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config, "text"), encoding="utf-8")
    assert TextConfig.of(**read_toml(path, TextConfig, "text")) == config
    for text, words in (
        ("[model]\nhidden_size = ", "is no TOML"),
        ("task = 'poetry'", "the config of another task; this is text"),
        ("hidden_size = 3", r"outside of any table; write it under \[model\]"),
        ("[text]\nhidden_size = 3", r"in \[text\]; write it under \[model\]"),
        ("[model]\nhiden_size = 3", "has no such option"),
    ):
        path.write_text(text)
        with pytest.raises(OptionError, match=words):
            read_toml(path, TextConfig, "text")
    with pytest.raises(OptionError, match="there is no file"):
        read_toml(tmp_path / "missing.toml", TextConfig, "text")
    path.write_text("[model]\nhidden_size = 3\n")
    assert TextConfig.of(**read_toml(path, TextConfig, "text")) == TextConfig.of(hidden_size=3)


def test_a_device_that_is_not_here_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(RunError, match="device 'cuda' is not here; torch sees cpu"):
        begin(tiny(tmp_path, device="cuda"), tmp_path / "run")
