"""The tables of the page: which cells, shapes, passes, peers and forms each of them measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..peers.loops import LOOPS
from ..task.cells import GROUPS
from ..task.shapes import DEFAULT_SHAPES, PASSES, Shape

__all__ = ["CATALOGUE_SHAPES", "GOAL_SHAPES", "TABLES", "Table"]

# Where the time per operation is held against our lstm's.
GOAL_SHAPES: tuple[Shape, ...] = (Shape(100, 16, 128), Shape(100, 64, 256), Shape(100, 64, 512))
# With these four an eager loop's geometric mean is about that of the nine; it would be higher with more small shapes.
CATALOGUE_SHAPES: tuple[Shape, ...] = (Shape(100, 16, 64), *GOAL_SHAPES)
WORK = ("eager-loop", "lstm/flop", "lstm/op", "copy")


@dataclass(frozen=True)
class Table:
    """What is measured where nothing else is asked for."""

    title: str
    cells: Callable[[], tuple[str, ...]]
    shapes: tuple[Shape, ...]
    passes: tuple[str, ...]
    peers: tuple[str, ...]
    forms: tuple[str, ...] = ("plain",)


TABLES: dict[str, Table] = {
    "vendor": Table(
        "torch.nn's cells and two of its neighbours",
        lambda: tuple(LOOPS),
        DEFAULT_SHAPES,
        PASSES,
        ("torch.nn", "eager-loop", "jax", "lstm/flop"),
    ),
    "catalogue": Table("The catalogue", GROUPS["catalogue"], CATALOGUE_SHAPES, ("train",), (*WORK, "torchrecurrent")),
    "transforms": Table("Transforms", GROUPS["transforms"], CATALOGUE_SHAPES, ("train",), WORK),
    "packed": Table(
        "Sequences of several lengths",
        lambda: ("lstm", "gru_reset_after", "elman", "gru", "peephole_lstm"),
        GOAL_SHAPES,
        ("train", "infer"),
        ("torch.nn",),
        ("packed",),
    ),
    "bfloat16": Table(
        "bfloat16", lambda: ("lstm",), GOAL_SHAPES[1:], ("train", "infer"), ("torch.nn",), ("bfloat16", "autocast")
    ),
}
