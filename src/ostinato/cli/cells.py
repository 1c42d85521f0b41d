"""`ostinato cells`: the catalogue."""

from __future__ import annotations

__all__ = ["cells"]


def cells() -> None:
    """List the cells of the catalogue with their references."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..cells import catalogue
    from .console import is_terminal

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("cell", style="bold", no_wrap=True)
    table.add_column("states", no_wrap=True)
    table.add_column("what it is")
    table.add_column("reference")
    for name, cell in catalogue().items():
        table.add_row(name, ", ".join(cell.states), cell.summary, cell.reference)
    # What is piped has no edge to fold at.
    Console(width=None if is_terminal() else 160, markup=False, highlight=False).print(table)
