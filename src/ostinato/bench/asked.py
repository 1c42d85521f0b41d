"""What scripts of the folder `benchmarks` are given, where nothing but torch and Triton is installed."""

from __future__ import annotations

import argparse

from .. import cells
from ..errors import CellError

__all__ = ["known_cell"]


def known_cell(name: str) -> str:
    """The name of a cell of the catalogue, for argparse: another one ends the script, with the nearest."""
    try:
        return cells.get(name).name
    except CellError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
