"""Laws of measuring every cell and transform: the loop written for each, the work of each, the forms, the goals."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ostinato import CellError, DataError, cells
from ostinato.bench import run as engine
from ostinato.bench.peers.beside import Copying, build_beside
from ostinato.bench.peers.build import why_no_peer
from ostinato.bench.peers.loops import LOOPS
from ostinato.bench.peers.ours import build_ours
from ostinato.bench.peers.recurrent import RECURRENT
from ostinato.bench.peers.written import WrittenLoop
from ostinato.bench.report.goals import GOALS, judge
from ostinato.bench.report.markdown import render_figures
from ostinato.bench.report.record import load_record
from ostinato.bench.report.tables import CATALOGUE_SHAPES, GOAL_SHAPES, TABLES
from ostinato.bench.run import Options, plan_groups, run
from ostinato.bench.task.cells import TRANSFORMED, cell_named, extra_sizes, parse_cells
from ostinato.bench.task.contest import Problem, difference
from ostinato.bench.task.forms import FORMS, PLAIN
from ostinato.bench.task.shapes import Shape
from ostinato.bench.task.work import WEIGHTS, work_of
from ostinato.ir import OPS, simplify

SHAPE = Shape(5, 3, 6)
NAMES = [*cells.catalogue(), *TRANSFORMED]


@pytest.fixture
def no_measuring_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks and import times take seconds and are the same for every run."""
    monkeypatch.setattr(engine, "sgemm_peaks", lambda **_: {"torch.mm 512": 100.0})
    monkeypatch.setattr(engine, "fma_peak", lambda threads: 200.0)
    monkeypatch.setattr(engine, "import_times", lambda repeats: {"torch_s": 1.0, "both_s": 1.1, "added_s": 0.1})


# Names


def test_groups_of_cells_are_read_by_name() -> None:
    assert parse_cells("transforms") == tuple(TRANSFORMED)
    assert parse_cells("catalogue,zoneout(lstm),gru") == (*cells.catalogue(), "zoneout(lstm)")
    with pytest.raises(CellError, match=r"did you mean 'zoneout\(lstm\)'"):
        parse_cells("zonout(lstm)")
    with pytest.raises(DataError, match="catalogue, transforms"):
        parse_cells(",")


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_transformed_cell_goes_by_the_name_of_its_transforms(name: str) -> None:
    outer = name.partition("(")[0]
    assert cell_named(name).name.startswith(outer)
    assert cell_named(name).program() != cells.lstm.program()


# The loop written for a cell


@pytest.mark.parametrize("pass_", ["train", "infer"])
@pytest.mark.parametrize("name", NAMES)
def test_the_loop_written_for_a_cell_gives_what_our_layer_gives(name: str, pass_: str) -> None:
    problem = Problem.draw(name, SHAPE)
    ours = build_ours(problem, "eager", pass_=pass_)
    peer = build_beside("eager-loop", problem, ours, PLAIN, pass_)
    expected, found = ours.contestant.outcome(pass_), peer.outcome(pass_)
    assert difference(expected, found) is None
    assert found["output"].norm() > 0
    if pass_ == "train" and name not in LOOPS:
        # every gradient there is, but of a parameter that the step does not read
        assert set(expected) == set(found)


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_written_for_a_cell_gives_what_the_one_by_hand_gives(name: str) -> None:
    weights = LOOPS[name].draw(6, torch.Generator().manual_seed(1))
    x = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(2))
    by_hand, states = LOOPS[name](x, None, LOOPS[name].fuse(weights))
    output, last = WrittenLoop(simplify(cells.get(name).program()), {"D": 6, "H": 6})(x, None, weights)
    torch.testing.assert_close(output, by_hand.detach())
    for state, expected in zip(last, states, strict=True):
        torch.testing.assert_close(state, expected.detach())


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # one product for four gates, one sigmoid for three, none of x in the loop
        ("lstm", {"addmm": 1, "mm(": 1, "sigmoid": 1, "tanh": 2, "split": 2, "linear": 0}),
        ("gru", {"addmm": 2, "sigmoid": 1, "tanh": 1, "split": 1}),
        ("layer_norm(lstm)", {"mm(": 1, "functional.layer_norm": 1, "sigmoid": 1, "evaluate(": 0, "sqrt": 0}),
        ("batch_norm(lstm)", {"mm(": 1, "functional.batch_norm": 2, "sigmoid": 1, "evaluate(": 0, "sqrt": 0}),
        ("variational_dropout(lstm)", {"mm(": 1, "sigmoid": 1, "tanh": 2}),
    ],
)
def test_what_stands_side_by_side_is_one_operation(name: str, counts: dict[str, int]) -> None:
    loop = WrittenLoop(simplify(cell_named(name).program()), {"D": 6, "H": 6})
    body = loop.text.partition("for ")[2]
    assert {part: body.count(part) for part in counts} == counts


