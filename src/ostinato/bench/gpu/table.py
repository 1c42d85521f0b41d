"""The record of a run as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .grid import GRID
from .vendor import CUDNN

__all__ = ["page", "table"]

PEERS = {"cudnn": "torch.nn", "eager": "eager loop", "eager, graph": "in a graph", "lstm": "our lstm"}
PASSES = {"infer": "forward", "train": "forward and backward"}


def page(record: Mapping[str, Any]) -> Iterator[str]:
    """Lines: the verdicts, a table for each stage, the published figures, what was left out."""
    if record["rehearsal"]:
        yield from ("**A rehearsal on the CPU through Triton's interpreter: no figure here means anything.**", "")
    if record["ceilings"]:
        rates = record["ceilings"]
        yield f"{record['method']}"
        yield ""
        yield (
            f"Ceilings, measured once: a copy {rates['copy'] / 1e9:,.0f} GB/s (read and written), products in float32 "
            f"{rates['float32'] / 1e12:,.1f} TFLOP/s, in bfloat16 {rates['bfloat16'] / 1e12:,.1f} TFLOP/s. A case's "
            "floor is the longer of its operations and its bytes over these; that steps wait for one another is no "
            "part of it. A ratio is a peer's time over ours, beside our lstm for as many operations in products."
        )
        yield ""
    marks = {True: "holds", False: "**does not hold**", None: "not judged"}
    lines = [[v["what"], v["wanted"], v["got"], marks[v["met"]]] for v in record["verdicts"]]
    yield from table(["what", "wanted", "measured", ""], lines)
    for stage in record["order"]:
        rows = [row for row in record["rows"] if row["stage"] == stage["stage"]]
        if rows:
            yield from (f"### {stage['stage']}: {len(rows)} of {stage['cases']}", "")
            yield from _rows(rows)
    yield from _published(record["published"])
    yield from _compiled(record["compiled"])
    yield from _left_out(record)


def _rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    peers = [peer for peer in PEERS if any(peer in row["peers"] for row in rows)]
    head = ["cell", "B", "H", "T", "dtype", "pass", "ours ms", "spread"]
    head += [column for peer in peers for column in (f"{PEERS[peer]} ms", "ratio")]
    head += ["GFLOP", "MB", "floor ms", "reached", "form"]
    lines: list[list[str]] = []
    for row in rows:
        line = [row["cell"], str(row["B"]), str(row["H"]), str(row["T"]), row["dtype"], PASSES[row["pass"]]]
        line += [_ms(row["ms"]), _share(row.get("spread"))]
        for peer in peers:
            line += _against(row["peers"].get(peer))
        if row["ms"] is None:
            line += ["", "", "", "", f"error: {_short(row['error'])}"]
        else:
            line += [f"{row['operations'] / 1e9:.3g}", f"{row['bytes'] / 1e6:.3g}", _ms(row["floor_ms"])]
            line += [_share(row["share"]), row["form"] + (" (measured)" if row["tuned"] else "")]
        lines.append(line)
    yield from table(head, lines)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        ended = {"ours": row["error"]} | {PEERS[peer]: p["error"] for peer, p in row["peers"].items()}
        for who, error in ended.items():
            if error:
                reasons.setdefault(f"{who}: {error}", []).append(row["case"])
    others: dict[str, int] = {}
    for row in rows:
        by = row["peers"].get("cudnn", {}).get("by")
        if by not in (None, CUDNN):
            others[by] = others.get(by, 0) + 1
    for by, count in others.items():
        yield from (f"torch.nn was {by}, in {count} of these cases.", "")
    if reasons:
        yield from ("Without a time:", "")
        for reason, cases in reasons.items():
            more = ", ..." if len(cases) > 4 else ""
            yield f"- {reason} ({len(cases)}: {', '.join(cases[:4])}{more})"
        yield ""


def _against(peer: Mapping[str, Any] | None) -> list[str]:
    if peer is None:
        return ["", ""]
    if peer["error"]:
        return ["none", ""]
    return [_ms(peer["ms"]), f"{peer['ratio']:.2f}" if peer["ratio"] else "-"]


def _published(published: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    shape, dtype = GRID.published
    yield from ("### Published, not measured here", "")
    yield f"FlashRNN's figures (B={shape.B}, T={shape.T}, {dtype}, one head of {shape.H}), in ms, for orientation."
    yield ""
    lines = [[name, *(f"{ms[pass_]:g}" for pass_ in PASSES)] for name, ms in published.items()]
    yield from table(["", *PASSES.values()], lines)


def _compiled(compiled: list[dict[str, Any]]) -> Iterator[str]:
    if not compiled:
        return
    spent, worst = sum(found["seconds"] for found in compiled), max(found["seconds"] for found in compiled)
    yield f"Compiled ahead: {len(compiled)} cases in {spent:.0f} s of all processes, the longest {worst:.1f} s."
    yield ""
    for found in compiled:
        if found["how"] != "done":
            yield f"- {found['case']}: {found['how']}: {_short(found['said'])}"
    yield ""


def _left_out(record: Mapping[str, Any]) -> Iterator[str]:
    left = record["left_out"]
    if left:
        yield from (f"### Not measured: {len(left)}", "", "; ".join(left) + ".", "")


def table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """A table in Markdown, and an empty line."""
    yield from (f"| {' | '.join(head)} |", "|" + "---|" * len(head))
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _ms(ms: float | None) -> str:
    """Three digits."""
    if ms is None:
        return "-"
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.4f}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _short(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0][:160]
