"""What the figures are expected to be, as data, and whether a record meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..measure.timing import geometric_mean
from ..peers.loops import LOOPS
from ..task.cells import GROUPS
from .tables import GOAL_SHAPES

__all__ = ["GOALS", "Goal", "Verdict", "all_verdicts", "judge"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """A bound on one column of the rows that `applies` selects.

    each: every row must reach this; mean: their geometric mean must reach this. None where there is no bound.
    slowest: of the peers that apply to the same cell, pass and shape the slowest counts.
    ceiling: say what the ratio would be if our products ran at the peak of the arithmetic units and the rest of the
        work took no time; a goal above that cannot be met on the machine.
    """

    what: str
    column: str
    applies: Callable[[Row], bool]
    each: float | None = None
    mean: float | None = None
    slowest: bool = False
    ceiling: bool = False


@dataclass(frozen=True)
class Verdict:
    """How a goal fared: `met` is None where nothing was measured; `misses` names rows and by how much, and last what
    the machine's peak would allow.
    """

    what: str
    wanted: str
    got: str
    met: bool | None
    misses: tuple[str, ...] = ()


def _rows(
    pass_: str, peer: str | Sequence[str], cells: Sequence[str], form: str = "plain", **bounds: int
) -> Callable[[Row], bool]:
    peers = (peer,) if isinstance(peer, str) else peer
    low_b, low_h = bounds.get("B_from", 1), bounds.get("H_from", 1)
    high_h = bounds.get("H_to", 1 << 30)

    def applies(row: Row) -> bool:
        return (
            row["form"] == form
            and row["pass"] == pass_
            and row["peer"] in peers
            and (not cells or row["cell"] in cells)
            and row["B"] >= low_b
            and low_h <= row["H"] <= high_h
        )

    return applies


def _goals() -> tuple[Goal, ...]:
    goals = [
        Goal("lstm against nn.LSTM, training", "ratio", _rows("train", "torch.nn", ["lstm"]), 1.0, 1.4),
        Goal("lstm against nn.LSTM, inference", "ratio", _rows("infer", "torch.nn", ["lstm"]), 1.0, 1.3),
    ]
    for cell, module in (("gru_reset_after", "nn.GRU"), ("elman", "nn.RNN")):
        what = f"{cell} against {module}, training"
        goals += [
            Goal(f"{what}, up to H = 256", "ratio", _rows("train", "torch.nn", [cell], H_to=256), 1.3),
            Goal(f"{what}, above", "ratio", _rows("train", "torch.nn", [cell], H_from=257), 1.0),
            Goal(f"{what}, all", "ratio", _rows("train", "torch.nn", [cell]), None, 2.5),
        ]
    for cell in ("peephole_lstm", "gru"):
        # At most 1.3 times our lstm's time per operation is at least 1 / 1.3 of its speed.
        goals += [
            Goal(
                f"{cell}, {pass_}: our lstm's time per flop over its own",
                "ratio",
                _rows(pass_, "lstm/flop", [cell]),
                1 / 1.3,
            )
            for pass_ in ("train", "infer")
        ]
        goals += [
            Goal(
                f"{cell} against an eager loop, {pass_}",
                "ratio",
                _rows(pass_, "eager-loop", [cell]),
                None,
                5.0,
                ceiling=True,
            )
            for pass_ in ("train", "infer")
        ]
    for pass_ in ("train", "infer"):
        goals.append(
            Goal(
                f"every cell against lax.scan, {pass_}, from B = 16",
                "ratio",
                _rows(pass_, "jax", (), B_from=16),
                1.5,
            )
        )
    for pass_ in ("train", "infer"):
        goals.append(
            Goal(
                f"torch.nn's cells and peephole_lstm and gru, {pass_}, share of the sgemm peak from (64, 256) up",
                "peak_share",
                lambda row, pass_=pass_: (
                    row["form"] == "plain"
                    and row["cell"] in LOOPS
                    and row["pass"] == pass_
                    and row["B"] >= 64
                    and row["H"] >= 256
                ),
                0.75,
            )
        )
    goals.append(Goal("one streaming step of lstm, H = 128", "ratio", _rows("stream", "torch.nn", ["lstm"]), 4.0))
    return (*goals, *_goals_of_many(), *_goals_of_forms())


def _goals_of_many() -> list[Goal]:
    """Every cell and transform: as fast per operation as our lstm, and faster than what others have."""
    goals: list[Goal] = []
    for what, group in (("every cell", "catalogue"), ("every transform", "transforms")):
        names = GROUPS[group]()
        per_work = _rows("train", ("lstm/op", "copy"), [name for name in names if name != "lstm"])
        goals += [
            Goal(
                f"{what}, training at {', '.join(f'({s.B}, {s.H})' for s in GOAL_SHAPES)}: the time that its work "
                "takes our lstm, or a copy if that is longer, over its own",
                "ratio",
                lambda row, per_work=per_work: (
                    per_work(row) and (row["T"], row["B"], row["H"]) in {(s.T, s.B, s.H) for s in GOAL_SHAPES}
                ),
                1 / 1.3,
                slowest=True,
            ),
            Goal(
                f"{what} against an eager loop, training",
                "ratio",
                _rows("train", "eager-loop", names),
                1.5,
                5.0,
                ceiling=True,
            ),
        ]
    against = _rows("train", "torchrecurrent", ())
    return [*goals, Goal("cells of torchrecurrent against it, training", "ratio", against, 1.5, 5.0)]


def _goals_of_forms() -> list[Goal]:
    """Sequences of several lengths cost what their steps cost; bfloat16 is level with nn.LSTM in bfloat16."""
    packed = [
        Goal(
            f"lengths from 1 to T, packed, {pass_}: the padded cost over it",
            "ratio",
            _rows(pass_, "ours padded", (), "packed"),
            1 / 0.6,
        )
        for pass_ in ("train", "infer")
    ]
    return packed + [
        Goal(f"lstm in {form} against nn.LSTM, {pass_}", "ratio", _rows(pass_, "torch.nn", ["lstm"], form), 1.0)
        for form in ("bfloat16", "autocast")
        for pass_ in ("train", "infer")
    ]


GOALS: tuple[Goal, ...] = _goals()


def all_verdicts(records: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """Every goal held against the records at hand, by name: benches, `memory`, `startup`."""
    rows = [row for record in records.values() if record.get("kind") == "bench" for row in record["rows"]]
    verdicts = [judge(goal, rows) for goal in GOALS]
    memory = {row["cell"]: row["ratio"] for row in records.get("memory", {}).get("rows", ())}
    what = "peak memory of a training step of lstm, nn.LSTM's over ours"
    verdicts.append(_at_least(what, memory.get("lstm"), 1.0))
    startup = records.get("startup", {})
    kinds = {row["cell"]: row["kinds"] for row in startup.get("rows", ()) if row["backend"] == "c"}
    for cell, times in kinds.items():
        compiled, cached = (times[kind]["build_s"] + times[kind]["first_s"] for kind in ("compile", "cache"))
        what = f"{cell}: construction and first call"
        verdicts.append(_at_most(f"{what}, compiling, s", compiled, 1.5))
        verdicts.append(_at_most(f"{what}, from the cache, s", cached, 0.02))
    verdicts.append(_at_most("import adds, s", startup.get("import_s", {}).get("added_s"), 0.3))
    return verdicts


def _at_least(what: str, value: float | None, bound: float) -> Verdict:
    if value is None:
        return Verdict(what, f"at least {bound:.3g}", "not measured", None)
    misses = () if value >= bound else (f"{value:.3f}, {1 - value / bound:.0%} short",)
    return Verdict(what, f"at least {bound:.3g}", f"{value:.3f}", not misses, misses)


def _at_most(what: str, value: float | None, bound: float) -> Verdict:
    if value is None:
        return Verdict(what, f"at most {bound:.3g}", "not measured", None)
    misses = () if value <= bound else (f"{value:.3f}, {value / bound - 1:.0%} over",)
    return Verdict(what, f"at most {bound:.3g}", f"{value:.3f}", not misses, misses)


def judge(goal: Goal, rows: Sequence[Row]) -> Verdict:
    """Hold the rows against one goal. A row with an error, or without a time, is a miss."""
    chosen: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if goal.applies(row):
            # A share of the peak is the same for every peer of a group: it counts once.
            key = (row["cell"], row["form"], row["pass"], row["T"], row["B"], row["H"])
            if goal.slowest:
                before = chosen.get(key)
                if before is None or (row[goal.column] or 0.0) > (before[goal.column] or 0.0):
                    chosen[key] = row
            else:
                chosen.setdefault(key if goal.column == "peak_share" else (*key, row["peer"]), row)
    wanted = ", ".join(
        ([f"each at least {goal.each:.3g}"] if goal.each else [])
        + ([f"geometric mean at least {goal.mean:.3g}"] if goal.mean else [])
    )
    if not chosen:
        return Verdict(goal.what, wanted, "not measured", None)
    misses = [f"{_name(row)}: no figure" for row in chosen.values() if row[goal.column] is None]
    measured = [row for row in chosen.values() if row[goal.column] is not None]
    figures: list[float] = [row[goal.column] for row in measured]
    if goal.each is not None:
        misses += [
            f"{_name(row)}: {value:.2f}, {1 - value / goal.each:.0%} short"
            for row, value in zip(measured, figures, strict=True)
            if value < goal.each
        ]
    mean = geometric_mean(figures)
    if goal.mean is not None and not mean >= goal.mean:
        misses.append(f"geometric mean: {mean:.2f}, {1 - mean / goal.mean:.0%} short")
    if goal.ceiling and misses:
        misses += _ceiling(chosen.values())
    got = (
        f"{min(figures):.2f} to {max(figures):.2f}, mean {mean:.2f}"
        if figures
        else "no figure"
    )
    return Verdict(goal.what, wanted, got, not misses, tuple(misses))


def _ceiling(rows: Iterable[Row]) -> list[str]:
    """The ratios of a kernel whose products run at the fma peak and whose other work takes no time."""
    most = [row["ratio"] / row["fma_share"] for row in rows if row["ratio"] and row["fma_share"]]
    if not most:
        return []
    return [
        f"with nothing but the products, at the fma peak, it would be {min(most):.2f} to {max(most):.2f}, "
        f"mean {geometric_mean(most):.2f}"
    ]


def _name(row: Row) -> str:
    return f"{row['cell']} ({row['B']}, {row['H']})"
