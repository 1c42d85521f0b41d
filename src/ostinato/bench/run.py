"""One run of the benchmark, from options to a record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..runtime import check_choice
from .measure.machine import describe_run, import_times
from .measure.peak import best_sgemm, fma_peak, merge_peaks, sgemm_peaks
from .measure.rows import Row, measure_group, with_shares
from .measure.timing import Timer
from .peers.beside import build_beside
from .peers.build import why_no_peer, why_not_installed
from .peers.ours import build_ours, rounding
from .peers.with_jax import limit_jax_threads
from .report.record import check_writable, write_record
from .report.tables import TABLES
from .task.cells import cell_named
from .task.contest import Contestant, Problem
from .task.forms import FORMS
from .task.shapes import PER_WORK, QUICK_SHAPES, STREAM_SHAPE, Shape, parse_names

__all__ = ["Group", "Options", "check_options", "plan_groups", "run"]


@dataclass(frozen=True)
class Group:
    """One cell, pass, shape and form: what is measured together, in turn."""

    cell: str
    pass_: str
    shape: Shape
    form: str = "plain"

    def __str__(self) -> str:
        return f"{self.cell} {self.pass_} {self.shape}" + ("" if self.form == "plain" else f" {self.form}")

    @property
    def size(self) -> int:
        """What its time grows with."""
        return self.shape.T * self.shape.B * self.shape.H**2


@dataclass(frozen=True)
class Options:
    """What to measure.

    table: one of `TABLES`; what is None below is as the table says.
    cells: names of the catalogue or of `TRANSFORMED`; shapes; passes; peers: None also leaves out those not installed.
    repeats: samples per contestant; None is 9, or 3 when quick.
    threads: None leaves torch's own number.
    backend: `auto`, `c` or `eager`, for our layer.
    minutes: begin no group after so many; small shapes come first then.
    quick: two small shapes, short samples; to see that all works, not to quote.
    """

    table: str = "vendor"
    cells: tuple[str, ...] | None = None
    shapes: tuple[Shape, ...] | None = None
    passes: tuple[str, ...] | None = None
    peers: tuple[str, ...] | None = None
    repeats: int | None = None
    threads: int | None = None
    backend: str = "auto"
    minutes: float | None = None
    quick: bool = False
    command: str = "ostinato bench"

    @property
    def chosen_cells(self) -> tuple[str, ...]:
        return self.cells or TABLES[self.table].cells()

    @property
    def chosen_shapes(self) -> tuple[Shape, ...]:
        return self.shapes or (QUICK_SHAPES if self.quick else TABLES[self.table].shapes)

    @property
    def chosen_passes(self) -> tuple[str, ...]:
        return self.passes or TABLES[self.table].passes

    @property
    def chosen_peers(self) -> tuple[str, ...]:
        return self.peers or tuple(peer for peer in TABLES[self.table].peers if why_not_installed(peer) is None)

    @property
    def timer(self) -> Timer:
        repeats = self.repeats if self.repeats is not None else 3 if self.quick else 9
        return Timer(repeats, sample_ms=2.0 if self.quick else 20.0)


def check_options(options: Options) -> None:
    """Raise before anything is measured where the options cannot be met."""
    parse_names(options.table, tuple(TABLES), "table")
    for name in options.chosen_cells:
        cell_named(name)
    check_choice(options.backend)
    if options.repeats is not None and options.repeats < 1:
        raise DataError(f"repeats is {options.repeats}; measure at least once.")
    if options.threads is not None and options.threads < 1:
        raise DataError(f"threads is {options.threads}; give at least one.")
    if options.minutes is not None and not options.minutes > 0:
        raise DataError(f"minutes is {options.minutes:g}; give more than 0.")
    table = TABLES[options.table]
    for peer in options.chosen_peers:
        if (reason := why_not_installed(peer)) is not None:
            raise DataError(f"the peer {peer} was asked for and {reason}")
        if peer not in table.peers and "plain" not in table.forms:
            forms, known = ", ".join(table.forms), ", ".join(table.peers)
            raise DataError(
                f"the peer {peer} is not measured in the table {options.table} ({forms}); leave out peers, or "
                f"choose of: {known}."
            )


def plan_groups(options: Options) -> list[Group]:
    """What a run measures, in order. Streaming has one shape of its own."""
    groups = [
        Group(cell, pass_, shape, form)
        for cell in options.chosen_cells
        for form in TABLES[options.table].forms
        for pass_ in options.chosen_passes
        for shape in ((STREAM_SHAPE,) if pass_ == "stream" else options.chosen_shapes)
    ]
    return groups if options.minutes is None else sorted(groups, key=lambda group: group.size)


def run(
    options: Options,
    json_path: Path | None = None,
    on_group: Callable[[Group, list[Row], int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure, and return the record; write it to `json_path` after each group, whole each time.

    on_group: told each group, its rows, its number from 1, and how many there are.
    """
    check_options(options)
    if json_path is not None:
        check_writable(json_path)
    groups = plan_groups(options)
    with _threads(options.threads) as threads:
        if "jax" in options.chosen_peers:
            limit_jax_threads(threads)
        record = _head(options, threads)
        peaks = _peaks(options, threads)
        rows: list[Row] = []
        deadline = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
        for number, group in enumerate(groups, start=1):
            last = number == len(groups)
            found = _measure(group, options)
            rows += found
            late = time.monotonic() >= deadline
            if last or late:
                # Once more at the end: the machine may have been busy when the first was taken.
                peaks = merge_peaks(peaks, _peaks(options, threads))
            sgemm, fma = best_sgemm(peaks), peaks.get("fma")
            record.update(
                sgemm_peak_gflops=sgemm,
                fma_peak_gflops=fma,
                peaks_gflops=peaks,
                complete=last,
                unmeasured=[str(group) for group in groups[number:]],
                rows=with_shares(rows, sgemm, fma),
            )
            if json_path is not None:
                write_record(json_path, record)
            if on_group is not None:
                on_group(group, with_shares(found, sgemm, fma), number, len(groups))
            if late:
                break
    return record


