"""From contestants to rows: check that they agree, time them in turn, and do the arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..task.contest import TOLERANCE, Contestant, difference
from .others import Others
from .timing import Samples, Timer, interleave

__all__ = ["Row", "measure_group", "with_shares"]

Row = dict[str, Any]
OURS = "ostinato"
WIDE = ("plain", "packed")  # the forms whose products are float32


def measure_group(
    head: Mapping[str, Any],
    ours: Contestant,
    peers: Mapping[str, Contestant],
    timer: Timer,
    *,
    pass_: str,
    flops: float,
    scales: Mapping[str, float] | None = None,
    tolerance: float = TOLERANCE,
    rounding: Callable[[], Mapping[str, float]] | None = None,
) -> list[Row]:
    """One row for each peer of one cell, pass and shape; one row without a peer where there is none.

    head: the columns that all rows share (cell, form, backend, pass, T, B, D, H, operations).
    flops: of the matrix products of one call.
    scales: for a peer that does other work (our own lstm, a copy) what its time is multiplied by, so that the ratio
        compares times for the same work; its values are not held against ours. Peers that are one and the same
        contestant, scaled differently, are timed once.
    tolerance: how far values may be apart, relative to their norm.
    rounding: how far each value is from exact ones as a matter of course; asked only where a peer's are further apart.

    A peer that gives other numbers than ours has an error and no time: what is wrong has no speed.
    """
    scaled = scales or {}
    expected = ours.outcome(pass_)
    errors: dict[str, str] = {}
    calls = {OURS: ours.call(pass_)}
    timed_as: dict[str, str] = {}
    for name, peer in peers.items():
        twin = next((other for other in timed_as if peers[other] is peer), name)
        timed_as[name] = twin
        if twin != name:
            continue
        found = peer.outcome(pass_)
        wrong = None if name in scaled else difference(expected, found, tolerance)
        if wrong is not None and rounding is not None:
            wrong = difference(expected, found, tolerance, rounding())
        if wrong is None:
            calls[name] = peer.call(pass_)
        else:
            errors[name] = wrong
    # Without errors or with no peer at all ours is timed; against wrong peers alone there is nothing to say.
    samples: dict[str, Samples] = {}
    if len(calls) > 1 or not peers:
        others = Others()
        with torch.set_grad_enabled(pass_ == "train"):
            samples = interleave(calls, timer)
        head = {**head, "others": others.cores()}
    rows = [
        _row(
            head,
            timer,
            flops,
            samples.get(OURS) if name not in errors else None,
            name,
            samples.get(timed_as[name]),
            scaled.get(name, 1.0),
            errors.get(name),
        )
        for name in peers
    ]
    return rows or [_row(head, timer, flops, samples[OURS], None, None, 1.0, None)]


def with_shares(rows: list[Row], sgemm_peak: float | None, fma_peak: float | None) -> list[Row]:
    """The rows with their shares of both peaks filled in; the peaks are of float32, and say nothing of bfloat16."""
    return [
        {
            **row,
            "peak_share": _share(row["gflops"], sgemm_peak) if row["form"] in WIDE else None,
            "fma_share": _share(row["gflops"], fma_peak) if row["form"] in WIDE else None,
        }
        for row in rows
    ]


def _row(
    head: Mapping[str, Any],
    timer: Timer,
    flops: float,
    ours: Samples | None,
    peer: str | None,
    theirs: Samples | None,
    scale: float,
    error: str | None,
) -> Row:
    ms = ours.median if ours else None
    peer_ms = theirs.median * scale if theirs else None
    return {
        "others": None,
        **head,
        "ms": ms,
        "peer": peer,
        "peer_ms": peer_ms,
        "ratio": peer_ms / ms if ms and peer_ms else None,
        "flops": flops,
        "gflops": flops / ms / 1e6 if ms else None,
        "peak_share": None,
        "fma_share": None,
        "ms_min": ours.least if ours else None,
        "peer_ms_min": theirs.least * scale if theirs else None,
        "spread": ours.spread if ours else None,
        "peer_spread": theirs.spread if theirs else None,
        "repeats": timer.repeats,
        "error": error,
    }


def _share(gflops: float | None, peak: float | None) -> float | None:
    return gflops / peak if gflops and peak else None
