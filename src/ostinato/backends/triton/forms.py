"""The forms that a kernel may take at given sizes, by how long a step of each may take.

The model counts cycles of a multiprocessor of an H100 or H200. It was made from the instructions that the compiler
gives for such a step; it says which forms are worth measuring, and which is taken where nothing was measured.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...schedule import BatchMean, Loop, Run
from .device import Facts
from .form import LEAST, Form, power_of_two
from .layout import Layout
from .work import pointwise

__all__ = ["Candidate", "candidates"]

MEETING = 2000.0  # cycles from the last program's arrival to when all go on
FIXED = 500.0  # of a step: its loads, its barriers, what a warp waits for
KERNEL = 3600.0  # of a kernel in a graph, beside its work
CLOCK = 1.8e9  # cycles a second
MEMORY = 2000.0  # bytes a cycle, of the whole card
RATES = {"float32": 17000.0, "tf32": 60000.0, "bfloat16": 200000.0, "float16": 200000.0}  # products a cycle, likewise
KEPT = 176 << 10  # bytes of weights that a program may keep
REGISTERS = 140  # of a thread that hold weights
WAITING = 0.5  # cycles that a warp waits for each product, which others of its scheduler fill


class Candidate(NamedTuple):
    """A form, and the cycles that a step takes by the model."""

    cycles: float
    form: Form


class _Step(NamedTuple):
    """What a step has: its products as (depth, width), how often programs meet, pointwise operations of a row."""

    products: list[tuple[int, int]]
    meetings: int
    pointwise: float
    totals: bool
    means: bool


def candidates(layout: Layout, name: str, batch: int, factors: str, card: Facts) -> list[Candidate]:
    """Forms for a kernel of this name over so many sequences, the most promising first."""
    step = _step(layout, name)
    widest = max(layout.state_sizes, default=1)
    found = [c for form in _whole(step, widest, batch, factors) if (c := _judged(form, step, layout, batch, card))]
    found.append(_staged(layout, step, batch, factors))
    return sorted(found, key=lambda c: c.cycles)


def _step(layout: Layout, name: str) -> _Step:
    plan = layout.plan
    slots = {"infer": plan.infer, "train": plan.forward, "backward": plan.backward}[name]
    shape = {m: (layout.of(rows), layout.of(columns)) for m, rows, columns in plan.matrices}
    products: list[tuple[int, int]] = []
    stages = 0
    for before, slot in zip((None, *slots), slots, strict=False):
        if isinstance(slot, Run):
            stages += not isinstance(before, Run)
            for entry in slot.entries:
                rows, columns = shape[entry.matrix]
                products.append((rows, columns) if slot.transposed else (columns, rows))
    totals = any(isinstance(slot, Loop) and any(s.total for s in slot.stores) for slot in slots)
    means = any(isinstance(slot, BatchMean) for slot in plan.infer)
    return _Step(products, stages + totals, pointwise(layout, name), totals, means)


def _whole(step: _Step, widest: int, batch: int, factors: str) -> list[Form]:
    """Forms of kernels over whole sequences, good or not."""
    most = power_of_two(batch)
    tiles = [most] if step.means else [m for m in (1, 2, 4, 8, 16, 32, 64) if m <= most]
    deals = {-(-widest // lanes) for lanes in (8, 16, 32, 64, 128, 256) if lanes < widest} | {1}
    found: list[Form] = []
    depth = max((d for d, _ in step.products), default=0)
    for tile in tiles:
        for slices in sorted(deals):
            for warps in (4, 8):
                for splits in {1, warps} if slices == 1 else {warps}:
                    while splits > 1 and depth < splits * LEAST:
                        splits //= 2
                    found.append(Form(tile, slices, splits, warps, factors))
    return list(dict.fromkeys(found))


def _judged(form: Form, step: _Step, layout: Layout, batch: int, card: Facts) -> Candidate | None:
    """A form and its cycles; None where it cannot run."""
    size = 2 if form.narrow else 4
    widest = max(layout.state_sizes, default=1)
    lanes = form.lanes(widest)
    kept = sum(_depth(form, depth) * form.lanes(width) * size for depth, width in step.products)
    registers = kept / (128 * form.warps) if form.factors != "float32" else 0  # others are read from shared memory
    if kept > KEPT or registers > REGISTERS or form.batch * sum(form.lanes(s) for s in layout.state_sizes) > 16384:
        return None
    groups = -(-batch // form.batch)
    if form.meeting:
        if not form.sliced(widest):  # each would have all states whole
            return None
        at_once = card.programs // form.slices
        if not at_once:
            return None
        waves = -(-groups // at_once)
    else:
        waves = -(-groups // card.programs)
    cycles, turns = FIXED, max(1.0, form.warps / 4)  # a multiprocessor has four schedulers
    for depth, width in step.products:
        deep, wide = _depth(form, depth) / form.splits, form.lanes(width)
        threads = 32 * form.warps / form.splits
        if form.factors == "float32":
            cycles += max(1.0, form.batch * wide / threads) * deep * (1.35 * turns + WAITING)
        else:
            tiles = max(form.batch, 16) / 16 * max(wide, 8) / 8
            cycles += max(1.0, tiles * 32 / threads) * deep / 16 * (5 * turns + 10 * WAITING)
        if form.splits > 1:
            cycles += 40 + form.batch * wide * form.splits / (32 * form.warps) * 3 * turns
        if form.meeting:
            cycles += form.batch * depth * size / 48
    share = lanes / widest
    cycles += form.batch * step.pointwise * share / 100
    cycles += step.meetings * MEETING if form.meeting else 0
    return Candidate(waves * cycles, form)


def _depth(form: Form, depth: int) -> int:
    return sum(piece.splits * piece.depth for piece in form.pieces(depth))


def _staged(layout: Layout, step: _Step, batch: int, factors: str) -> Candidate:
    """The form in which products are the vendor's."""
    widest = max([*layout.state_sizes, 1])
    slices = 1 if step.totals else max(1, power_of_two(widest) // 128)
    tile = power_of_two(batch) if step.means else min(8, power_of_two(batch))
    if step.means and not step.totals:  # a program has all sequences, and few units
        slices = max(slices, min(power_of_two(widest) // 8, tile * power_of_two(widest) // 4096))
    form = Form(tile, max(1, slices), 1, 4, factors, stages=True)
    size = 2 if form.narrow else 4
    products = sum(depth * width for depth, width in step.products)
    values = batch * (sum(d + w for d, w in step.products) + 6 * widest)
    cycles = (step.meetings * 2) * KERNEL + math.fsum(
        (batch * products / RATES[factors], (products * size + values * 4) / MEMORY)
    )
    return Candidate(cycles, form)
