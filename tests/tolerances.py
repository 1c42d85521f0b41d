"""The one table of tolerances, by dtype. It is never loosened for one case.

Results are compared with eager in float64. An error is the greatest difference between two tensors over the
greatest magnitude in the expected one, or a tenth of the greatest among all expected values (or gradients) of
the run if that is more: a sum of terms that cancel is as exact as its terms are. Where all expected gradients of a
run are 0, such as where a constant state is centred, the values give their measure: rounding leaves dust of that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ostinato import Program


@dataclass(frozen=True)
class Tolerance:
    """Greatest relative error of values (outputs, states) and of gradients."""

    value: float
    gradient: float


TOLERANCES = {
    torch.float32: Tolerance(value=5e-6, gradient=2e-5),
    torch.bfloat16: Tolerance(value=1.6e-2, gradient=3.2e-2),  # 4 and 8 times its rounding
    torch.float16: Tolerance(value=2e-3, gradient=4e-3),  # and as many times its own
    torch.float64: Tolerance(value=1e-13, gradient=1e-12),
}

SHARE = 0.1  # of the greatest magnitude in the run that a small tensor is measured by


def magnitude(value: Tensor | None) -> float:
    """The greatest finite magnitude, 0 if there is none."""
    if value is None:
        return 0.0
    finite = value.detach()[torch.isfinite(value.detach())]
    return float(finite.abs().max()) if finite.numel() else 0.0


def error(actual: Tensor, expected: Tensor, scale: float) -> float:
    """The greatest difference over `scale`; infinite if shapes differ, or NaN or inf stand elsewhere."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    a, e = actual.detach().double(), expected.detach().double()
    finite = torch.isfinite(e)
    if not torch.equal(finite, torch.isfinite(a)) or not torch.equal(a.isnan(), e.isnan()):
        return float("inf")
    if not torch.equal(a[~finite].nan_to_num(0.0), e[~finite].nan_to_num(0.0)):
        return float("inf")  # inf of the other sign
    worst = float((a - e)[finite].abs().max()) if finite.any() else 0.0
    return worst / scale if scale else (0.0 if worst == 0.0 else float("inf"))


def errors(actual: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None]) -> dict[str, float]:
    """The error of every result that both hold."""
    whole = {
        kind: SHARE * max([magnitude(v) for n, v in expected.items() if is_gradient(n) == kind], default=0.0)
        for kind in (True, False)
    }
    whole[True] = whole[True] or whole[False]
    found: dict[str, float] = {}
    for name, e in expected.items():
        a = actual.get(name)
        if a is not None and e is not None:
            found[name] = error(a, e, max(magnitude(e), whole[is_gradient(name)]))
    return found


def is_gradient(name: str) -> bool:
    """The names of gradients start with "grad"."""
    return name.startswith("grad")


def allowed(name: str, dtype: torch.dtype) -> float:
    """The table's entry for a result."""
    entry = TOLERANCES[dtype]
    return entry.gradient if is_gradient(name) else entry.value


def differences(
    actual: Mapping[str, Tensor | None],
    expected: Mapping[str, Tensor | None],
    dtype: torch.dtype,
    conditioning: Mapping[str, float] | None = None,
) -> list[str]:
    """One line for every result that is missing, or off by more than the table allows.

    Args:
        conditioning: for programs drawn at random, how far eager itself is off in this dtype. No kernel can
            do better than the equations allow.
    """
    lines: list[str] = []
    found = errors(actual, expected)
    for name in sorted({*actual, *expected}):
        a, e = actual.get(name), expected.get(name)
        if a is None or e is None:
            if a is not e:
                lines.append(f"{name}: {'missing' if a is None else 'there, but none is expected'}")
            continue
        if a.dtype != dtype:
            lines.append(f"{name}: is {a.dtype}, expected {dtype}")
        limit = allowed(name, dtype)
        if conditioning is not None:
            limit += 10 * conditioning.get(name, 0.0)
        if not found[name] <= limit:
            shape = "" if a.shape == e.shape else f", shape {list(a.shape)} instead of {list(e.shape)}"
            lines.append(f"{name}: error {found[name]:.2e}, allowed {limit:.1e}{shape}")
    return lines


KINKS = ("relu", "abs", "maximum", "minimum", "where", "floor")


def kinked(program: Program) -> bool:
    """Whether the cell has a derivative that jumps."""
    return any(node.op in KINKS for node in program.nodes)


def smooth(results: Mapping[str, Tensor | None], program: Program) -> dict[str, Tensor | None]:
    """What bfloat16 can be compared by: of a cell with a kink the values alone, since a rounded number may lie on its
    other side, where the derivative is another.
    """
    return {n: v for n, v in results.items() if not (kinked(program) and is_gradient(n))}


def assert_agree(
    actual: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], dtype: torch.dtype
) -> None:
    """Every result is there and within the table."""
    lines = differences(actual, expected, dtype)
    assert not lines, "\n".join(lines)
