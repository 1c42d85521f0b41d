"""What the laws go over: every cell, backend and shape, as parameters of tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import ostinato
from ostinato import Cell
from ostinato.ir import simplify
from ostinato.schedule import make_plan, split_prologue

# Laws go over every cell, transform, backend and shape, but of the combinations of these only over some, taken in turn.
# With OSTINATO_THOROUGH=1 they go over all, and many times as many programs are drawn.
THOROUGH = bool(os.environ.get("OSTINATO_THOROUGH"))
DTYPES = (torch.float32, torch.float64)
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
NO_COMPILER = "no C compiler on this machine (cc, gcc or clang): the C backend cannot be tested"


def backend_param(name: str) -> Any:
    """A backend as a test's parameter; skipped, visibly, where the machine cannot run it."""
    return pytest.param(name, marks=pytest.mark.skipif(name == "c" and COMPILER is None, reason=NO_COMPILER))


BACKENDS = [backend_param("eager"), backend_param("c")]
needs_c = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


def cells() -> dict[str, Cell]:
    """Every cell of the catalogue, and a variant for every option that is True or False, and for relu where tanh is.

    A preset has the options of the function it was made from: they are varied there.
    """
    found = dict(ostinato.cells.catalogue())
    for base in [c for c in found.values() if c.code is not None and c.code.co_name == c.name]:
        for option, value in base.options.items():
            if value == "tanh" or isinstance(value, bool):
                variant = base(**{option: "relu" if value == "tanh" else not value})
                found[variant.name] = variant
    return found


def features(cell: Cell) -> set[object]:
    """What a compiler can meet in a cell: operations, shapes, how values wait for one another."""
    program = simplify(cell.program())
    plan = make_plan(split_prologue(program).core)
    widths = {size: size for size in program.state_sizes.values()}
    return {
        *((node.op, len(node.shape)) for node in program.nodes),
        ("states", min(len(program.states), 4)),
        ("stages", plan.stages),
        ("input", program.input_size),
        ("output is a state", program.output in program.next_states),
        ("temporaries", bool(plan.temps)),
        ("prologue", split_prologue(program).trivial),
        ("fixed", bool(program.fixed)),
        *(("state of size", size) for size in widths),
    }


def cover(every: dict[str, Cell]) -> list[str]:
    """The names of a few cells that have between them all that any has; torch's own always."""
    chosen = ["elman", "lstm", "gru", "gru_reset_after"]
    known = {name: features(cell) for name, cell in every.items()}
    met = set[object]().union(*(known[name] for name in chosen))
    while True:
        best = max(every, key=lambda name: len(known[name] - met))
        if not known[best] - met:
            return chosen
        chosen.append(best)
        met |= known[best]


_ALL = cells()
EVERY = [pytest.param(c, id=name) for name, c in _ALL.items()]
CELLS = [pytest.param(_ALL[name], id=name) for name in cover(_ALL)]


def in_turn(given: Sequence[Any], values: Sequence[Any] = DTYPES, turn: int = 0) -> list[Any]:
    """The parameters, each together with one of the values in turn; thoroughly, with each."""
    found: list[Any] = []
    for k, param in enumerate(given):
        for value in values if THOROUGH else [values[(k + turn) % len(values)]]:
            one = value if hasattr(value, "marks") else pytest.param(value)
            name = str(*one.values).removeprefix("torch.")
            marks = [*param.marks, *one.marks]
            found.append(pytest.param(*param.values, *one.values, marks=marks, id=f"{param.id}-{name}"))
    return found


def across(given: Sequence[Any], shapes: Sequence[Any], values: Sequence[Any] = DTYPES) -> list[Any]:
    """(cell, shape, value): every cell at every shape, with one of the values in turn."""
    found: list[Any] = []
    for k, shape in enumerate(shapes):
        found += in_turn([pytest.param(*p.values, shape, id=f"{p.id}-{shape}") for p in given], values, k)
    return found


def others(shapes: Sequence[Any], count: int = 1) -> list[Any]:
    """(cell, shape) for the cells that are not among `CELLS`: a few of the shapes each, in turn."""
    own = {str(p.id) for p in CELLS}
    rest = [(name, each) for name, each in _ALL.items() if name not in own]
    return [
        pytest.param(each, shape, id=f"{name}-{shape}")
        for k, (name, each) in enumerate(rest)
        for shape in [shapes[(k * count + i) % len(shapes)] for i in range(count)]
    ]