# Work


def work(name: str, pass_: str) -> tuple[float, float, float]:
    program = simplify(cell_named(name).program())
    found = work_of(program, {"D": 6, "H": 6, **extra_sizes(program, 6)}, SHAPE, pass_)
    return found.flops, found.operations - found.flops, found.bytes


def test_the_work_of_an_lstm() -> None:
    rows = 5 * 3
    # Eight matrices [6, 6], each element a multiplication and an addition.
    flops = rows * 8 * 36 * 2
    # Five functions at 8; each gate adds three terms; c has two products and a sum, h one product.
    pointwise = rows * 6 * (5 * 8 + 4 * 2 + 3 + 1)
    assert work("lstm", "infer") == (flops, pointwise, 4 * rows * (6 + 6))
    # Training reads x twice and writes its gradient; the output is written and its gradient read.
    assert work("lstm", "train") == (3 * flops, 3 * pointwise, 4 * rows * (3 * 6 + 2 * 6))


def test_operations_have_weights_by_the_table() -> None:
    assert set(WEIGHTS) <= set(OPS)
    assert {name for name, op in OPS.items() if op.dear} - {"sqrt"} <= {n for n, w in WEIGHTS.items() if w == 8}
    lstm, normed = work("lstm", "infer"), work("layer_norm(lstm)", "infer")
    assert normed[0] == lstm[0]
    assert normed[1] > lstm[1]


def test_a_matrix_that_is_not_trained_has_no_product_for_its_gradient() -> None:
    from ostinato import cell

    @cell(fixed=("A",))
    def reservoir(p, x, h):
        return p.A @ h + p.W @ x

    program = simplify(reservoir.program())
    assert work_of(program, {"D": 6, "H": 6}, SHAPE, "train").flops == 15 * 36 * 2 * (3 + 2)


def test_masks_are_read_with_the_input() -> None:
    plain, zoned = work("lstm", "train"), work("zoneout(lstm)", "train")
    assert zoned[2] - plain[2] == 4 * 15 * 2 * (6 + 6)
    # One for all steps is next to nothing.
    assert work("variational_dropout(lstm)", "train")[2] == plain[2]


def test_a_copy_moves_the_bytes_it_was_told() -> None:
    copy = Copying(4096.0)
    assert (copy.source.numel() + copy.target.numel()) * 4 == 4096
    copy.call("train")()
    assert torch.equal(copy.target, copy.source)


def test_the_time_per_product_is_not_compared_where_there_is_none() -> None:
    from ostinato import cell

    @cell(sizes={"x": "H"})
    def decay(p, x, y):
        return p.a * y + x

    program = simplify(decay.program())
    assert work_of(program, {"D": 6, "H": 6}, SHAPE, "train").flops == 0
    reasons = {name: why_no_peer("lstm/flop", name) for name in cells.catalogue() if name != "lstm"}
    assert reasons == {
        name: None if work(name, "infer")[0] else f"{name} has no product of matrices" for name in reasons
    }


# Forms


