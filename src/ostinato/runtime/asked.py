"""Which backend is asked for, by a layer and by the environment."""

from __future__ import annotations

import os

from ..errors import BackendError

CHOICES = ("auto", "c", "triton", "eager")


def check_choice(backend: str) -> None:
    """A BackendError unless `backend` is one of `CHOICES`."""
    if backend not in CHOICES:
        raise BackendError(f"there is no backend {backend!r}; choose one of {', '.join(CHOICES)}")


def asked(backend: str) -> str:
    """`backend`, or what OSTINATO_BACKEND says if it is "auto"."""
    if backend != "auto":
        return backend
    chosen = os.environ.get("OSTINATO_BACKEND") or "auto"
    if chosen not in CHOICES:
        raise BackendError(f"OSTINATO_BACKEND is {chosen!r}; set it to one of {', '.join(CHOICES)}")
    return chosen
