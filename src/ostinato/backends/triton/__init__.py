"""The Triton backend: a Plan as kernels for a GPU."""

from __future__ import annotations

from .backend import TritonBackend
from .form import Form

__all__ = ["Form", "TritonBackend"]
