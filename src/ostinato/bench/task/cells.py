"""Which cells are measured: the catalogue's, and those that transforms make, under the names the table prints."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache

from ... import cells, transforms
from ...errors import CellError, DataError
from ...ir import Program
from ...lang import Cell

__all__ = ["GROUPS", "TRANSFORMED", "cell_named", "extra_sizes", "known_cell", "parse_cells"]

# One line for each: the rate is that of the paper or of its usual code, and changes no cost.
TRANSFORMED: dict[str, Callable[[], Cell]] = {
    "layer_norm(lstm)": lambda: transforms.layer_norm(cells.lstm),
    "layer_norm(gru)": lambda: transforms.layer_norm(cells.gru),
    "batch_norm(lstm)": lambda: transforms.batch_norm(cells.lstm, 100),
    "zoneout(lstm)": lambda: transforms.zoneout(cells.lstm, 0.1),
    "zoneout(layer_norm(lstm))": lambda: transforms.zoneout(transforms.layer_norm(cells.lstm), 0.1),
    "variational_dropout(lstm)": lambda: transforms.variational_dropout(cells.lstm, input=0.25, state=0.25),
    "recurrent_dropout(lstm)": lambda: transforms.recurrent_dropout(cells.lstm, 0.25),
    "weight_drop(lstm)": lambda: transforms.weight_drop(cells.lstm, 0.5),
    "residual(lstm)": lambda: transforms.residual(cells.lstm),
    "deep_transition(lstm)": lambda: transforms.deep_transition(cells.lstm, 2),
    "multiplicative_integration(lstm)": lambda: transforms.multiplicative_integration(cells.lstm),
    "skip_in_time(lstm)": lambda: transforms.skip_in_time(cells.lstm, 3),
}
# Names that stand for many.
GROUPS: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "catalogue": lambda: tuple(cells.catalogue()),
    "transforms": lambda: tuple(TRANSFORMED),
}


@lru_cache(maxsize=512)
def cell_named(name: str) -> Cell:
    """The cell of the catalogue, or of `TRANSFORMED`, that has this name.

    Raises:
        CellError: there is none; the message suggests the nearest.
    """
    if name in TRANSFORMED:
        return TRANSFORMED[name]()
    near = difflib.get_close_matches(name, TRANSFORMED, n=1, cutoff=0.7)
    if near and name not in cells.catalogue():
        raise CellError(f"the benchmark has no cell {name!r}; did you mean {near[0]!r}?")
    return cells.get(name)


def extra_sizes(program: Program, hidden_size: int) -> dict[str, int]:
    """Numbers for the sizes besides D and H: a projection, or a memory, of half the width."""
    return {size: max(1, hidden_size // 2) for size in program.symbols if size not in ("D", "H")}


def parse_cells(text: str) -> tuple[str, ...]:
    """Read names separated by commas, among them `catalogue` and `transforms` for all of these.

    Raises:
        CellError: an unknown name; the message suggests the nearest.
        DataError: there is no name.
    """
    names: list[str] = []
    for item in (item.strip() for item in text.split(",") if item.strip()):
        names += GROUPS[item]() if item in GROUPS else [item if item in TRANSFORMED else cell_named(item).name]
    if not names:
        raise DataError(f"no cell was given; choose from: {', '.join([*GROUPS, *cells.catalogue(), *TRANSFORMED])}.")
    return tuple(dict.fromkeys(names))


def known_cell(name: str) -> str:
    """The name of a cell of the catalogue, for argparse: another one ends the script, with the nearest."""
    try:
        return cells.get(name).name
    except CellError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
