"""Laws of the benchmark's record: it is whole or not there, and the goals are judged from it alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ostinato.bench.goals import GOALS, Goal, judge
from ostinato.bench.record import check_writable, load_record, write_record
from ostinato.bench.shapes import PEERS
from ostinato.errors import RunError

# The record


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_record(path, {"kind": "bench", "rows": [{"ms": math.nan, "ratio": 1.5}], "shape": (1, 2)})
    assert load_record(path) == {"kind": "bench", "rows": [{"ms": None, "ratio": 1.5}], "shape": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


def test_what_cannot_be_written_leaves_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_record(path, {"kind": "bench"})
    with pytest.raises(TypeError):
        write_record(path, {"kind": "bench", "rows": object()})
    assert load_record(path) == {"kind": "bench"}
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


def test_a_path_that_cannot_be_written_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(RunError, match="does not exist; make it"):
        check_writable(tmp_path / "none" / "bench.json")
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="does not exist; make it"):
        check_writable(file / "bench.json")


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    for text, message in [
        ("{", "not JSON"),
        ("[]", "no record"),
        ('{"kind": "memory"}', "record of 'memory'"),
    ]:
        path.write_text(text)
        with pytest.raises(RunError, match=message):
            load_record(path, "bench")
    with pytest.raises(RunError, match="cannot be read"):
        load_record(tmp_path / "missing.json")


# The goals


def goal_row(
    cell: str, b: int, h: int, ratio: float | None, peer: str = "torch.nn", share: float = 1.0
) -> dict:
    return {
        "cell": cell, "pass": "train", "T": 100, "B": b, "H": h, "peer": peer, "ratio": ratio,
        "peak_share": share,
    }  # fmt: skip


def test_a_goal_names_its_misses_and_by_how_much() -> None:
    goal = Goal("g", "ratio", lambda row: True, each=1.0, mean=1.5)
    verdict = judge(goal, [goal_row("lstm", 1, 64, 2.0), goal_row("lstm", 16, 64, 0.9)])
    assert verdict.met is False
    assert verdict.misses == ("lstm (16, 64): 0.90, 10% short", "geometric mean: 1.34, 11% short")
    assert judge(goal, [goal_row("lstm", 1, 64, 2.0)]).met is True


def test_a_goal_without_rows_is_neither_met_nor_missed_and_an_error_is_a_miss() -> None:
    goal = Goal("g", "ratio", lambda row: True, each=1.0)
    assert judge(goal, []).met is None
    verdict = judge(goal, [goal_row("lstm", 1, 64, None)])
    assert verdict.met is False
    assert verdict.misses == ("lstm (1, 64): no figure",)


def test_the_share_of_the_peak_counts_once_however_many_peers() -> None:
    goal = next(g for g in GOALS if "share of the sgemm peak" in g.what and "train" in g.what)
    rows = [goal_row("lstm", 64, 256, 1.0, peer, 0.5) for peer in PEERS]
    assert judge(goal, rows).misses == ("lstm (64, 256): 0.50, 33% short",)
    assert judge(goal, [goal_row("lstm", 64, 128, 1.0), goal_row("lstm", 16, 256, 1.0)]).met is None
