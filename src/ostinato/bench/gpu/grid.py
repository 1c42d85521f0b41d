"""What is measured on a GPU, and in which order: where the time runs out, what matters least is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ...cells import catalogue
from ..peers.torch_nn import TORCH_MODULES
from ..task.shapes import Shape

__all__ = ["GRID", "PUBLISHED", "REHEARSAL", "Case", "Grid", "Stage", "stages"]

PASSES = ("infer", "train")  # forward; forward plus backward
# FlashRNN (Pöppel, Beck, Hochreiter 2024), an lstm at B = 16, T = 1024, bfloat16, one head of 768, on an H100: forward,
# and forward plus backward, in ms. Published, not measured here.
PUBLISHED: dict[str, dict[str, float]] = {
    "cuDNN": {"infer": 2.01, "train": 5.19},
    "FlashRNN, fused": {"infer": 4.87, "train": 13.61},
    "a loop in PyTorch": {"infer": 147.0, "train": 484.0},
}
# These first: several stages a step, a memory of its own size, sums over a vector, nothing but pointwise work.
FIRST = ("gru", "gru_reset_after", "full_peephole_lstm", "mut1", "elman", "slstm", "projected_lstm", "lmu", "sru")


@dataclass(frozen=True)
class Case:
    """One cell at one shape, in one dtype and pass, and who stands beside it.

    tuned: forms of our kernels are measured before one is chosen; else the model chooses, or what was measured before.
    """

    stage: str
    cell: str
    shape: Shape
    dtype: str
    pass_: str
    peers: tuple[str, ...]
    tuned: bool = False

    def __str__(self) -> str:
        shape = self.shape
        return f"{self.cell} B={shape.B} H={shape.H} T={shape.T} {self.dtype} {self.pass_}"

    @property
    def key(self) -> tuple[object, ...]:
        """What it is a measurement of."""
        return self.cell, self.shape, self.dtype, self.pass_

    @property
    def kernels(self) -> Case:
        """What has its kernels: the length of a sequence is an argument."""
        shape = Shape(min(self.shape.T, 3), self.shape.B, self.shape.H)
        return Case("compile", self.cell, shape, self.dtype, self.pass_, (), self.tuned)


@dataclass(frozen=True)
class Grid:
    """The shapes, as the issue of speed has them.

    Args:
        batches, widths, steps, dtypes: of the whole grid.
        begin, middle: (T, B) of the parts of it that come first.
        published: where the published figures are of; others: where every cell of the catalogue is measured.
    """

    batches: tuple[int, ...]
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    dtypes: tuple[str, ...]
    begin: tuple[int, int]
    middle: tuple[int, int]
    published: tuple[Shape, str]
    others: tuple[tuple[Shape, str], ...]

    @property
    def size(self) -> int:
        """Cases of one cell over the whole grid."""
        return len(self.batches) * len(self.widths) * len(self.steps) * len(self.dtypes) * len(PASSES)


GRID = Grid(
    batches=(1, 16, 64, 256),
    widths=(64, 128, 256, 512, 768, 1024, 2048),
    steps=(128, 1024),
    dtypes=("float32", "bfloat16"),
    begin=(1024, 16),
    middle=(128, 64),
    published=(Shape(1024, 16, 768), "bfloat16"),
    others=((Shape(128, 16, 256), "float32"), (Shape(128, 64, 512), "bfloat16")),
)
# For a machine without a GPU: that everything runs. Triton 3.6's interpreter cannot multiply bfloat16 numbers.
REHEARSAL = Grid(
    batches=(2, 3),
    widths=(8,),
    steps=(4,),
    dtypes=("float32",),
    begin=(4, 2),
    middle=(4, 3),
    published=(Shape(4, 2, 12), "float32"),
    others=((Shape(3, 2, 8), "float32"),),
)


@dataclass(frozen=True)
class Stage:
    """Cases that are compiled together, and then measured."""

    title: str
    cases: tuple[Case, ...]


def stages(grid: Grid = GRID, cells: Sequence[str] | None = None, tune: str = "first") -> list[Stage]:
    """All that is to be measured, the most important first; no case twice.

    tune: which cases are tuned: all, none, or the first two parts. Compiling all forms takes as many times as long.

    The order: the shape of the published figures with every peer; lstm at T = 1024, B = 16 over all widths; every cell
    at one shape; gru_reset_after (torch.nn's) as lstm; lstm at T = 128, B = 64; every cell at another shape; the rest
    of lstm's grid, T = 128 before T = 1024; the rest of the other's; every cell forward alone.
    """
    every = [*(name for name in FIRST if name in catalogue()), *catalogue()]
    wanted = [name for name in dict.fromkeys(every) if cells is None or name in cells]
    found: list[Stage] = []
    seen: set[object] = set()

    def add(title: str, cases: Sequence[Case]) -> None:
        fresh: list[Case] = []
        for case in cases:
            if case.key not in seen and case.cell in wanted:
                seen.add(case.key)
                fresh.append(case)
        if fresh:
            found.append(Stage(title, tuple(fresh)))

    def part(title: str, cell: str, shapes: Sequence[tuple[int, int]], early: bool = False) -> None:
        widths, tuned = product(shapes, grid.widths, grid.dtypes, PASSES), tune == "all" or (tune == "first" and early)
        add(title, [Case(title, cell, Shape(T, B, H), dtype, p, ("cudnn",), tuned) for (T, B), H, dtype, p in widths])

    def others(title: str, at: tuple[Shape, str], pass_: str) -> None:
        shape, dtype = at
        names = ["lstm", *wanted]
        add(title, [Case(title, name, shape, dtype, pass_, _beside(name), tune == "all") for name in names])

    shape, dtype = grid.published
    title = "where figures are published"
    beside = ("cudnn", "eager", "eager, graph")
    add(title, [Case(title, "lstm", shape, dtype, p, beside, tune != "none") for p in PASSES])
    rest = [(T, B) for T in grid.steps for B in grid.batches]
    part("lstm, first part", "lstm", [grid.begin], True)
    others("every cell", grid.others[0], "train")
    part("gru, first part", "gru_reset_after", [grid.begin])
    part("lstm, second part", "lstm", [grid.middle])
    for at in grid.others[1:]:
        others("every cell, elsewhere", at, "train")
    part("lstm, the rest", "lstm", rest)
    part("gru, the rest", "gru_reset_after", [grid.middle, *rest])
    others("every cell, forward", grid.others[0], "infer")
    return found


def _beside(cell: str) -> tuple[str, ...]:
    """Who stands beside a cell where all are measured."""
    vendor = ("cudnn",) if cell in TORCH_MODULES else ()
    return (*vendor, *(() if cell == "lstm" else ("lstm",)), "eager", "eager, graph")
