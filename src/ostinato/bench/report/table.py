"""The record of a run as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ..measure.others import BUSY
from ..measure.rows import Row

__all__ = ["busy_warning", "describe_head", "format_ms", "rows_table"]


def format_ms(ms: float | None) -> str:
    """Milliseconds with three significant digits, never in powers of ten."""
    if ms is None:
        return "-"
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def rows_table(rows: Sequence[Row]) -> Table:
    """A table of rows: times are medians, `ratio` above 1 means that ours is ahead."""
    table = Table(title="milliseconds per call; ratio = peer / ours, above 1 is ahead")
    for name in ("cell", "form", "backend", "pass", "T", "B", "H"):
        table.add_column(name, justify="left" if name in ("cell", "form", "backend", "pass") else "right")
    for name in ("ours", "peer", "peer ms", "ratio", "GF/s", "of sgemm", "of fma"):
        table.add_column(name, justify="left" if name == "peer" else "right")
    for row in rows:
        table.add_row(
            *(str(row[name]) for name in ("cell", "form", "backend", "pass", "T", "B", "H")),
            format_ms(row["ms"]),
            row["peer"] or "-",
            format_ms(row["peer_ms"]),
            _ratio(row),
            "-" if row["gflops"] is None else f"{row['gflops']:.0f}",
            _percent(row["peak_share"]),
            _percent(row["fma_share"]),
        )
    return table


def describe_head(record: dict[str, Any]) -> str:
    """Two lines: the machine, and the peaks."""
    machine, versions = record["machine"], record["versions"]
    fma = record["fma_peak_gflops"]
    return (
        f"{machine['cpu']}, {record['threads']} threads, torch {versions['torch']}, "
        f"medians of {record['repeats']}\n"
        f"sgemm peak {record['sgemm_peak_gflops']:.0f} GF/s"
        + (f", fma peak {fma:.0f} GF/s" if fma else "")
        + f", import adds {record['import_s']['added_s']:.2f} s"
    )


def busy_warning(rows: Sequence[Row]) -> str | None:
    """A sentence on how many rows were measured while other processes were at work; None where none was."""
    busy = [row["others"] for row in rows if row["others"] is not None and row["others"] > BUSY]
    if not busy:
        return None
    return (
        f"{len(busy)} of {len(rows)} rows were measured while other processes kept up to {max(busy):.2f} "
        f"cores busy; their figures are unreliable: run again on a quiet machine."
    )


def _ratio(row: Row) -> str:
    if row["error"]:
        return "[red]error[/red]"
    if row["ratio"] is None:
        return "-"
    colour = "green" if row["ratio"] >= 1 else "red"
    return f"[{colour}]{row['ratio']:.2f}[/{colour}]"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
