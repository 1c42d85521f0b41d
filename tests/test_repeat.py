"""The same training several times."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from ostinato.errors import OptionError, RunError
from ostinato.tasks import repeat, train
from tiny_commands import SMALL, ostinato
from tiny_runs import TEXT, StopAt, begin, same_run, tiny


def test_seeds_are_runs_of_their_own_and_their_mean_is_told(tmp_path):
    done = repeat("text", out=tmp_path / "many", seeds=3, with_test=False, **tiny(tmp_path))
    assert done.finished and done.part == "validation"
    assert [row["seed"] for row in done.rows] == [5, 6, 7]
    begin(tiny(tmp_path, seed=6), tmp_path / "alone")
    same_run(tmp_path / "alone", tmp_path / "many" / "seed-6")
    nats = [row["nats"] for row in done.rows]
    assert done.mean()["nats"] == (pytest.approx(statistics.fmean(nats)), pytest.approx(statistics.stdev(nats)))
    assert len(set(nats)) == 3 and set(done.mean()) == {"nats", "bits", "perplexity"}
    with open(tmp_path / "many" / "summary.csv", newline="") as stream:
        assert [float(row["nats"]) for row in csv.DictReader(stream)] == nats


def test_what_was_interrupted_goes_on(tmp_path):
    whole = repeat("text", out=tmp_path / "whole", seeds=2, with_test=False, **tiny(tmp_path))
    done = repeat("text", out=tmp_path / "many", seeds=2, with_test=False, reporter=StopAt(40), **tiny(tmp_path))
    assert not done.finished and len(done.runs) == 1  # 34 steps each
    done = repeat("text", out=tmp_path / "many", seeds=2, with_test=False, go_on=True, **tiny(tmp_path))
    assert done.finished and done.rows == whole.rows


def test_wrong_wishes_are_refused_before_anything_is_written(tmp_path):
    for wish, words in (({"seeds": 0}, "seeds is 0"), ({"with_test": True}, "text has no test part")):
        with pytest.raises(OptionError, match=words):
            repeat("text", out=tmp_path / "many", **({"with_test": False} | wish), **tiny(tmp_path))
    train("text", out=tmp_path / "run", **tiny(tmp_path))
    with pytest.raises(RunError, match="is a run itself"):
        repeat("text", out=tmp_path / "run", seeds=2, with_test=False, **tiny(tmp_path))
    assert not (tmp_path / "many").exists()


def test_the_command_line_trains_several(tmp_path: Path):
    (tmp_path / "beer.txt").write_text(TEXT)
    arguments = ["train", "text", tmp_path / "beer.txt", "--out", tmp_path / "r", "--epochs", "0.2", *SMALL]
    code, out, err = ostinato(*arguments, "--seeds", 2)
    assert code == 0, err
    assert "1 of 2: seed-0" in out and "2 runs, validation part, mean and standard deviation" in out
    code, _, err = ostinato(*arguments, "--with-test")
    assert code == 2 and "text has no test part" in err


def test_the_pace_of_a_run_is_its_own():
    """With several seeds one watcher sees several runs."""
    from ostinato.cli.progress import Pace
    from ostinato.training.report import RunInfo

    pace = Pace()
    for _ in range(2):
        pace.start(RunInfo(Path("run"), (), "steps", str, None, 0.0))
        assert pace.describe() == ("", "", "--:--")
        for k in range(3):
            pace.mark(k / 10, 1000 * k, 2.0)
        speed, _, _ = pace.describe()
        assert speed.endswith("steps/s") and not speed.startswith("-")
