"""Records of runs as Markdown: every figure of docs/benchmarks.md is made here, none is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..measure.rows import Row
from ..measure.timing import geometric_mean
from ..task.shapes import PER_WORK
from .goals import Verdict, all_verdicts
from .table import busy_warning, format_ms
from .tables import TABLES

__all__ = ["BEGIN", "END", "render_figures", "replace_figures"]

Record = Mapping[str, Any]


def render_figures(records: Mapping[str, Record]) -> str:
    """The tables of all records, by name: those of benches, `memory`, `startup`; those not given are left out."""
    parts: list[str] = []
    said = None
    for record in records.values():
        machine = _machine(record)
        parts += _provenance(record, machine if machine != said else None)
        said = machine
    parts += ["## Expected and measured", "", *_verdicts(all_verdicts(records)), ""]
    for record in records.values():
        if record.get("kind") == "bench":
            parts += _passes(record) if record["table"] == "vendor" else _by_form(record)
    if "memory" in records:
        parts += _memory(records["memory"])
    if "startup" in records:
        parts += _startup(records["startup"])
    return "\n".join(parts).rstrip() + "\n"


def _provenance(record: Record, machine: str | None) -> list[str]:
    lines = [f"`{record['command']}`", ""]
    # Said once, unless another record comes from another machine.
    if machine is not None:
        lines += [machine, ""]
    if record["kind"] != "bench":
        return [*lines, record["method"], ""]
    if not record["complete"]:
        left = len(record["unmeasured"])
        lines += [f"**This run was stopped before its end; {left} of its groups were not measured.**", ""]
    if record["quick"]:
        lines += ["**A quick run: small shapes and short samples, not to be quoted.**", ""]
    if busy := busy_warning(record["rows"]):
        lines += [f"**{busy}**", ""]
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in record["peaks_gflops"].items())
    return [*lines, f"Medians of {record['repeats']} samples. Peaks in GFLOP/s: {rates}.", ""]


def _machine(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    return (
        f"{record['date'][:10]}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{', '.join(machine['vectors'])}; {record['threads']} threads; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )


def _verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    lines = ["| what | expected | measured | |", "|---|---|---|---|"]
    misses: list[str] = []
    for verdict in verdicts:
        mark = {True: "met", False: "**missed**", None: "not measured"}[verdict.met]
        lines.append(f"| {verdict.what} | {verdict.wanted} | {verdict.got} | {mark} |")
        if verdict.misses:
            misses.append(f"- {verdict.what}: {'; '.join(verdict.misses)}.")
    return [*lines, "", "Missed, by how much:", "", *misses] if misses else lines


def _passes(record: Record) -> list[str]:
    lines: list[str] = []
    titles = {"train": "Training", "infer": "Inference", "stream": "Streaming: one step, batch 1"}
    for pass_, title in titles.items():
        chosen = [row for row in record["rows"] if row["pass"] == pass_]
        if not chosen:
            continue
        lines += [f"## {title}", ""]
        if pass_ == "stream":
            lines += [*_table(chosen, with_cell=True), ""]
            continue
        for cell in dict.fromkeys(row["cell"] for row in chosen):
            rows = [row for row in chosen if row["cell"] == cell]
            lines += [f"### {cell}", "", *_table(rows, with_cell=False), ""]
    return lines


def _by_form(record: Record) -> list[str]:
    """A table for each form and pass; where there are many cells, for each shape."""
    table = TABLES[record["table"]]
    by_shape = table.forms == ("plain",)
    lines = [f"## {table.title}", ""]
    for reason in dict.fromkeys(s["reason"] for s in record["skipped"] if "not installed" in s["reason"]):
        lines += [f"{reason.partition(';')[0]}: it was left out.", ""]
    groups: dict[str, list[Row]] = {}
    for row in record["rows"]:
        title = {"train": "Training", "infer": "Inference", "stream": "Streaming"}[row["pass"]]
        title += "" if row["form"] == "plain" else f", {row['form']}"
        groups.setdefault(f"{title}, ({row['T']}, {row['B']}, {row['H']})" if by_shape else title, []).append(row)
    for title, rows in groups.items():
        lines += [f"### {title}", "", *_table(rows, with_cell=True, with_mean=True), ""]
    return lines


def _table(rows: Sequence[Row], *, with_cell: bool, with_mean: bool = False) -> list[str]:
    """One line for each cell and shape, two columns for each peer, and the geometric means below.

    `products` is the share of matrix products in all operations; it is there where work is compared.
    """
    peers = [peer for peer in dict.fromkeys(row["peer"] for row in rows) if peer is not None]
    groups: dict[tuple[Any, ...], dict[str | None, Row]] = {}
    for row in rows:
        groups.setdefault((row["cell"], row["T"], row["B"], row["H"]), {})[row["peer"]] = row
    counted = any(peer in PER_WORK for peer in peers)
    head = (["cell"] if with_cell else []) + ["T", "B", "H", "backend", "ours ms", "spread"]
    head += (["products"] if counted else []) + ["GF/s"]
    head += ["of sgemm", "of fma", *(column for peer in peers for column in (f"{peer} ms", "ratio"))]
    lines = [_line(head), "|" + "---|" * len(head)]
    for (cell, *sizes), by_peer in groups.items():
        ours = next((row for row in by_peer.values() if row["ms"] is not None), next(iter(by_peer.values())))
        cells = ([cell] if with_cell else []) + [*map(str, sizes), ours["backend"], format_ms(ours["ms"])]
        cells += [_percent(ours["spread"])]
        cells += [_percent(ours["flops"] / ours["operations"])] if counted else []
        cells += [_rounded(ours["gflops"])]
        cells += [_percent(ours["peak_share"]), _percent(ours["fma_share"])]
        for peer in peers:
            cells += _against(by_peer.get(peer))
        lines.append(_line(cells))
    if with_mean or not with_cell:
        means = [_mean([row for row in rows if row["peer"] == peer]) for peer in peers]
        blank = [""] * (len(head) - 2 * len(peers) - 1)
        lines.append(_line(["mean", *blank, *(c for mean in means for c in ("", mean))]))
    return lines


def _against(row: Row | None) -> list[str]:
    if row is None:
        return ["", ""]
    if row["error"]:
        return ["error", row["error"]]
    return [format_ms(row["peer_ms"]), f"{row['ratio']:.2f}" if row["ratio"] else "-"]


def _mean(rows: Sequence[Row]) -> str:
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    return f"**{geometric_mean(ratios):.2f}**" if ratios else "-"


def _memory(record: Record) -> list[str]:
    lines = ["## Memory", "", _line(["cell", "T", "B", "H", "backend", "ours MiB", "torch.nn MiB", "ratio"])]
    lines.append("|" + "---|" * 8)
    for row in record["rows"]:
        sizes = [str(row[name]) for name in ("cell", "T", "B", "H", "backend")]
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(_line([*sizes, _rounded(row["mib"]), _rounded(row["peer_mib"]), ratio]))
    return [*lines, ""]


def _startup(record: Record) -> list[str]:
    imports = record["import_s"]
    lines = ["## Start", ""]
    lines += [
        f"`import torch` takes {imports['torch_s']:.2f} s; with `ostinato` it takes {imports['added_s']:.3f} s more.",
        "",
    ]
    lines += [_line(["cell", "backend", "kind", "build ms", "first call ms", "backward ms", "second call ms"])]
    lines.append("|" + "---|" * 7)
    for row in record["rows"]:
        for kind, times in row["kinds"].items():
            spent = [times[name] for name in ("build_s", "first_s", "backward_s", "second_s")]
            backend = "torch" if kind == "torch.nn" else row["backend"]
            lines.append(_line([row["cell"], backend, kind, *(format_ms(s * 1e3) for s in spent)]))
    return [*lines, ""]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


BEGIN = "<!-- figures: written by benchmarks/report.py -->"
END = "<!-- end of figures -->"


def replace_figures(document: str, figures: str) -> str | None:
    """The document with its figures replaced; None where it does not hold both markers once, in order."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        return None
    return f"{head}{BEGIN}\n\n{figures}\n{END}{tail}"
