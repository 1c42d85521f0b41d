"""`scan` as torch.compile calls it: apart from its graph. To be imported while a graph is traced, not before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .scan import run_scan


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile's graph breaks here; where it may not (fullgraph=True), torch's error says why."""
    why = (
        "scan reads its step on symbols, which no graph can hold: leave out fullgraph=True, or write the step as a "
        "cell (ostinato.cell) and take ostinato.RNN, which compiles into one graph"
    )
    try:
        return torch.compiler.disable(function, reason=why)
    except TypeError:  # older versions of torch take no reason
        return torch.compiler.disable(function)


run = _apart(run_scan)
