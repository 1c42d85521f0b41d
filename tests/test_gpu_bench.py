"""The benchmark for a GPU: its order, its arithmetic, its verdicts, and what it says of cases that fail."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ostinato import cells
from ostinato.bench.gpu.bounds import Need, floor_ms
from ostinato.bench.gpu.clock import ceilings, interleave, no_tf32
from ostinato.bench.gpu.grid import GRID, PUBLISHED, Case, stages
from ostinato.bench.gpu.table import page
from ostinato.bench.gpu.verdicts import verdicts
from ostinato.bench.measure.crew import Ended
from ostinato.bench.task.shapes import Shape

# ---------------------------------------------------------------- the order


def test_the_whole_grid_is_measured_and_nothing_twice() -> None:
    order = stages()
    cases = [case for stage in order for case in stage.cases]
    assert max(Counter(case.key for case in cases).values()) == 1
    assert len({str(case) for case in cases}) == len(cases)
    for cell in ("lstm", "gru_reset_after"):
        assert sum(case.cell == cell and "cudnn" in case.peers for case in cases) == GRID.size == 4 * 7 * 2 * 2 * 2
    for at, dtype in GRID.others:
        there = [case for case in cases if (case.shape, case.dtype, case.pass_) == (at, dtype, "train")]
        assert {case.cell for case in there} == set(cells.catalogue())
        assert all({"lstm", "eager", "eager, graph"} <= set(case.peers) for case in there if case.cell != "lstm")


def test_what_figures_are_published_of_comes_first() -> None:
    first = stages()[0]
    assert [(str(c.shape), c.dtype, c.pass_) for c in first.cases] == [
        ("1024x16x768", "bfloat16", "infer"),
        ("1024x16x768", "bfloat16", "train"),
    ]
    assert PUBLISHED["cuDNN"] == {"infer": 2.01, "train": 5.19}


def test_cells_that_are_chosen_are_measured_alone() -> None:
    assert {case.cell for stage in stages(cells=["lstm", "mgu"]) for case in stage.cases} == {"lstm", "mgu"}


def test_forms_are_measured_where_it_matters_most() -> None:
    tuned = {stage.title: {case.tuned for case in stage.cases} for stage in stages()}
    assert tuned["where figures are published"] == tuned["lstm, first part"] == {True}
    assert tuned["every cell"] == tuned["gru, first part"] == tuned["lstm, the rest"] == {False}
    assert {case.tuned for stage in stages(tune="all") for case in stage.cases} == {True}
    assert {case.tuned for stage in stages(tune="none") for case in stage.cases} == {False}


def test_kernels_are_those_of_any_length() -> None:
    long, longer = (Case("", "lstm", Shape(T, 16, 64), "float32", "train", ()) for T in (128, 1024))
    assert long.kernels == longer.kernels and long.kernels.shape == Shape(3, 16, 64)


# ---------------------------------------------------------------- the arithmetic


def test_the_floor_is_the_longer_of_two_times() -> None:
    rates = {"copy": 4e12, "float32": 50e12, "bfloat16": 800e12}
    assert floor_ms(Need(0.0, operations=50e9, bytes=4e9), "float32", rates) == pytest.approx(1.0)
    assert floor_ms(Need(0.0, operations=50e9, bytes=8e9), "float32", rates) == pytest.approx(2.0)
    assert floor_ms(Need(0.0, operations=800e9, bytes=0.0), "bfloat16", rates) == pytest.approx(1.0)


def test_switches_are_set_back() -> None:
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32, cudnn.allow_tf32 = False, True
        with no_tf32() as were:
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)
        assert were == {"cuda.matmul.allow_tf32": False, "cudnn.allow_tf32": True}
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class Told:
    """A clock that says what a call takes."""

    name, cache = "told", "there is no cache"

    def __init__(self) -> None:
        self.order: list[str] = []

    def sample(self, call: Any, count: int) -> float:
        name, ms = call()
        self.order.append(name)
        return ms

    def inner(self, ms: float) -> int:
        return 2

    def settle(self) -> None: ...


def test_contestants_are_timed_in_turn_and_slow_ones_less_often() -> None:
    clock: Any = Told()
    samples = interleave({"a": lambda: ("a", 10.0), "b": lambda: ("b", 1e6)}, clock, part_ms=100.0, least=3)
    assert clock.order == ["a"] * 2 + ["b"] * 2 + ["a", "b"] * 3 + ["a"] * 2
    assert (samples["a"].median, len(samples["a"].values)) == (10.0, 5)
    assert (samples["b"].median, len(samples["b"].values)) == (1e6, 3)


def test_ceilings_are_rates() -> None:
    clock: Any = Told()
    clock.sample = lambda call, count: (call(), 2.0)[1]
    rates = ceilings(clock, torch.device("cpu"), small=True)
    assert rates == pytest.approx(
        {"copy": 4 * 2 * 2**16 / 2e-3, "float32": 2 * 64**3 / 2e-3, "bfloat16": 2 * 64**3 / 2e-3}
    )


# ---------------------------------------------------------------- the verdicts


def row(
    cell: str, case: str, error: str | None = None, flops: float = 1.0, by: str = "cuDNN", **ratios: float | None
) -> dict[str, Any]:
    peers = {
        name.replace("_", ", "): {"ms": ratio, "ratio": ratio, "error": None if ratio else "differs", "by": by}
        for name, ratio in ratios.items()
    }
    return {"cell": cell, "case": case, "ms": None if error else 1.0, "flops": flops, "peers": peers, "error": error}


def judged(rows: list[dict[str, Any]], rehearsal: bool = False) -> dict[str, tuple[bool | None, str]]:
    found = verdicts({"rows": rows, "of_a_cell": 224, "rehearsal": rehearsal})
    return {v["what"]: (v["met"], v["got"]) for v in found}


LEVEL = "lstm against nn.LSTM: level (within 3%) or ahead"
SLOWEST = "lstm against nn.LSTM: the slowest"
PER_FLOP = "every other cell: time for an operation over our lstm's"
LOOP = "every other cell against an eager loop"


def test_level_at_half_and_never_slower_than_one_and_a_half() -> None:
    rows = [row("lstm", "a", cudnn=2.0), row("lstm", "b", cudnn=0.98), row("lstm", "c", cudnn=0.7)]
    found = judged(rows)
    assert found[LEVEL] == (True, "67% of 3 of 224 cases")
    assert found[SLOWEST] == (True, "1.43 times as long, at c; 3 of 224 cases")
    found = judged([*rows, row("lstm", "d", cudnn=0.6), row("lstm", "e", cudnn=0.9)])
    assert found[LEVEL][0] is False and found[SLOWEST] == (False, "1.67 times as long, at d; 5 of 224 cases")


def test_a_case_that_failed_is_counted_against_us() -> None:
    met, got = judged([row("lstm", "a", cudnn=2.0), row("lstm", "b", error="hung", cudnn=None)])[SLOWEST]
    assert met is False and got.endswith("1 of 224 cases, 1 more without a time")


def test_kernels_that_are_not_cudnns_are_not_counted_as_such() -> None:
    found = judged([row("lstm", "a", cudnn=0.9), row("lstm", "b", by="torch's own kernels", cudnn=50.0)])
    assert found[LEVEL] == (False, "0% of 1 of 224 cases; 1 more that are not cuDNN's")
    assert found[SLOWEST] == (True, "1.11 times as long, at a; 1 of 224 cases; 1 more that are not cuDNN's")


def test_other_cells_by_their_operations_and_against_a_loop() -> None:
    rows = [
        row("gru", "a", lstm=0.8, eager=10.0, eager_graph=5.0),
        row("mgu", "b", lstm=0.5, eager=90.0),
        row("sru", "c", flops=0.0, lstm=None, eager=30.0),
    ]
    found = judged(rows)
    assert found[PER_FLOP] == (False, "at most 2.00, at b; 1 of 2 above 1.5; without products, so not compared: sru")
    assert found[LOOP] == (True, "30.0 over 3 cases, 10.0 to 90.0; recorded in a CUDA graph: 5.0 over 1")
    assert judged(rows[:1])[PER_FLOP][0] is True and judged(rows[:1])[LOOP][0] is False


def test_nothing_measured_and_a_rehearsal_judge_nothing() -> None:
    assert set(judged([]).values()) == {(None, "not measured")}
    assert {met for met, _ in judged([row("lstm", "a", cudnn=2.0)], rehearsal=True).values()} == {None}


def test_the_page_lists_what_was_left_out_and_what_failed() -> None:
    found = row("lstm", "lstm B=1", error="it was ended after 60 s", cudnn=None)
    found |= {"stage": "s", "B": 1, "H": 64, "T": 128, "dtype": "float32", "pass": "train"}
    record = {"rehearsal": False, "ceilings": None, "rows": [found], "of_a_cell": 224, "published": PUBLISHED}
    record |= {"order": [{"stage": "s", "cases": 2}], "compiled": [], "left_out": ["gru B=1"], "verdicts": []}
    text = "\n".join(page(record))
    assert "### s: 1 of 2" in text and "- ours: it was ended after 60 s (1: lstm B=1)" in text
    assert "### Not measured: 1\n\ngru B=1." in text and "Published, not measured here" in text


# ---------------------------------------------------------------- a run, by processes that are told what to say


TIMED = {"ms": 2.0, "form": "batch 16", "tuned": False, "flops": 1e6, "operations": 2e6, "bytes": 1e6, "peers": {}}


class Acted:
    """A crew whose tasks end as they are told to."""

    compiles: Callable[[Any], Ended]
    measures: Callable[[Any], Ended]

    def __init__(self, target: str, workers: int, environment: Any) -> None:
        self.end = Acted.compiles if target.endswith(":compiled") else Acted.measures

    def __enter__(self) -> Acted:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, tasks: list[Any], limit_s: Any, until: float) -> Iterator[Ended]:
        for task in tasks:
            if task[0] == "ceilings":
                rates = {"copy": 4e12, "float32": 50e12, "bfloat16": 800e12}
                yield Ended(task, "done", {"ceilings": rates, "method": "told"})
            else:
                yield self.end(task)


def acted(monkeypatch: pytest.MonkeyPatch, compiles: Any, measures: Any, seconds: float = 60.0) -> dict[str, Any]:
    engine = importlib.import_module("ostinato.bench.gpu.run")
    monkeypatch.setattr(engine, "Crew", Acted)
    monkeypatch.setattr(Acted, "compiles", staticmethod(compiles), raising=False)
    monkeypatch.setattr(Acted, "measures", staticmethod(measures), raising=False)
    return engine.run(engine.Options(seconds=seconds, cells=("lstm",)))


def done(task: Any) -> Ended:
    return Ended(task, "done", TIMED, seconds=1.0)


def test_a_run_measures_all_and_says_what_share_of_the_floor_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    record = acted(monkeypatch, done, done)
    assert record["complete"] and len(record["rows"]) == GRID.size and record["left_out"] == []
    chosen = [found["case"] for found in record["compiled"] if found["form"] == 0]
    assert len(chosen) == len(set(chosen)) == GRID.size / 2  # both lengths have the same kernels
    assert len({(found["case"], found["form"]) for found in record["compiled"]}) == len(record["compiled"])
    assert [found["form"] for found in record["compiled"][:4]] == [0, 0, 1, 1]
    first = record["rows"][0]
    assert first["floor_ms"] == pytest.approx(1e6 / 4e12 * 1e3) and first["share"] == pytest.approx(
        first["floor_ms"] / 2
    )
    assert [v["what"] for v in record["verdicts"]][:2] == [LEVEL, SLOWEST]
    assert "lstm | 16 | 768 | 1024 | bfloat16" in "\n".join(page(record))


def test_what_hangs_or_does_not_compile_is_a_case_without_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiles(task: Any) -> Ended:  # of forms that would be tried, 128 units have none that compiles in time
        late = (task[0].shape.H == 2048 and task[2] == 0) or (task[0].shape.H == 128 and task[2] > 0)
        return Ended(task, "late", said="it was ended after 90 s") if late else done(task)

    def measures(task: Any) -> Ended:
        return Ended(task, "died", said="its process ended") if task[0].shape.H == 64 else done(task)

    rows = acted(monkeypatch, compiles, measures)["rows"]
    errors = {row["H"]: row["error"] for row in rows}
    assert len(rows) == GRID.size and {H for H, error in errors.items() if error} == {64, 2048}
    assert (
        errors[2048] == "its kernels were not compiled: it was ended after 90 s" and errors[64] == "its process ended"
    )


def test_what_there_was_no_time_for_is_left_out_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def measures(task: Any) -> Ended:
        return Ended(task, "not run", said="there was no time left") if task[0].shape.T == 128 else done(task)

    record = acted(monkeypatch, done, measures)
    assert not record["complete"] and len(record["rows"]) == len(record["left_out"]) == GRID.size / 2
    assert not any(row["error"] for row in record["rows"])
    record = acted(monkeypatch, done, done, seconds=0.0)
    assert record["rows"] == [] and len(record["left_out"]) == GRID.size