@pytest.mark.parametrize("batch", [1, 2, 16, 300])
@pytest.mark.parametrize("seed", range(5))
def test_lengths_are_uniform_from_one_to_the_longest(batch: int, seed: int) -> None:
    shape = Shape(100, batch, 4)
    lengths = Problem.draw("lstm", shape, seed).lengths
    assert lengths.shape == (batch,) and int(lengths.min()) >= 1 and int(lengths.max()) <= 100
    middles = (torch.arange(batch) + 0.5) * 100 / batch  # of the parts, of which each has one
    assert (torch.sort(lengths).values - middles).abs().max() <= 50 / batch + 1  # a whole number
    assert len(lengths) < 3 or not torch.equal(lengths, torch.sort(lengths).values)


@pytest.mark.parametrize("pass_", ["train", "infer"])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_after", "elman"])
def test_packed_sequences_give_what_lengths_give_and_what_torch_gives(cell: str, pass_: str) -> None:
    form, problem = FORMS["packed"], Problem.draw(cell, SHAPE)
    assert 1 <= int(problem.lengths.min()) < int(problem.lengths.max()) <= SHAPE.T
    ours = build_ours(problem, "eager", pass_=pass_, form=form)
    expected = ours.contestant.outcome(pass_)
    assert expected["output"].shape == (int(problem.lengths.sum()), SHAPE.H)
    for peer in ("torch.nn", "ours lengths="):
        assert difference(expected, build_beside(peer, problem, ours, form, pass_).outcome(pass_)) is None, peer
    share = float(problem.lengths.sum()) / (SHAPE.T * SHAPE.B)
    whole = build_ours(problem, "eager", pass_=pass_)
    assert ours.work(pass_).flops == pytest.approx(share * whole.work(pass_).flops)


@pytest.mark.parametrize("pass_", ["train", "infer"])
@pytest.mark.parametrize("name", ["bfloat16", "autocast"])
def test_bfloat16_is_bfloat16_on_both_sides(name: str, pass_: str) -> None:
    form, problem = FORMS[name], Problem.draw("lstm", SHAPE)
    ours = build_ours(problem, "eager", pass_=pass_, form=form)
    peer = build_beside("torch.nn", problem, ours, form, pass_)
    expected, found = ours.contestant.outcome(pass_), peer.outcome(pass_)
    assert difference(expected, found, form.tolerance) is None
    assert difference(expected, found) is not None, "that would be float32"
    assert peer.call(pass_)().dtype == torch.bfloat16
    exact = build_beside("torch.nn float32", problem, ours, form, pass_).outcome(pass_)
    assert difference(expected, exact, form.tolerance) is None


# Runs


@pytest.mark.usefixtures("no_measuring_of_the_machine")
def test_a_run_stops_in_time_and_says_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    options = Options(
        table="transforms", cells=("zoneout(lstm)",), shapes=(Shape(5, 3, 8), SHAPE), backend="eager",
        minutes=1e-9, quick=True, repeats=1,
    )  # fmt: skip
    record = run(options, path)
    assert record["complete"] is False
    # The smaller one comes first.
    assert {row["H"] for row in record["rows"]} == {6}
    assert record["unmeasured"] == ["zoneout(lstm) train 5x3x8"]
    assert load_record(path, "bench")["unmeasured"] == record["unmeasured"]
    assert [row["peer"] for row in record["rows"]] == ["eager-loop", "lstm/flop", "lstm/op", "copy"]
    assert all(row["error"] is None and row["flops"] < row["operations"] for row in record["rows"])
    page = render_figures({"bench: transforms": record})
    assert "stopped before its end; 1 of its groups were not measured" in page
    assert "### Training, (5, 3, 6)" in page


@pytest.mark.usefixtures("no_measuring_of_the_machine")
@pytest.mark.parametrize("table", ["packed", "bfloat16"])
def test_a_table_of_forms_has_its_peers(table: str) -> None:
    record = run(Options(table=table, cells=("lstm",), shapes=(SHAPE,), passes=("infer",), quick=True, repeats=1))
    expected = [(form, peer) for form in TABLES[table].forms for peer in ("torch.nn", *FORMS[form].peers)]
    assert [(row["form"], row["peer"]) for row in record["rows"]] == expected
    assert [row["error"] for row in record["rows"]] == [None] * len(expected)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_be_planned(table: str) -> None:
    groups = plan_groups(Options(table=table))
    assert groups
    assert len(groups) == len(set(groups))
    assert {group.form for group in groups} == set(TABLES[table].forms)


