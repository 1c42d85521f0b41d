"""The tasks: each a config, how its data are read, a model, measures and pictures; the loop is one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import find_learning_rate, resume, train
    from .loading import load_model
    from .repeating import Repeated, repeat
    from .run import Run
    from .text.sampling import Sampler, beam_search, generate
    from .use import evaluate, predict

__all__ = [
    "Repeated",
    "Run",
    "Sampler",
    "beam_search",
    "evaluate",
    "find_learning_rate",
    "generate",
    "load_model",
    "predict",
    "repeat",
    "resume",
    "train",
]

_HOMES = {
    "Repeated": "repeating",
    "Run": "run",
    "Sampler": "text.sampling",
    "beam_search": "text.sampling",
    "evaluate": "use",
    "find_learning_rate": "api",
    "generate": "text.sampling",
    "load_model": "loading",
    "predict": "use",
    "repeat": "repeating",
    "resume": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    """Load a name's file when the name is asked for: the command line's help reads configs alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
