"""One run of the benchmark, from options to a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import cells
from ..errors import DataError
from ..runtime import check_choice
from .contest import Contestant, Problem
from .loops import LOOPS
from .machine import describe_run, import_times
from .ours import build_ours
from .peak import best_sgemm, fma_peak, merge_peaks, sgemm_peaks
from .peers import build_peer, has_jax, limit_jax_threads, why_no_peer
from .record import check_writable, write_record
from .rows import Row, flop_count, measure_group, with_shares
from .shapes import DEFAULT_SHAPES, PASSES, PEERS, QUICK_SHAPES, STREAM_SHAPE, Shape
from .timing import Timer

__all__ = ["Group", "Options", "check_options", "parse_cells", "plan_groups", "run"]


@dataclass(frozen=True)
class Group:
    """One cell, pass and shape: what is measured together, in turn."""

    cell: str
    pass_: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.cell} {self.pass_} {self.shape}"


@dataclass(frozen=True)
class Options:
    """What to measure. Defaults: every cell that has a peer, the nine shapes, all passes and peers.

    repeats: samples per contestant; None is 9, or 3 when quick.
    threads: None leaves torch's own number.
    backend: `auto`, `c` or `eager`, for our layer.
    quick: two small shapes, short samples; to see that all works, not to quote.
    """

    cells: tuple[str, ...] = tuple(LOOPS)
    shapes: tuple[Shape, ...] | None = None
    passes: tuple[str, ...] = PASSES
    peers: tuple[str, ...] | None = None
    repeats: int | None = None
    threads: int | None = None
    backend: str = "auto"
    quick: bool = False
    command: str = "ostinato bench"

    @property
    def chosen_shapes(self) -> tuple[Shape, ...]:
        return self.shapes or (QUICK_SHAPES if self.quick else DEFAULT_SHAPES)

    @property
    def chosen_peers(self) -> tuple[str, ...]:
        return self.peers or tuple(peer for peer in PEERS if peer != "jax" or has_jax())

    @property
    def timer(self) -> Timer:
        repeats = self.repeats if self.repeats is not None else 3 if self.quick else 9
        return Timer(repeats, sample_ms=2.0 if self.quick else 20.0)


def parse_cells(text: str) -> tuple[str, ...]:
    """Read cell names separated by commas; raise CellError, with the nearest one, for an unknown name."""
    names = [item.strip() for item in text.split(",") if item.strip()]
    if not names:
        raise DataError(f"no cell was given; choose from: {', '.join(cells.catalogue())}.")
    return tuple(dict.fromkeys(cells.get(name).name for name in names))


def check_options(options: Options) -> None:
    """Raise before anything is measured where the options cannot be met."""
    for name in options.cells:
        more = [size for size in cells.get(name).program().symbols if size not in ("D", "H")]
        if more:
            raise DataError(
                f"cell {name} has a size {more[0]} besides D and H; leave it out of the benchmark."
            )
    check_choice(options.backend)
    if options.repeats is not None and options.repeats < 1:
        raise DataError(f"repeats is {options.repeats}; measure at least once.")
    if options.threads is not None and options.threads < 1:
        raise DataError(f"threads is {options.threads}; give at least one.")
    if "jax" in options.chosen_peers and not has_jax():
        raise DataError("the peer jax was asked for and JAX is not installed; run: pip install jax")


def plan_groups(options: Options) -> list[Group]:
    """What a run measures, in order. Streaming has one shape of its own."""
    return [
        Group(cell, pass_, shape)
        for cell in options.cells
        for pass_ in options.passes
        for shape in ((STREAM_SHAPE,) if pass_ == "stream" else options.chosen_shapes)
    ]


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
        for number, group in enumerate(groups, start=1):
            found = _measure(group, options)
            rows += found
            if number == len(groups):
                # Once more at the end: the machine may have been busy when the first was taken.
                peaks = merge_peaks(peaks, _peaks(options, threads))
            sgemm, fma = best_sgemm(peaks), peaks.get("fma")
            record.update(
                sgemm_peak_gflops=sgemm,
                fma_peak_gflops=fma,
                peaks_gflops=peaks,
                complete=number == len(groups),
                rows=with_shares(rows, sgemm, fma),
            )
            if json_path is not None:
                write_record(json_path, record)
            if on_group is not None:
                on_group(group, with_shares(found, sgemm, fma), number, len(groups))
    return record


def _measure(group: Group, options: Options) -> list[Row]:
    problem = Problem.draw(group.cell, group.shape)
    ours = build_ours(problem, options.backend)
    flops = flop_count(ours.matrix_elements, group.shape, group.pass_)
    peers: dict[str, Contestant] = {}
    peer_flops: dict[str, float] = {}
    for peer in _peers_of(group, options):
        if peer == "lstm/flop":
            lstm = build_ours(replace(problem, cell="lstm"), options.backend)
            peers[peer] = lstm.contestant
            peer_flops[peer] = flop_count(lstm.matrix_elements, group.shape, group.pass_)
        else:
            peers[peer] = build_peer(peer, problem, ours.weights)
    head = {
        "cell": group.cell,
        "backend": ours.backend,
        "pass": group.pass_,
        "T": group.shape.T,
        "B": group.shape.B,
        "D": group.shape.D,
        "H": group.shape.H,
    }
    return measure_group(
        head,
        ours.contestant,
        peers,
        options.timer,
        pass_=group.pass_,
        flops=flops,
        peer_flops=peer_flops,
    )


def _peers_of(group: Group, options: Options) -> list[str]:
    return [
        peer
        for peer in options.chosen_peers
        if why_no_peer(peer, group.cell) is None
        # A single step is mostly overhead: its time per operation says nothing.
        and not (peer == "lstm/flop" and group.pass_ == "stream")
    ]


def _head(options: Options, threads: int) -> dict[str, Any]:
    skipped = [
        {"cell": cell, "peer": peer, "reason": reason}
        for cell in options.cells
        for peer in options.chosen_peers
        if (reason := why_no_peer(peer, cell)) is not None
    ]
    return {
        **describe_run("bench", options.command, threads),
        "repeats": options.timer.repeats,
        "quick": options.quick,
        "import_s": import_times(1 if options.quick else 5),
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