# The goals


def row(cell: str, peer: str, ratio: float | None, shape: Shape = GOAL_SHAPES[0], **changed: object) -> dict:
    return {
        "cell": cell, "form": "plain", "pass": "train", "T": shape.T, "B": shape.B, "H": shape.H, "peer": peer,
        "ratio": ratio, "peak_share": 1.0, "fma_share": None, **changed,
    }  # fmt: skip


def verdict(start: str, rows: list[dict]):
    (goal,) = [goal for goal in GOALS if goal.what.startswith(start)]
    return judge(goal, rows)


def test_the_longer_of_a_copy_and_of_our_lstms_time_for_the_work_is_the_bound() -> None:
    what = "every cell, training at (16, 128), (64, 256), (64, 512)"
    ratios = {("gru", "lstm/op"): 0.5, ("gru", "copy"): 0.9, ("elman", "copy"): 0.1, ("elman", "lstm/op"): 0.7}
    rows = [row(cell, peer, ratio) for (cell, peer), ratio in ratios.items()]
    assert verdict(what, rows[:2]).met is True
    assert verdict(what, rows).misses == ("elman (16, 128): 0.70, 9% short",)
    # other shapes, the products alone and what is not in the catalogue count elsewhere
    beside = [row("gru", "lstm/op", 0.1, CATALOGUE_SHAPES[0]), row("gru", "lstm/flop", 0.1)]
    beside += [row("zoneout(lstm)", "copy", 0.1)]
    assert verdict(what, beside).met is None
    assert verdict("every transform, training at", beside).misses == ("zoneout(lstm) (16, 128): 0.10, 87% short",)


def test_no_cell_may_be_close_to_a_loop() -> None:
    rows = [row("gru", "eager-loop", 1.4), row("elman", "eager-loop", 30.0)]
    assert verdict("every cell against an eager loop", rows).misses == ("gru (16, 128): 1.40, 7% short",)
    rows = [row("gru", "eager-loop", 2.0), row("elman", "eager-loop", 8.0)]
    assert verdict("every cell against an eager loop", rows).misses == ("geometric mean: 4.00, 20% short",)


def test_forms_have_goals_of_their_own() -> None:
    narrow = row("lstm", "torch.nn", 0.9, form="bfloat16")
    assert verdict("lstm in bfloat16 against nn.LSTM, train", [narrow]).misses == ("lstm (16, 128): 0.90, 10% short",)
    assert verdict("lstm in autocast against nn.LSTM, train", [narrow]).met is None
    assert verdict("lstm against nn.LSTM, training", [narrow]).met is None
    packed = [row("gru", "ours padded", 1.7, form="packed"), row("lstm", "ours padded", 1.6, form="packed")]
    assert verdict("lengths from 1 to T, packed, train", packed).misses == ("lstm (16, 128): 1.60, 4% short",)


# torchrecurrent


def test_the_cells_matched_with_torchrecurrent_have_the_parameters_that_are_named() -> None:
    for name in RECURRENT:
        named = [part for parts in RECURRENT[name].layout.values() for part in parts]
        assert sorted(named) == sorted(cells.get(name).program().params)


@pytest.mark.skipif(importlib.util.find_spec("torchrecurrent") is None, reason="torchrecurrent is not installed")
@pytest.mark.parametrize("pass_", ["train", "infer"])
@pytest.mark.parametrize("name", RECURRENT)
def test_torchrecurrent_gives_what_our_layer_gives(name: str, pass_: str) -> None:
    problem = Problem.draw(name, SHAPE)
    ours = build_ours(problem, "eager", pass_=pass_)
    found = build_beside("torchrecurrent", problem, ours, PLAIN, pass_).outcome(pass_)
    assert difference(ours.contestant.outcome(pass_), found) is None
    if pass_ == "train":
        assert {f"d {name}" for name in ours.weights} <= set(found)
