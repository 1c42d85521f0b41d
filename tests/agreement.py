"""Whether a cell drawn at random gives through a backend what it gives in eager, gradients included."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from measured import ThroughPacked, build, doubled, inputs, measure, ragged, reference, states_for
from ostinato import RNN, BackendError, Cell, CompileError
from programs import Drawn
from tolerances import differences, errors, is_gradient, magnitude

Results = dict[str, Tensor | None]

HUGE = 1e6  # a program whose numbers grow beyond this says nothing about rounding
UNSURE = 1e-3  # nor does one that eager in float32 gets wrong by this: a comparison fell the other way


@dataclass(frozen=True)
class Run:
    """A shape and a way to run a layer."""

    steps: int
    batch: int
    width: int
    hidden: int
    bidirectional: bool = False
    lengths: bool = False
    packed: bool = False
    state: bool = True
    threads: int = 1


RUNS = (
    Run(3, 2, 3, 5),
    Run(4, 5, 17, 16, bidirectional=True, lengths=True),
    Run(1, 1, 1, 1, state=False),
    Run(2, 9, 7, 33, state=False, threads=3),
    Run(5, 6, 4, 9, bidirectional=True, packed=True, threads=2),
)


@dataclass
class Verdict:
    """What comparing a program gave.

    Args:
        wrong: for each run that is off a line that names it, and a line for each result.
        refused: why the backend does not take the program.
        compared: how many runs could be compared.
    """

    wrong: list[str]
    refused: str = ""
    compared: int = 0


def compare(
    drawn: Drawn, backend: str, dtypes: Sequence[torch.dtype] = (torch.float64,), runs: Sequence[Run] = RUNS
) -> Verdict:
    """Run a program everywhere and compare it with eager in float64.

    Optimising costs most of the time, so every eighth program alone is compiled as users' programs are.
    """
    if zlib.crc32(drawn.source.encode()) % 8 == 0:
        return _everywhere(drawn.cell(), backend, dtypes, runs)
    before = os.environ.get("OSTINATO_CFLAGS", "")
    os.environ["OSTINATO_CFLAGS"] = f"{before} -O0"
    try:
        return _everywhere(drawn.cell(), backend, dtypes, runs)
    finally:
        os.environ["OSTINATO_CFLAGS"] = before


def _everywhere(cell: Cell, backend: str, dtypes: Sequence[torch.dtype], runs: Sequence[Run]) -> Verdict:
    verdict = Verdict([])
    for dtype in dtypes:
        for run in runs:
            torch.set_num_threads(run.threads)
            try:
                lines = _compare(cell, run, backend, dtype)
            except CompileError as error:
                verdict.wrong += [f"{dtype}, {run}", f"CompileError: {error}"]
                return verdict
            except BackendError as refusal:
                verdict.refused = str(refusal)
                return verdict
            finally:
                torch.set_num_threads(1)
            if lines is not None:
                verdict.compared += 1
                verdict.wrong += [f"{dtype}, {run}", *lines] if lines else []
    return verdict


def _compare(cell: Cell, run: Run, backend: str, dtype: torch.dtype) -> list[str] | None:
    """The differences; None where the numbers are no test."""
    width = run.hidden if cell.program().input_size == "H" else run.width
    layer = build(cell, width, run.hidden, backend, dtype, bidirectional=run.bidirectional)
    x = inputs(run.steps, run.batch, width, dtype)
    state = states_for(layer, run.batch, dtype) if run.state else None
    lengths = ragged(run.steps, run.batch) if run.lengths or run.packed else None
    if run.packed and lengths is not None:
        lengths = [max(1, n) for n in lengths]

    def laid(each: RNN) -> RNN | ThroughPacked:
        return ThroughPacked(each) if run.packed else each

    # masks are drawn for the rows there are: then eager is packed too
    twin = reference(layer)
    meant = measure(laid(twin) if cell.program().masks else twin, x.double(), doubled(state), lengths)
    if max([magnitude(v) for v in meant.values()], default=0.0) > HUGE:
        return None
    narrow = build(cell, width, run.hidden, "eager", torch.float32, bidirectional=run.bidirectional)
    single = measure(laid(narrow), x.float(), None if state is None else tuple(s.float() for s in state), lengths)
    slack = errors(single, meant)
    if max(slack.values(), default=0.0) > UNSURE:
        return None
    ratio = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    conditioning = {name: value * ratio for name, value in slack.items()}
    lines = differences(*_zeros(measure(laid(layer), x, state, lengths), meant, dtype), dtype, conditioning)
    with torch.no_grad():
        bare = measure(laid(layer), x, state, lengths, wants=lambda n: False)
    values = {n: v for n, v in meant.items() if not is_gradient(n)}
    return lines + [f"without gradients: {line}" for line in differences(bare, values, dtype, conditioning)]


def _zeros(actual: Results, expected: Results, dtype: torch.dtype) -> tuple[Results, Results]:
    """No gradient and a gradient of zeros mean the same: a value that nothing depends on may be left out."""
    left, right = dict(actual), dict(expected)
    for here, there, kind in ((left, right, torch.float64), (right, left, dtype)):
        for name, value in here.items():
            if value is not None and is_gradient(name) and there.get(name) is None:
                there[name] = torch.zeros_like(value, dtype=kind)
    return left, right
