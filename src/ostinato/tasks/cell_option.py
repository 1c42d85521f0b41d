"""What `--cell` may say: a name of the catalogue, or a cell in a file of one's own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CellError, ShapeError

__all__ = ["find_cell", "parse_init", "parse_sizes"]


def find_cell(text: str) -> Any:
    """The cell that an option names.

    Args:
        text: a name of the catalogue, such as `lstm`, with options and transforms, such as `zoneout(lstm, 0.1)`, or
            `FILE.py:NAME`.

    Raises:
        CellError: there is no such cell, or its file cannot be run.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        from ..named import named

        if text.endswith(".py"):
            raise CellError(f"--cell {text} names a file and no cell in it; write --cell {text}:NAME.")
        return named(text)
    held = _run(Path(file))
    from ..lang import Cell

    found = held.get(name)
    if not isinstance(found, Cell):
        cells = ", ".join(key for key, value in held.items() if isinstance(value, Cell)) or "none"
        raise CellError(f"{file} has no cell {name!r}; its cells are: {cells}. A cell is a function under @cell.")
    return found


def parse_sizes(given: Sequence[str], cell: Any) -> dict[str, int]:
    """The numbers of a cell's own size symbols, as `--size P=32 --size Q=8` gives them.

    Raises:
        ShapeError: not NAME=NUMBER, or a size that the cell has is missing.
    """
    sizes: dict[str, int] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not (name.isidentifier() and equals and number.isdecimal() and int(number) > 0):
            raise ShapeError(f"--size {text} is not NAME=NUMBER; write, for example, --size P=32.")
        sizes[name] = int(number)
    missing = [symbol for symbol in cell.program().symbols if symbol not in ("D", "H", *sizes)]
    if missing:
        raise ShapeError(f"cell {cell.name} has a size {missing[0]} of its own; pass --size {missing[0]}=NUMBER.")
    return sizes


def parse_init(given: Sequence[str]) -> dict[str, str]:
    """How parameters start, as `--init "b_f=chrono(784)" --init "U_*=0"` gives it; the rules are read later.

    Raises:
        CellError: not NAME=RULE.
    """
    rules: dict[str, str] = {}
    for text in given:
        name, equals, rule = text.partition("=")
        if not (name and equals and rule):
            raise CellError(f"--init {text} is not NAME=RULE; write, for example, --init 'b_f=chrono(784)'.")
        rules[name.strip()] = rule.strip()
    return rules


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CellError(f"there is no file {path} (looked from {Path.cwd()}); check the name in --cell.")
    name = f"_cells_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise CellError(f"{path} cannot be run as Python; check the name in --cell.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: a dataclass in the file asks for it
    try:
        spec.loader.exec_module(module)
    except CellError:
        raise
    except Exception as error:
        line = _line(error, path)
        raise CellError(f"{path}{line} could not be run: {type(error).__name__}: {error}.") from error
    return vars(module)


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno},"
    trace, line = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.resolve()):
            line = f", line {trace.tb_lineno},"
        trace = trace.tb_next
    return line
