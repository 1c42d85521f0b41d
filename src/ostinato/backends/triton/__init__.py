"""The Triton backend: a Plan as kernels for a GPU."""

from __future__ import annotations

from .backend import TritonBackend
from .device import Facts, facts
from .form import Form
from .forms import candidates
from .kernel import TritonKernel
from .layout import Layout
from .sources import compiled, rendered
from .work import Work, work

__all__ = [
    "Facts",
    "Form",
    "Layout",
    "TritonBackend",
    "TritonKernel",
    "Work",
    "candidates",
    "compiled",
    "facts",
    "rendered",
    "work",
]
