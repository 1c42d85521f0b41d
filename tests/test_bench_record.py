"""Laws of the benchmark's record: it is whole or not there, and the goals are judged from it alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ostinato.bench.report.goals import GOALS, Goal, all_verdicts, judge
from ostinato.bench.report.markdown import BEGIN, END, render_figures, replace_figures
from ostinato.bench.report.record import ROW_KEYS, check_writable, load_record, write_record
from ostinato.bench.task.shapes import PEERS
from ostinato.errors import RunError

# The record


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_record(path, {"kind": "memory", "rows": [{"mib": math.nan, "ratio": 1.5}], "shape": (1, 2)})
    assert load_record(path) == {"kind": "memory", "rows": [{"mib": None, "ratio": 1.5}], "shape": [1, 2]}
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no record"),
        ('{"kind": "memory"}', "record of 'memory'"),
        ('{"kind": "bench", "rows": [{}]}', "another version"),
    ],
)
def test_a_damaged_record_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        load_record(path, "bench")


def test_a_missing_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        load_record(tmp_path / "missing.json")


# The goals


def goal_row(
    cell: str, b: int, h: int, ratio: float | None, peer: str = "torch.nn", share: float = 1.0
) -> dict:
    return {
        "cell": cell, "form": "plain", "pass": "train", "T": 100, "B": b, "H": h, "peer": peer, "ratio": ratio,
        "peak_share": share, "fma_share": share,
    }  # fmt: skip


def test_a_goal_names_its_misses_and_by_how_much() -> None:
    goal = Goal("g", "ratio", lambda row: True, each=1.0, mean=1.5)
    verdict = judge(goal, [goal_row("lstm", 1, 64, 2.0), goal_row("lstm", 16, 64, 0.9)])
    assert verdict.met is False
    assert verdict.misses == ("lstm (16, 64): 0.90, 10% short", "geometric mean: 1.34, 11% short")
    assert judge(goal, [goal_row("lstm", 1, 64, 2.0)]).met is True


def test_a_goal_is_held_against_every_row_whatever_it_is_called() -> None:
    goal = Goal("g", "ratio", lambda row: True, each=1.0)
    rows = [{**goal_row("lstm", 16, 64, 0.5), "T": 50}, goal_row("lstm", 16, 64, 2.0)]
    assert judge(goal, rows).misses == ("lstm (16, 64): 0.50, 50% short",)
    assert judge(goal, rows[::-1]).got == "0.50 to 2.00, mean 1.00"


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


def test_a_missed_goal_says_what_the_peak_would_allow() -> None:
    goal = Goal("g", "ratio", lambda row: True, mean=5.0, ceiling=True)
    rows = [{**goal_row("lstm", 16, 64, 2.0), "fma_share": 0.5}, {**goal_row("lstm", 64, 256, 0.9), "fma_share": 0.9}]
    assert judge(goal, rows).misses[-1].endswith("at the fma peak, it would be 1.00 to 4.00, mean 2.00")
    # A cell without products has no such bound, and a goal that is met needs none.
    bare = {**goal_row("retention", 16, 64, 2.0), "fma_share": 0.0}
    assert judge(goal, [bare]).misses == ("geometric mean: 2.00, 60% short",)
    assert judge(goal, [{**rows[0], "ratio": 6.0}]).misses == ()


# The page


def bench_record(rows: list[dict]) -> dict:
    return {
        "kind": "bench", "table": "vendor", "unmeasured": [], "command": "ostinato bench",
        "date": "2025-01-02T03:04:05+00:00", "threads": 2,
        "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "vectors": ["avx2"]},
        "versions": {"torch": "2.0"}, "repeats": 9, "quick": False, "complete": True, "skipped": [],
        "peaks_gflops": {"torch.mm 512": 200.0, "fma": 500.0}, "sgemm_peak_gflops": 200.0,
        "fma_peak_gflops": 500.0, "import_s": {"added_s": 0.1}, "rows": rows,
    }  # fmt: skip


def full_row(**changed: object) -> dict:
    row = {
        "cell": "lstm", "form": "plain", "backend": "c", "pass": "train", "T": 100, "B": 16, "D": 64, "H": 64,
        "ms": 2.0, "peer": "torch.nn", "peer_ms": 4.0, "ratio": 2.0,
        "flops": 2e8, "operations": 2.5e8, "gflops": 100.0, "peak_share": 0.5, "fma_share": 0.2,
        "ms_min": 2.0, "peer_ms_min": 4.0, "spread": 0.01, "peer_spread": 0.01,
        "others": 0.01, "repeats": 9, "error": None,
    }  # fmt: skip
    assert set(row) == set(ROW_KEYS)
    return {**row, **changed}


def test_the_page_holds_every_row_the_mean_and_the_verdicts() -> None:
    rows = [full_row(), full_row(B=64, ms=4.0, peer_ms=2.0, ratio=0.5), full_row(peer="jax", ratio=3.0)]
    page = render_figures({"bench": bench_record(rows)})
    assert "| 100 | 16 | 64 | c | 2.00 | 1% | 100 | 50% | 20% | 4.00 | 2.00 | 4.00 | 3.00 |" in page
    assert "| 100 | 64 | 64 | c | 4.00 | 1% | 100 | 50% | 20% | 2.00 | 0.50 |  |  |" in page
    assert "**1.00** |  | **3.00** |" in page
    assert "| lstm against nn.LSTM, training | each at least 1, geometric mean at least 1.4 |" in page
    assert "lstm (64, 64): 0.50, 50% short; geometric mean: 1.00, 29% short." in page
    assert "stopped before its end" not in page
    assert "stopped before its end" in render_figures({"bench": {**bench_record(rows), "complete": False}})


def test_the_page_holds_a_table_for_each_shape_of_the_catalogue() -> None:
    work = {"flops": 6e7, "operations": 8e7}
    rows = [full_row(cell="mgu", peer="lstm/op", **work), full_row(cell="mgu", peer="copy", ratio=0.5, **work)]
    more = {"table": "catalogue", "skipped": [{"cell": "mgu", "peer": "jax", "reason": "JAX is not installed; run: x"}]}
    page = render_figures({"bench: catalogue": {**bench_record([*rows, full_row(B=64)]), **more}})
    assert "### Training, (100, 16, 64)" in page
    assert "### Training, (100, 64, 64)" in page
    assert "| mgu | 100 | 16 | 64 | c | 2.00 | 1% | 75% | 100 | 50% | 20% | 4.00 | 2.00 | 4.00 | 0.50 |" in page
    assert "JAX is not installed: it was left out." in page


def test_the_page_says_which_row_is_wrong() -> None:
    page = render_figures(
        {"bench": bench_record([full_row(ms=None, peer_ms=None, ratio=None, error="dx differs")])}
    )
    assert "| error | dx differs |" in page


def test_rows_measured_on_a_busy_machine_are_told() -> None:
    rows = [full_row(), full_row(others=0.9), full_row(others=None)]
    page = render_figures({"bench": bench_record(rows)})
    assert "1 of 3 rows were measured while other processes kept up to 0.90 cores busy" in page
    assert "busy" not in render_figures({"bench": bench_record([full_row()])})


def test_memory_and_start_are_judged() -> None:
    kinds = {
        "compile": {"build_s": 0.1, "first_s": 0.9, "backward_s": 0.1, "second_s": 0.1},
        "cache": {"build_s": 0.01, "first_s": 0.03, "backward_s": 0.1, "second_s": 0.1},
    }
    records = {
        "memory": {"rows": [{"cell": "lstm", "ratio": 0.5}]},
        "startup": {
            "rows": [{"cell": "lstm", "backend": "c", "kinds": kinds}, {"cell": "gru", "backend": "eager"}],
            "import_s": {"added_s": 0.2},
        },
    }
    verdicts = {verdict.what: verdict for verdict in all_verdicts(records)}
    assert verdicts["peak memory of a training step of lstm, nn.LSTM's over ours"].misses == (
        "0.500, 50% short",
    )
    assert verdicts["lstm: construction and first call, compiling, s"].met is True
    assert verdicts["lstm: construction and first call, from the cache, s"].misses == ("0.040, 100% over",)
    assert verdicts["import adds, s"].met is True
    # Eager has no kernel to compile: its first call would meet the bound without meaning it.
    assert not any(what.startswith("gru: construction") for what in verdicts)


def test_only_what_is_between_the_markers_changes() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter {{}}\n"
    changed = replace_figures(document, "new\n")
    assert changed == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter {{}}\n"
    assert replace_figures(changed, "new\n") == changed
    for damaged in ("no markers", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"):
        assert replace_figures(damaged, "new\n") is None


def test_the_page_of_the_repository_has_its_markers() -> None:
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    assert replace_figures(page.read_text(encoding="utf-8"), "") is not None
