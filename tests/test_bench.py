"""Laws of the benchmark: samples in a fair order, values checked before they are timed, plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from ostinato.bench.measure import others
from ostinato.bench.measure.peak import best_sgemm, merge_peaks
from ostinato.bench.measure.rows import measure_group, with_shares
from ostinato.bench.measure.timing import Samples, Timer, geometric_mean, interleave
from ostinato.bench.peers.build import build_peer, why_no_peer
from ostinato.bench.peers.loops import LOOPS
from ostinato.bench.peers.ours import build_ours, rounding
from ostinato.bench.peers.torch_nn import TORCH_MODULES
from ostinato.bench.report.record import ROW_KEYS
from ostinato.bench.task.contest import Problem, TorchContestant, difference, distances
from ostinato.bench.task.shapes import DEFAULT_SHAPES, PASSES, PEERS, Shape, parse_names, parse_shapes
from ostinato.errors import DataError, ShapeError

SHAPE = Shape(5, 3, 6)
HEAD = {
    "cell": "lstm", "form": "plain", "backend": "c", "pass": "infer", "T": 5, "B": 3, "D": 6, "H": 6, "operations": 6e9,
}  # fmt: skip


class FakeClock:
    """A clock that moves only when a call says how long it took, so that times are known exactly."""

    def __init__(self) -> None:
        self.now = 0
        self.order: list[str] = []

    def __call__(self) -> int:
        return self.now

    def call(self, name: str, ms: float):
        def work() -> None:
            self.order.append(name)
            self.now += round(ms * 1e6)

        return work


class FakeContestant:
    """A contestant whose outcome and time are given."""

    def __init__(self, clock: FakeClock, name: str, ms: float, value: float = 1.0) -> None:
        self.clock, self.name, self.ms, self.value = clock, name, ms, value

    def call(self, pass_: str):
        return self.clock.call(self.name, self.ms)

    def outcome(self, pass_: str) -> dict[str, torch.Tensor]:
        return {"output": torch.full((2, 2), self.value)}


def weights_of(cell: str, hidden: int) -> dict[str, torch.Tensor]:
    """Random weights under the names in the equations."""
    return LOOPS[cell].draw(hidden, torch.Generator().manual_seed(1))


# Timing


def test_samples_are_taken_in_turn() -> None:
    clock = FakeClock()
    calls = {name: clock.call(name, 30.0) for name in ("ours", "peer", "third")}
    interleave(calls, Timer(repeats=4, sample_ms=20.0, clock=clock))
    # The first calls of each find out how many fill a sample: here one does, and one outside the clock comes before.
    assert clock.order[-24:] == ["ours", "ours", "peer", "peer", "third", "third"] * 4


def test_a_short_call_is_repeated_until_it_fills_a_sample() -> None:
    clock = FakeClock()
    samples = interleave({"a": clock.call("a", 0.5)}, Timer(repeats=3, sample_ms=20.0, clock=clock))["a"]
    assert samples.inner == 40
    assert samples.values == (0.5, 0.5, 0.5)


def test_each_short_sample_follows_one_call_that_is_not_timed() -> None:
    clock = FakeClock()
    calls = {"a": clock.call("a", 10.0), "b": clock.call("b", 5.0)}
    interleave(calls, Timer(repeats=2, sample_ms=20.0, clock=clock))
    assert clock.order[-16:] == (["a"] * 3 + ["b"] * 5) * 2


def test_the_median_the_least_and_the_spread() -> None:
    samples = Samples((4.0, 1.0, 2.0, 3.0, 100.0), inner=1)
    assert samples.median == 3.0
    assert samples.least == 1.0
    assert samples.spread == pytest.approx((4.0 - 2.0) / 3.0)
    assert Samples((7.0,), inner=1).spread == 0.0


def test_a_sample_is_not_disturbed_by_the_garbage_collector_and_it_is_put_back() -> None:
    import gc

    seen: list[bool] = []
    interleave({"a": lambda: seen.append(gc.isenabled())}, Timer(repeats=2, sample_ms=0.01))
    assert seen[-1] is False
    assert gc.isenabled()


def test_the_geometric_mean() -> None:
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(geometric_mean([]))


# Options


def test_shapes_are_read_with_and_without_steps() -> None:
    assert parse_shapes("16x64, 50x64x1024,16x64") == (Shape(100, 16, 64), Shape(50, 64, 1024))
    assert str(Shape(50, 64, 1024)) == "50x64x1024"
    assert Shape(100, 16, 64).D == 64


def test_the_nine_shapes_are_those_of_the_expectations() -> None:
    assert [(s.B, s.H) for s in DEFAULT_SHAPES if s.T == 100] == [
        (1, 64), (16, 64), (64, 64), (16, 128), (64, 128), (16, 256), (64, 256), (64, 512),
    ]  # fmt: skip
    assert [s for s in DEFAULT_SHAPES if s.T != 100] == [Shape(50, 64, 1024)]


@pytest.mark.parametrize(
    "text", ["", ",", "16", "16x", "axb", "1x2x3x4", "16x64x", "-1x4", "0x64", "16x0", "\u0661x64"]
)
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ShapeError, match=r"16x64|at least 1"):
        parse_shapes(text)


@pytest.mark.parametrize("text", ["1x999999999x64", "1x1x99999", "9" * 30 + "x64"])
def test_a_shape_too_large_to_hold_is_refused(text: str) -> None:
    with pytest.raises(ShapeError, match="too large"):
        parse_shapes(text)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match=r"unknown peer 'torch'; did you mean 'torch\.nn'"):
        parse_names("torch", PEERS, "peer")
    with pytest.raises(DataError, match="no pass was given"):
        parse_names(" ", PASSES, "pass")
    assert parse_names("infer,train,infer", PASSES, "pass") == ("infer", "train")


# Arithmetic


def test_a_row_has_every_column_and_its_ratio_is_peer_over_ours() -> None:
    clock = FakeClock()
    ours, peer = FakeContestant(clock, "ours", 25.0), FakeContestant(clock, "peer", 50.0)
    (row,) = measure_group(HEAD, ours, {"torch.nn": peer}, Timer(3, clock=clock), pass_="infer", flops=5e9)
    assert set(row) == set(ROW_KEYS)
    assert (row["ms"], row["peer_ms"], row["ratio"]) == (25.0, 50.0, 2.0)
    assert (row["ms_min"], row["peer_ms_min"], row["spread"], row["peer_spread"]) == (25.0, 50.0, 0.0, 0.0)
    assert row["gflops"] == pytest.approx(200.0)
    assert row["error"] is None
    (shared,) = with_shares([row], 400.0, None)
    assert shared["peak_share"] == pytest.approx(0.5)
    assert shared["fma_share"] is None
    assert set(shared) == set(ROW_KEYS)
    (narrow,) = with_shares([{**row, "form": "bfloat16"}], 400.0, 500.0)
    assert narrow["peak_share"] is narrow["fma_share"] is None


def test_time_per_operation_scales_a_peer_that_does_other_work() -> None:
    clock = FakeClock()
    ours, lstm = FakeContestant(clock, "ours", 30.0, 1.0), FakeContestant(clock, "lstm", 40.0, 2.0)
    (row,) = measure_group(
        HEAD, ours, {"lstm/flop": lstm}, Timer(3, clock=clock),
        pass_="infer", flops=3e9, scales={"lstm/flop": 0.75},
    )  # fmt: skip
    # 40 ms for 4 units of work are 30 ms for our 3: as fast per operation, though the values differ.
    assert row["peer_ms"] == pytest.approx(30.0)
    assert row["ratio"] == pytest.approx(1.0)
    assert row["error"] is None


def test_a_peer_that_is_scaled_in_two_ways_is_timed_once() -> None:
    clock = FakeClock()
    ours, lstm = FakeContestant(clock, "ours", 30.0), FakeContestant(clock, "lstm", 40.0)
    rows = measure_group(
        HEAD, ours, {"lstm/flop": lstm, "lstm/op": lstm}, Timer(3, clock=clock),
        pass_="infer", flops=3e9, scales={"lstm/flop": 0.75, "lstm/op": 1.5},
    )  # fmt: skip
    assert [(row["peer"], row["peer_ms"]) for row in rows] == [("lstm/flop", 30.0), ("lstm/op", 60.0)]
    assert clock.order.count("lstm") == clock.order.count("ours")


def test_a_peer_with_other_values_is_an_error_and_has_no_time() -> None:
    clock = FakeClock()
    ours = FakeContestant(clock, "ours", 25.0, 1.0)
    peers = {
        "eager-loop": FakeContestant(clock, "bad", 50.0, 1.1),
        "jax": FakeContestant(clock, "good", 50.0),
    }
    bad, good = measure_group(HEAD, ours, peers, Timer(3, clock=clock), pass_="infer", flops=1e9)
    assert "output differs from the peer's by 9" in bad["error"]
    assert bad["ms"] is bad["peer_ms"] is bad["ratio"] is bad["gflops"] is None
    assert good["error"] is None
    assert good["ratio"] == 2.0
    assert "bad" not in clock.order


def test_without_a_peer_ours_is_measured_alone() -> None:
    clock = FakeClock()
    ours = FakeContestant(clock, "ours", 25.0)
    (row,) = measure_group(HEAD, ours, {}, Timer(3, clock=clock), pass_="infer", flops=1e9)
    assert (row["ms"], row["peer"], row["peer_ms"], row["ratio"]) == (25.0, None, None, None)


def test_a_nan_and_a_missing_gradient_are_differences() -> None:
    good = {"output": torch.ones(3), "dx": torch.ones(3)}
    assert difference(good, good) is None
    assert "dx is missing" in str(difference({"output": torch.ones(3)}, good))
    assert "differs" in str(difference({**good, "dx": torch.tensor([1.0, math.nan, 1.0])}, good))
    assert "shape" in str(difference({**good, "dx": torch.ones(4)}, good))


def test_a_gradient_that_is_zero_but_for_rounding_is_held_against_the_others() -> None:
    peer = {"output": torch.ones(3), "dx": torch.ones(3), "d b": torch.full((3,), 1e-9)}
    assert difference({**peer, "d b": torch.full((3,), -1e-8)}, peer) is None
    assert "d b differs" in str(difference({**peer, "d b": torch.full((3,), 1e-5)}, peer))
    # An output has no others to be held against.
    small = {**peer, "output": torch.full((3,), 1e-9)}
    assert "output differs" in str(difference({**small, "output": torch.full((3,), 2e-9)}, small))


def test_a_difference_is_allowed_where_rounding_makes_it_and_no_further() -> None:
    exact = {"output": torch.ones(4), "dx": torch.ones(4)}
    rounded = {"output": torch.ones(4), "dx": torch.full((4,), 1.001)}
    found = distances(rounded, exact)
    assert found["output"] == 0.0
    assert found["dx"] == pytest.approx(1e-3, rel=1e-3)
    assert "dx differs" in str(difference(rounded, exact))
    assert difference(rounded, exact, rounding=found) is None
    assert "dx differs" in str(difference({**exact, "dx": torch.full((4,), 1.01)}, exact, rounding=found))
    assert "output differs" in str(difference({**exact, "output": torch.full((4,), 1.001)}, exact, rounding=found))


def test_rounding_is_known_of_a_layer() -> None:
    ours = build_ours(Problem.draw("layer_norm(lstm)", SHAPE), pass_="train")
    before = {name: weight.clone() for name, weight in ours.weights.items()}
    found = rounding(ours, "train")
    assert set(found) == set(ours.contestant.outcome("train"))
    assert 0 < max(found.values()) < 1e-3
    assert all(torch.equal(weight, before[name]) for name, weight in ours.weights.items())
    assert ours.layer.backend == "auto"


def test_peaks_are_the_greatest_measured() -> None:
    peaks = merge_peaks(
        {"torch.mm 512": 200.0, "fma": 500.0}, {"torch.mm 512": 180.0, "onednn linear 512": 400.0}
    )
    assert peaks == {"torch.mm 512": 200.0, "fma": 500.0, "onednn linear 512": 400.0}
    assert best_sgemm(peaks) == 400.0


# Peers


@pytest.mark.parametrize("cell", sorted(TORCH_MODULES))
@pytest.mark.parametrize("pass_", PASSES)
def test_the_loop_by_hand_and_torch_nn_agree(cell: str, pass_: str) -> None:
    problem = Problem.draw(cell, SHAPE)
    weights = weights_of(cell, SHAPE.H)
    found = [build_peer(peer, problem, weights).outcome(pass_) for peer in ("eager-loop", "torch.nn")]
    assert difference(found[0], found[1]) is None
    assert set(found[0]) == set(found[1])
    if pass_ == "train":
        assert set(found[0]) == {"output", "dx", *(f"d {name}" for name in weights)}


def test_a_stream_carries_its_state() -> None:
    problem = Problem.draw("lstm", Shape(1, 1, 6))
    outcome = build_peer("eager-loop", problem, weights_of("lstm", 6)).outcome("stream")["output"]
    # The same input each time: only a state carried over makes the outputs differ.
    assert not torch.allclose(outcome[0], outcome[1])


def test_training_leaves_the_gradient_of_one_pass() -> None:
    problem = Problem.draw("elman", SHAPE)
    contestant = build_peer("torch.nn", problem, weights_of("elman", SHAPE.H))
    assert isinstance(contestant, TorchContestant)
    step = contestant.call("train")
    step()
    first = contestant.x.grad
    assert first is not None
    first = first.clone()
    step()
    assert torch.equal(contestant.x.grad, first)


def test_why_a_peer_cannot_be_had() -> None:
    assert why_no_peer("torch.nn", "gru") == "torch.nn has no gru"
    assert why_no_peer("torch.nn", "lstm") is None
    assert why_no_peer("lstm/flop", "gru") is None
    assert why_no_peer("eager-loop", "zoneout(lstm)") is None
    assert why_no_peer("lstm/op", "lstm") == "it is what the others are held against"
    assert why_no_peer("torch.nn padded", "gru") == "torch.nn has no gru"
    assert why_no_peer("torchrecurrent", "gru") == "torchrecurrent has no gru"


def test_work_of_other_processes_is_what_is_busy_and_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own, wall = iter([100.0, 103.0]), iter([10.0, 12.0]), iter([0.0, 2.0])
    monkeypatch.setattr(others, "_system_seconds", lambda: next(busy))
    monkeypatch.setattr(others, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(others.time, "perf_counter", lambda: next(wall))
    # 3 seconds busy, of which 2 were ours, in 2 seconds.
    assert others.Others().cores() == pytest.approx(0.5)


def test_where_the_system_does_not_tell_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "_system_seconds", lambda: None)
    assert others.Others().cores() is None
