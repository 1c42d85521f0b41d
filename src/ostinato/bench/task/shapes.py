"""What is measured: the shapes, the passes and the peers, and how they are read from the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DataError, ShapeError

__all__ = [
    "DEFAULT_SHAPES",
    "PASSES",
    "PEERS",
    "PER_WORK",
    "QUICK_SHAPES",
    "STREAM_SHAPE",
    "Shape",
    "parse_names",
    "parse_shapes",
]


@dataclass(frozen=True, order=True)
class Shape:
    """Steps T, batch B and width H; the input is as wide as the state, D = H."""

    T: int
    B: int
    H: int

    @property
    def D(self) -> int:
        return self.H

    def __str__(self) -> str:
        return f"{self.T}x{self.B}x{self.H}"


DEFAULT_SHAPES: tuple[Shape, ...] = (
    Shape(100, 1, 64),
    Shape(100, 16, 64),
    Shape(100, 64, 64),
    Shape(100, 16, 128),
    Shape(100, 64, 128),
    Shape(100, 16, 256),
    Shape(100, 64, 256),
    Shape(100, 64, 512),
    Shape(50, 64, 1024),
)
QUICK_SHAPES: tuple[Shape, ...] = (Shape(20, 1, 64), Shape(20, 16, 64))
STREAM_SHAPE = Shape(1, 1, 128)

# A gigabyte of float32: a tensor larger than this measures the memory, not the cell.
LARGEST = 2**28

PASSES: tuple[str, ...] = ("train", "infer", "stream")
# Our own lstm, its time scaled to the work of the cell: to its products alone, or to all of its operations.
PER_WORK: tuple[str, ...] = ("lstm/flop", "lstm/op")
PEERS: tuple[str, ...] = ("torch.nn", "eager-loop", "jax", *PER_WORK, "copy", "torchrecurrent")


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read `16x64,50x64x1024`: BxH with T = 100, or TxBxH; shapes are separated by commas.

    Raises ShapeError where a shape is not two or three positive whole numbers.
    """
    shapes: list[Shape] = []
    for item in _items(text):
        if not re.fullmatch(r"\d+(x\d+){1,2}", item, flags=re.ASCII):
            raise ShapeError(f"shape {item!r} is not BxH or TxBxH; write for example 16x64 or 100x16x64.")
        sizes = [int(size) for size in item.split("x")]
        if min(sizes) < 1:
            raise ShapeError(f"shape {item!r} holds a zero; every one of T, B and H must be at least 1.")
        shape = Shape(*sizes) if len(sizes) == 3 else Shape(100, *sizes)
        if shape.T * shape.B * shape.H > LARGEST or shape.H * shape.H > LARGEST:
            raise ShapeError(f"shape {item!r} is too large to be measured; keep T*B*H and H*H under 2**28.")
        if shape not in shapes:
            shapes.append(shape)
    if not shapes:
        raise ShapeError("no shape was given; write for example 16x64 or 100x16x64.")
    return tuple(shapes)


def parse_names(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """Read names separated by commas; raise DataError, with the nearest one, for a name not in `known`."""
    names: list[str] = []
    for item in _items(text):
        if item not in known:
            near = difflib.get_close_matches(item, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"unknown {what} {item!r}; {hint}Known are: {', '.join(known)}.")
        if item not in names:
            names.append(item)
    if not names:
        raise DataError(f"no {what} was given; choose from: {', '.join(known)}.")
    return tuple(names)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
