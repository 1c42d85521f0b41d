"""Elementwise functions of the compiled backends over all numbers there are, held against float64."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from device_laws import quiet
from laws import needs_c
from ostinato import RNN, cell

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
WHERE = [
    pytest.param("c", torch.float32, marks=needs_c, id="c-float32"),
    pytest.param("c", torch.float64, marks=needs_c, id="c-float64"),
    pytest.param("triton", torch.float32, marks=needs_triton, id="triton-float32"),
]
FUNCTIONS = ("exp", "log", "sigmoid", "softplus", "tanh", "sin", "cos", "sqrt", "floor", "abs", "relu")
WIDTH = 1024
ULPS = 4.0


def reference(name: str, x: Tensor) -> Tensor:
    """In float64; softplus as its definition has it, where torch's own is linear from 20 on."""
    if name == "softplus":
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))
    return getattr(torch, name)(x)


def sweep(dtype: torch.dtype) -> Tensor:
    """Bit patterns from one end to the other, so denormals, infinities and NaN as well, and the usual ones densely."""
    if dtype == torch.float32:
        every = torch.arange(-(2**31), 2**31, 9973).to(torch.int32).view(dtype)
    else:
        steps = torch.arange(-(2**21), 2**21, 13, dtype=torch.int64)
        every = (steps * 2**42 + (steps * 6364136223846793005 & (2**42 - 1))).view(dtype)
    ends = [0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan")]
    near = [torch.linspace(-w, w, 100_001, dtype=torch.float64) for w in (1.0, 20.0, 120.0, 800.0, 3000.0)]
    turns = torch.arange(-4000, 4001, dtype=torch.float64) * (torch.pi / 2)
    x = torch.cat([torch.tensor(ends, dtype=dtype), every, *(n.to(dtype) for n in (*near, turns))])
    return x[: len(x) // WIDTH * WIDTH]


def apply(name: str, x: Tensor, backend: str) -> Tensor:
    """The function of many numbers, by a kernel."""

    @cell(sizes={"x": "H"})
    def own(p: Any, x: Any, h: Any) -> Any:
        return getattr(ostinato, name)(x)

    layer = RNN(own, WIDTH, WIDTH, backend=backend, dtype=x.dtype)
    with torch.no_grad(), quiet() if backend == "triton" else nullcontext():
        return layer(x.view(1, -1, WIDTH))[0].flatten()


@pytest.mark.parametrize(("backend", "dtype"), WHERE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_exact_to_a_few_last_digits(name: str, backend: str, dtype: torch.dtype) -> None:
    """Whatever it is of; of sigmoid and softplus what is less than a normal number may be 0."""
    x = sweep(dtype)
    found, want = apply(name, x, backend), reference(name, x.double())
    rounded = want.to(dtype)
    assert torch.equal(found.isnan(), rounded.isnan())
    number = rounded.isfinite()
    assert torch.equal(found[~number].nan_to_num(7.0), rounded[~number].nan_to_num(7.0)), "infinity of another sign"
    size = rounded[number].abs()
    ulp = (torch.nextafter(size, torch.full_like(size, float("inf"))) - size).double()
    error = (found[number].double() - want[number]).abs()
    allowed = ULPS * ulp + (torch.finfo(dtype).tiny if name in ("sigmoid", "softplus") else 0.0)
    worst = int((error / allowed).nan_to_num(0.0).argmax())
    message = f"{name}({x[number][worst]:.9g}) is {found[number][worst]:.9g}, not {want[number][worst]:.9g}"
    assert bool((error <= allowed).all()), message


@needs_c
@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_of_a_number_and_of_its_negative_at_once(name: str) -> None:
    """They are computed from one exponential."""
    function = getattr(ostinato, name)

    @cell(sizes={"x": "H"})
    def both(p: Any, x: Any, h: Any) -> Any:
        return function(x) - 2.0 * function(-x)

    x = torch.linspace(-30, 30, 50 * 7, dtype=torch.float64).view(1, 50, 7)
    found, _ = RNN(both, 7, 7, backend="c", dtype=torch.float64)(x)
    torch.testing.assert_close(found, reference(name, x) - 2.0 * reference(name, -x), rtol=1e-14, atol=1e-15)
