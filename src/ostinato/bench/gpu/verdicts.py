"""The sentences on speed, each held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..measure.timing import geometric_mean
from .vendor import CUDNN

__all__ = ["LEVEL", "verdicts"]

LEVEL = 1.03  # ours may take so many times as long and is level: about what two runs of one kernel differ by

Row = Mapping[str, Any]


def verdicts(record: Row) -> list[dict[str, Any]]:
    """What is wanted, what was measured, over how many cases, and whether it holds; None: nothing says."""
    rows, size = record["rows"], record["of_a_cell"]
    found = [*_vendor(rows, "lstm", "nn.LSTM", size), *_vendor(rows, "gru_reset_after", "nn.GRU", size)]
    found += _others(rows)
    return [verdict | {"met": None} for verdict in found] if record["rehearsal"] else found


def _vendor(rows: Sequence[Row], cell: str, module: str, size: int) -> list[dict[str, Any]]:
    """Level or ahead at half of the shapes; never slower than 1.5 times. For the gru it is told, and not asked for."""
    rows = [row for row in rows if row["cell"] == cell]
    own = [row for row in rows if row["error"] or _by_cudnn(row)]
    slower = {row["case"]: 1 / row["peers"]["cudnn"]["ratio"] for row in own if _ratio(row, "cudnn")}
    wrong = len([row for row in own if not _ratio(row, "cudnn")])
    apart = len([row for row in rows if _ratio(row, "cudnn") and not _by_cudnn(row)])
    asked = cell == "lstm"
    count = f"{len(slower)} of {size} cases" + (f", {wrong} more without a time" if wrong else "")
    count += f"; {apart} more that are not cuDNN's" if apart else ""
    level = sum(value <= LEVEL for value in slower.values())
    found = [_verdict(f"{cell} against {module}: level (within {LEVEL - 1:.0%}) or ahead", "at half", asked)]
    found.append(_verdict(f"{cell} against {module}: the slowest", "at most 1.5 times as long", asked))
    if slower:
        worst = max(slower, key=lambda case: slower[case])
        met = (level / len(slower) >= 0.5, slower[worst] <= 1.5 and not wrong)
        texts = (f"{level / len(slower):.0%} of {count}", f"{slower[worst]:.2f} times as long, at {worst}; {count}")
        for verdict, got, holds in zip(found, texts, met, strict=True):
            verdict["got"], verdict["met"] = got, holds if asked else None
    return found


def _others(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Within 1.5 times our lstm per floating-point operation; 20 times an eager loop in the geometric mean."""
    others = [row for row in rows if row["cell"] != "lstm" and "eager" in row["peers"]]
    per_flop = _verdict("every other cell: time for an operation over our lstm's", "each at most 1.5", True)
    eager = _verdict("every other cell against an eager loop", "20 times as fast in the geometric mean", True)
    bare = sorted({row["cell"] for row in others if row["ms"] and not row["flops"]})
    slower = {row["case"]: 1 / row["peers"]["lstm"]["ratio"] for row in others if _ratio(row, "lstm")}
    if slower:
        worst = max(slower, key=lambda case: slower[case])
        missed = [case for case, value in slower.items() if value > 1.5]
        per_flop["met"] = not missed
        per_flop["got"] = f"at most {slower[worst]:.2f}, at {worst}; {len(missed)} of {len(slower)} above 1.5"
        if bare:
            per_flop["got"] += f"; without products, so not compared: {', '.join(bare)}"
    faster = [row["peers"]["eager"]["ratio"] for row in others if _ratio(row, "eager")]
    if faster:
        mean = geometric_mean(faster)
        eager["met"] = mean >= 20
        eager["got"] = f"{mean:.1f} over {len(faster)} cases, {min(faster):.1f} to {max(faster):.1f}"
        recorded = [row["peers"]["eager, graph"]["ratio"] for row in others if _ratio(row, "eager, graph")]
        if recorded:
            eager["got"] += f"; recorded in a CUDA graph: {geometric_mean(recorded):.1f} over {len(recorded)}"
    return [per_flop, eager]


def _by_cudnn(row: Row) -> bool:
    """Whether it stands beside cuDNN, and not beside another kernel that torch takes instead."""
    return (row["peers"].get("cudnn", {}).get("by") or "").startswith(CUDNN)


def _ratio(row: Row, peer: str) -> float | None:
    return row["peers"].get(peer, {}).get("ratio")


def _verdict(what: str, wanted: str, asked: bool) -> dict[str, Any]:
    return {"what": what, "wanted": wanted if asked else "(not asked for)", "got": "not measured", "met": None}
