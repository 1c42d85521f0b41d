"""The C backend."""

from __future__ import annotations

from .backend import CBackend
from .render import render

__all__ = ["CBackend", "render"]
