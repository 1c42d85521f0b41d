"""Cells by what they are called: a name of the catalogue, options, transforms around it."""

from __future__ import annotations

import ast
import difflib
from typing import Any

from . import cells, transforms
from .errors import CellError, OstinatoError
from .lang import Cell


def named(text: str) -> Cell:
    """The cell that a text describes, as its name is printed: "lstm", "lstm(forget_bias=0.0)", "zoneout(gru, 0.1)".

    A text is read, not run: it holds names of the catalogue, of transforms and of their options, and plain values.

    Raises:
        CellError: there is no such cell, transform or option, or the text is something else.

    >>> named("zoneout(layer_norm(lstm), 0.1)").states
    ('h', 'c')
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise CellError(
            f"{text!r} does not name a cell; write a name of the catalogue, name(option=value), or transform(cell, ...)"
        ) from None
    found = _value(tree, text)
    if not isinstance(found, Cell):
        raise CellError(f"{text!r} is no cell; write a name of the catalogue, as in 'lstm'")
    return found


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return _cell(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _called(node.func.id, node, text)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # TypeError: a list as a key of a dict
        part = ast.get_source_segment(text.strip(), node)
        raise CellError(f"{part!r} in {text!r} is no plain value; write a name, a number or a text in quotes") from None


def _called(name: str, node: ast.Call, text: str) -> Any:
    """A transform of a cell, or a cell with options."""
    if name not in transforms.__all__:
        _cell(name)  # it is there
    given = [_value(argument, text) for argument in node.args]
    options = {str(k.arg): _value(k.value, text) for k in node.keywords}
    if name in transforms.__all__:
        try:
            return getattr(transforms, name)(*given, **options)
        except OstinatoError:  # a CellError is a TypeError too, and says all itself
            raise
        except TypeError as error:
            raise CellError(f"{text!r}: {error}; see the arguments with help(ostinato.transforms.{name})") from error
    if given:
        raise CellError(f"{text!r} gives {name} a value without a name; write {name}(option=value)")
    return _cell(name)(**options)


def _cell(name: str) -> Cell:
    near = difflib.get_close_matches(name, transforms.__all__, n=1, cutoff=0.7)
    if name in transforms.__all__ or (near and name not in cells.catalogue()):
        transform = near[0] if near else name
        raise CellError(f"there is no cell {name!r}; {transform} is a transform: write {transform}(cell, ...)")
    return cells.get(name)
