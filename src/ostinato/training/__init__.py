"""Training: one readable loop, checkpoints that are never torn, metrics, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import TrainConfig

if TYPE_CHECKING:
    from .loading import load_model
    from .report import Outcome, Reporter
    from .sampling import Sampler, generate
    from .text_run import resume_text, train_text

__all__ = [
    "Outcome",
    "Reporter",
    "Sampler",
    "TrainConfig",
    "generate",
    "load_model",
    "resume_text",
    "train_text",
]

_HOMES = {
    "Outcome": "report",
    "Reporter": "report",
    "Sampler": "sampling",
    "generate": "sampling",
    "load_model": "loading",
    "resume_text": "text_run",
    "train_text": "text_run",
}


def __getattr__(name: str) -> Any:
    """Load a name's file when the name is asked for: the command line's help reads `TrainConfig` alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
