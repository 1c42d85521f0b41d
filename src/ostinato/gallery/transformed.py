"""The transforms: what their docstrings say, and what they make of a small cell."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

from .. import cells, transforms
from ..ir import Program
from ..lang import Cell
from .facts import Text, read

_EXAMPLES: dict[str, tuple[Callable[[], Cell], ...]] = {
    "layer_norm": (lambda: transforms.layer_norm(cells.elman),),
    "batch_norm": (lambda: transforms.batch_norm(cells.elman, 100),),
    "zoneout": (
        lambda: transforms.zoneout(cells.gru, 0.1),
        lambda: transforms.zoneout(transforms.layer_norm(cells.lstm), 0.1),
    ),
    "variational_dropout": (lambda: transforms.variational_dropout(cells.gru, input=0.2, output=0.2, state=0.2),),
    "recurrent_dropout": (lambda: transforms.recurrent_dropout(cells.lstm, 0.2),),
    "weight_drop": (lambda: transforms.weight_drop(cells.elman, 0.2),),
    "residual": (lambda: transforms.residual(cells.elman), lambda: transforms.residual(cells.elman, over="time")),
    "deep_transition": (lambda: transforms.deep_transition(cells.elman, 2),),
    "multiplicative_integration": (lambda: transforms.multiplicative_integration(cells.elman),),
    "skip_in_time": (lambda: transforms.skip_in_time(cells.gru, 3),),
}


@dataclass(frozen=True)
class Transformed:
    """One transform: its arguments as Python has them, its docstring, its reference, (call, Program) of examples."""

    name: str
    signature: str
    text: Text
    reference: str
    examples: tuple[tuple[str, Program], ...]


def transformed() -> list[Transformed]:
    """Every transform of the library, in the order of its names."""
    found: list[Transformed] = []
    for name in transforms.__all__:
        function = getattr(transforms, name)
        doc = str(function.__doc__ or "")
        dated = re.search(r"\(([^()]*?\b(?:19|20)\d\d[^()]*)\)", doc)
        made = [example() for example in _EXAMPLES.get(name, ())]
        examples = tuple((cell.name, cell.program()) for cell in made)
        reference = " ".join(dated[1].split()) if dated else ""
        found.append(Transformed(name, _signature(function), read(doc), reference, examples))
    return found


def _signature(function: Callable[..., Cell]) -> str:
    """``zoneout(cell: Cell, rate: float | Mapping[str, float])``."""
    given = inspect.signature(function).parameters.values()
    told = (f"{p.name}: {p.annotation}{'' if p.default is p.empty else f' = {p.default!r}'}" for p in given)
    return f"{function.__name__}({', '.join(told)})"