def _measure(group: Group, options: Options) -> list[Row]:
    problem, form = Problem.draw(group.cell, group.shape), FORMS[group.form]
    ours = build_ours(problem, options.backend, pass_=group.pass_, form=form)
    work = ours.work(group.pass_)
    peers: dict[str, Contestant] = {}
    scales: dict[str, float] = {}
    names = _peers_of(group, options)
    if any(name in PER_WORK for name in names):
        lstm = build_ours(Problem.draw("lstm", group.shape), options.backend, pass_=group.pass_)
        of_lstm = lstm.work(group.pass_)
        ratios = {"lstm/flop": work.flops / of_lstm.flops, "lstm/op": work.operations / of_lstm.operations}
        chosen = [name for name in names if name in ratios]
        peers.update(dict.fromkeys(chosen, lstm.contestant))
        scales.update((name, ratios[name]) for name in chosen)
    for name in names:
        if name not in PER_WORK:
            peers[name] = build_beside(name, problem, ours, form, group.pass_)
        if name == "copy" or name.endswith("padded"):  # other work than ours, for comparison as it is
            scales[name] = 1.0
    head = {
        "cell": group.cell,
        "form": group.form,
        "backend": ours.backend,
        "pass": group.pass_,
        "T": group.shape.T,
        "B": group.shape.B,
        "D": group.shape.D,
        "H": group.shape.H,
        "operations": work.operations,
    }
    return measure_group(
        head,
        ours.contestant,
        {name: peers[name] for name in names},
        options.timer,
        pass_=group.pass_,
        flops=work.flops,
        scales=scales,
        tolerance=form.tolerance,
        rounding=partial(rounding, ours, group.pass_),
    )


def _peers_of(group: Group, options: Options) -> list[str]:
    chosen = options.chosen_peers
    if group.form != "plain":
        chosen = (*(peer for peer in chosen if peer == "torch.nn"), *FORMS[group.form].peers)
    return [
        peer
        for peer in chosen
        if why_no_peer(peer, group.cell) is None
        # A single step is mostly overhead: its time per operation says nothing.
        and not (peer in (*PER_WORK, "copy") and group.pass_ == "stream")
    ]


def _head(options: Options, threads: int) -> dict[str, Any]:
    skipped = [
        {"cell": cell, "peer": peer, "reason": reason}
        for cell in options.chosen_cells
        for peer in options.peers or TABLES[options.table].peers
        if (reason := why_no_peer(peer, cell)) is not None
    ]
    return {
        **describe_run("bench", options.command, threads),
        "repeats": options.timer.repeats,
        "quick": options.quick,
        "import_s": import_times(1 if options.quick else 5),
        "table": options.table,
        "skipped": skipped,
        "rows": [],
    }


def _peaks(options: Options, threads: int) -> dict[str, float]:
    peaks = sgemm_peaks(seconds=0.05 if options.quick else 0.3)
    fma = fma_peak(threads)
    return peaks if fma is None else {**peaks, "fma": fma}


@contextmanager
def _threads(threads: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
