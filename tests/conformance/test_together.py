"""All threads on one part: what few sequences and large weights get, here forced upon every size."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import ostinato
from agreement import Run, compare
from laws import CELLS, THOROUGH, in_turn, needs_c
from measured import build, expected, inputs, measure, ragged, states_for
from ostinato.backends.c import CBackend, kernel
from programs import draw
from tolerances import assert_agree

pytestmark = needs_c

SHAPES = [(1, 1, 1, 1), (5, 3, 3, 1), (4, 5, 17, 16), (6, 2, 63, 63), (9, 4, 3, 100), (30, 7, 33, 40)]


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that work so whatever the size of the weights, with three threads."""
    monkeypatch.setenv("OSTINATO_CFLAGS", f"-DTOGETHER_BYTES=0 {'-O1' if THOROUGH else '-O0'}")
    monkeypatch.setattr(sys.modules["ostinato.runtime.choose"], "_C", CBackend())
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def check(cell: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    steps, batch, width, hidden = shape
    layer = build(cell, width, hidden, "c", dtype, bidirectional=True)
    x, state = inputs(steps, batch, width, dtype), states_for(layer, batch, dtype)
    whole = expected(layer, x)
    assert_agree(measure(layer, x), whole, dtype)
    lengths = ragged(steps, batch)
    assert_agree(measure(layer, x, state, lengths), expected(layer, x, state, lengths), dtype)
    with torch.no_grad():
        output, _ = layer(x)
    assert_agree({"output": output}, {"output": whole["output"]}, dtype)


@pytest.mark.parametrize(("cell", "dtype"), in_turn(CELLS))
def test_values_and_gradients(cell: Any, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        check(cell, shape, dtype)


def test_random_programs() -> None:
    runs = (
        Run(3, 2, 3, 5, threads=3),
        Run(4, 5, 17, 16, bidirectional=True, lengths=True, threads=2),
        Run(2, 9, 7, 33, state=False, threads=5),
    )
    compared = 0
    count = 40 if THOROUGH else 8
    for number in range(count):
        verdict = compare(draw(random.Random(f"together:{number}").randrange), "c", runs=runs)
        assert verdict.wrong == []
        compared += verdict.compared
    assert compared >= 1.5 * count


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_threads_may_change_between_forward_and_backward(before: int, after: int) -> None:
    layer = build(ostinato.cells.lstm, 5, 9, "c")
    x = inputs(6, 7, 5, torch.float64).requires_grad_()
    sources = [x, *layer.parameters()]
    for lengths in (None, ragged(6, 7)):
        torch.set_num_threads(1)
        meant = torch.autograd.grad(layer(x, lengths=lengths)[0].square().sum(), sources)
        torch.set_num_threads(before)
        loss = layer(x, lengths=lengths)[0].square().sum()
        torch.set_num_threads(after)
        found = torch.autograd.grad(loss, sources)
        assert_agree({str(k): g for k, g in enumerate(found)}, {str(k): g for k, g in enumerate(meant)}, torch.float64)


def test_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a forked child, where the pool is gone."""
    monkeypatch.setattr(kernel, "_forks", [True])
    for param in in_turn(CELLS):  # the kernels of the test of all shapes
        cell, dtype = param.values
        check(cell, (9, 4, 3, 20), dtype)


@pytest.mark.parametrize("come", [1, 2])
def test_fewer_threads_than_asked_for(come: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool may give fewer: within another parallel region, or under a limit."""
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    pool, size = kernel._team()
    asked: list[int] = []

    def fewer(work: int, data: int, threads: int, flags: int) -> None:
        asked.append(threads)
        signature(pool)(work, data, min(come, threads), flags)

    limited = signature(fewer)
    address = ctypes.cast(limited, ctypes.c_void_p).value
    monkeypatch.setattr(kernel, "_team", lambda: (address, size))
    for param in in_turn(CELLS):
        cell, dtype = param.values
        check(cell, (9, 4, 3, 20), dtype)
    assert max(asked) == 3
