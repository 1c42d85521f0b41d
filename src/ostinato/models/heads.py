"""The heads by their names."""

from __future__ import annotations

from typing import Any

from .checks import entry
from .distributions import Gaussian, NegativeBinomial, StudentT
from .head import Head
from .quantiles import Point, Quantiles

__all__ = ["HEADS", "head_from_spec"]

HEADS: dict[str, type[Head]] = {head.kind: head for head in (Point, Gaussian, StudentT, NegativeBinomial, Quantiles)}


def head_from_spec(spec: Any) -> Head:
    """The head that a `spec` describes.

    Raises:
        ProgramError: the spec is damaged or of another version.

    >>> head_from_spec({"kind": "point", "error": "mae"})
    Point(error='mae', delta=1.0)
    """
    kind = HEADS[entry(spec, "kind", tuple(HEADS))]
    return kind(**{name: value for name, value in spec.items() if name != "kind"})
