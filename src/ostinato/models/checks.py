"""What models are given, checked when they are made and where numbers alone cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ProgramError, ShapeError
from ..nn.checks import Lengths, lengths_tensor

__all__ = ["check_rates", "entry", "real_steps", "with_backend"]


def check_rates(**rates: Any) -> None:
    """Each is a probability of dropout.

    Raises:
        ShapeError: one is not.
    """
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise ShapeError(f"{name} is {rate!r}; it is a probability: pass 0 <= {name} < 1.")


def real_steps(x: Tensor, lengths: Lengths) -> Tensor:
    """Which steps of x [T, B, ...] are no padding: [T, B], of truth values, where x is."""
    own = lengths_tensor(lengths, x.shape[1], x.shape[0]).to(x.device)
    return torch.arange(x.shape[0], device=x.device).unsqueeze(1) < own


def entry(spec: Any, name: str, kinds: Sequence[str] = ()) -> Any:
    """An entry of the spec of a model, one of `kinds` if they are given.

    Raises:
        ProgramError: it is missing, or another.
    """
    if not isinstance(spec, Mapping) or name not in spec:
        got = f"has no {name!r}" if isinstance(spec, Mapping) else f"is {type(spec).__name__}"
        raise ProgramError(f"the spec of a model {got}; give what spec() of a model wrote.")
    value = spec[name]
    if kinds and value not in kinds:
        raise ProgramError(
            f"the spec of a model has {name} {value!r}, this version knows {', '.join(kinds)}; read it with the "
            "version that wrote it."
        )
    return value


def with_backend(layers: Any, backend: str | None) -> Any:
    """The spec of layers, run by this backend; None keeps the one they were built with."""
    return layers if backend is None or not isinstance(layers, Mapping) else {**layers, "backend": backend}
