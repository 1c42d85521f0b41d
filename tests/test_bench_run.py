"""A run of the benchmark from its options to its record, on the smallest shapes; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from ostinato import cells
from ostinato.bench import run as engine
from ostinato.bench.measure import memory
from ostinato.bench.measure.peak import compiler
from ostinato.bench.measure.rows import Row
from ostinato.bench.peers import with_jax
from ostinato.bench.peers.build import build_peer
from ostinato.bench.peers.loops import LOOPS
from ostinato.bench.peers.ours import build_ours
from ostinato.bench.peers.torch_nn import TORCH_MODULES
from ostinato.bench.report.record import ROW_KEYS, load_record
from ostinato.bench.run import Group, Options, check_options, plan_groups, run
from ostinato.bench.task.cells import parse_cells
from ostinato.bench.task.contest import Problem, difference
from ostinato.bench.task.shapes import PASSES, STREAM_SHAPE, Shape
from ostinato.cli.bench import bench
from ostinato.errors import CellError, DataError, OstinatoError, RunError

SHAPE = Shape(5, 3, 6)
PLAIN = ("torch.nn", "eager-loop", "lstm/flop")


@pytest.fixture
def no_measuring_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks and import times take seconds and are the same for every run."""
    monkeypatch.setattr(engine, "sgemm_peaks", lambda **_: {"torch.mm 512": 100.0})
    monkeypatch.setattr(engine, "fma_peak", lambda threads: 200.0)
    monkeypatch.setattr(
        engine, "import_times", lambda repeats: {"torch_s": 1.0, "both_s": 1.1, "added_s": 0.1}
    )


@pytest.mark.parametrize("cell", sorted(LOOPS))
@pytest.mark.parametrize("pass_", PASSES)
def test_our_layer_agrees_with_every_peer(cell: str, pass_: str) -> None:
    problem = Problem.draw(cell, SHAPE)
    ours = build_ours(problem)
    peers = ["eager-loop"] + (["torch.nn"] if cell in TORCH_MODULES else [])
    for peer in peers:
        found = build_peer(peer, problem, ours.weights).outcome(pass_)
        assert difference(ours.contestant.outcome(pass_), found) is None, peer


def test_the_backend_that_is_named_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.draw("lstm", SHAPE)
    assert build_ours(problem, "eager").backend == "eager"
    if compiler() is not None:
        assert build_ours(problem, "c").backend == "c"
    monkeypatch.setenv("OSTINATO_BACKEND", "eager")
    assert build_ours(problem, "auto").backend == "eager"


def test_every_loop_by_hand_is_of_a_cell_in_the_catalogue() -> None:
    assert set(LOOPS) <= set(cells.catalogue())
    assert set(TORCH_MODULES) <= set(LOOPS)


def test_memory_is_that_of_a_layer_in_training() -> None:
    """Masks are a part of it."""
    problem = Problem.draw("zoneout(lstm)", SHAPE)
    _, build = memory._builder("ostinato", problem)
    assert build(problem).forward.training


def test_a_stream_is_planned_once_and_the_other_passes_at_every_shape() -> None:
    options = Options(cells=("lstm", "gru"), shapes=(SHAPE, Shape(5, 1, 6)))
    groups = plan_groups(options)
    assert groups[:5] == [
        Group("lstm", "train", SHAPE), Group("lstm", "train", Shape(5, 1, 6)),
        Group("lstm", "infer", SHAPE), Group("lstm", "infer", Shape(5, 1, 6)),
        Group("lstm", "stream", STREAM_SHAPE),
    ]  # fmt: skip
    assert len(groups) == 10


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_a_run_writes_its_record_after_each_group(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    seen: list[tuple[str, bool, int]] = []

    def on_group(group: Group, found: list[Row], number: int, total: int) -> None:
        record = load_record(path, "bench")
        seen.append((str(group), record["complete"], len(record["rows"])))
        assert record["rows"][-len(found) :] == found

    options = Options(
        cells=("lstm", "gru"), shapes=(SHAPE,), passes=("train", "stream"), peers=PLAIN, repeats=2, quick=True
    )
    record = run(options, path, on_group)
    assert seen == [
        ("lstm train 5x3x6", False, 2), ("lstm stream 1x1x128", False, 4),
        ("gru train 5x3x6", False, 6), ("gru stream 1x1x128", True, 7),
    ]  # fmt: skip
    assert load_record(path, "bench") == json.loads(json.dumps(record))
    rows = record["rows"]
    assert all(set(row) == set(ROW_KEYS) for row in rows)
    assert [row["peer"] for row in rows] == [
        "torch.nn", "eager-loop", "torch.nn", "eager-loop", "eager-loop", "lstm/flop", "eager-loop",
    ]  # fmt: skip
    for row in rows:
        assert row["error"] is None
        assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ms"])
        assert row["peak_share"] == pytest.approx(row["gflops"] / 100.0)
        assert row["fma_share"] == pytest.approx(row["gflops"] / 200.0)
        assert row["ms_min"] <= row["ms"]
        assert row["repeats"] == 2
    train = rows[0]
    assert train["gflops"] == pytest.approx(3 * 2 * 5 * 3 * 8 * 36 / train["ms"] / 1e6)
    assert {"cell": "gru", "peer": "torch.nn", "reason": "torch.nn has no gru"} in record["skipped"]
    assert record["sgemm_peak_gflops"] == 100.0
    assert record["threads"] == torch.get_num_threads()


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_an_interrupted_run_leaves_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"

    def interrupt(group: Group, found: list[Row], number: int, total: int) -> None:
        raise KeyboardInterrupt

    options = Options(cells=("elman",), shapes=(SHAPE,), passes=("infer", "stream"), peers=PLAIN, quick=True)
    with pytest.raises(KeyboardInterrupt):
        run(options, path, interrupt)
    record = load_record(path, "bench")
    assert record["complete"] is False
    assert {row["pass"] for row in record["rows"]} == {"infer"}


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_threads_are_set_for_the_run_and_put_back() -> None:
    before = torch.get_num_threads()
    options = Options(
        cells=("elman",),
        shapes=(SHAPE,),
        passes=("infer",),
        peers=("eager-loop",),
        threads=before + 1,
        quick=True,
    )
    assert run(options)["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_bad_options_are_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> dict:
        raise AssertionError("something was measured")

    for name in ("sgemm_peaks", "fma_peak", "import_times", "build_ours"):
        monkeypatch.setattr(engine, name, refuse)
    with pytest.raises(DataError, match="repeats is 0; measure at least once"):
        run(Options(repeats=0))
    with pytest.raises(DataError, match="threads is -1; give at least one"):
        run(Options(threads=-1))
    with pytest.raises(CellError, match="did you mean 'lstm'"):
        run(Options(cells=("lstn",)))
    with pytest.raises(DataError, match="did you mean 'packed'"):
        run(Options(table="pack"))
    with pytest.raises(DataError, match=r"eager-loop is not measured in the table packed.*choose of: torch\.nn"):
        run(Options(table="packed", peers=("eager-loop",)))
    with pytest.raises(DataError, match="minutes is 0; give more than 0"):
        run(Options(minutes=0))
    with pytest.raises(RunError, match="is a folder"):
        run(Options(), tmp_path)


def test_a_peer_that_is_not_installed_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_jax.importlib.util, "find_spec", lambda name: None)
    assert "jax" not in Options().chosen_peers
    with pytest.raises(DataError, match=r"jax was asked for and JAX is not installed; run: pip install 'ostinato"):
        check_options(Options(peers=("jax",)))
    assert "torchrecurrent" not in Options(table="catalogue").chosen_peers
    with pytest.raises(DataError, match="torchrecurrent was asked for and torchrecurrent is not installed; run: pip"):
        check_options(Options(peers=("torchrecurrent",)))


def test_cells_are_read_by_name() -> None:
    assert parse_cells("gru, lstm,gru") == ("gru", "lstm")
    with pytest.raises(CellError, match="did you mean 'gru'"):
        parse_cells("gruu")
    with pytest.raises(DataError, match="no cell was given"):
        parse_cells(" , ")


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(bench)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_the_verb_prints_a_table_and_writes_the_record(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    chosen = ["--cells", "elman", "--shapes", "5x3x6", "--passes", "infer", "--peers", "torch.nn,eager-loop"]
    result = invoke(*chosen, "--repeats", "2", "--quick", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "elman" in result.output
    assert "sgemm peak 100 GF/s, fma peak 200 GF/s" in result.output
    assert [row["peer"] for row in load_record(path, "bench")["rows"]] == ["torch.nn", "eager-loop"]


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_the_verb_fails_where_a_peer_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostinato.bench.measure.rows.difference", lambda *_: "output differs")
    chosen = ["--cells", "elman", "--shapes", "5x3x6", "--passes", "infer", "--peers", "torch.nn"]
    result = invoke(*chosen, "--quick")
    assert result.exit_code == 1
    assert "elman infer against torch.nn: output differs" in result.output


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_the_verb_stopped_by_a_key_tells_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    measure = engine._measure

    def second_is_interrupted(group: Group, options: Options) -> list[Row]:
        if done:
            raise KeyboardInterrupt
        done.append(group)
        return measure(group, options)

    monkeypatch.setattr(engine, "_measure", second_is_interrupted)
    path = tmp_path / "bench.json"
    chosen = ["--cells", "elman", "--shapes", "5x3x6", "--passes", "infer,stream", "--peers", "torch.nn"]
    result = invoke(*chosen, "--quick", "--json", str(path))
    assert result.exit_code == 130
    assert "stopped after 1 rows" in result.output
    assert len(load_record(path, "bench")["rows"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "lstn"], "did you mean 'lstm'"),
        (["--shapes", "16by64"], "is not BxH or TxBxH"),
        (["--passes", "training"], "did you mean 'train'"),
        (["--repeats", "0"], "measure at least once"),
        (["--backend", "fortran"], "no backend 'fortran'"),
        (["--json", "missing/bench.json"], "does not exist"),
    ],
)
def test_the_verb_refuses_bad_options(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert isinstance(result.exception, OstinatoError)
    assert message in str(result.exception)
