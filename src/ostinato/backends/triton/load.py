"""Rendered text as a module: Triton reads the source of what it compiles from a file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType

from .form import Form
from .layout import Layout

__all__ = ["Rendered", "load"]


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    """A folder of this process's own, which goes with it: nobody else can write what is run from it."""
    if not _kept or not Path(_kept[-1].name).is_dir():  # a forked process took it along, or old files were cleaned away
        _kept.append(tempfile.TemporaryDirectory(prefix="ostinato-triton-", ignore_cleanup_errors=True))
    return Path(_kept[-1].name)


@lru_cache(maxsize=512)
def load(text: str) -> ModuleType:
    """The module of a rendered text."""
    name = f"ostinato_kernel_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    path = _folder() / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Rendered:
    """What is rendered of a Plan, and its module once it is asked for.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
        text: the module's.
    """

    def __init__(self, layout: Layout, form: Form, name: str, text: str) -> None:
        self.layout, self.form, self.name, self.text = layout, form, name, text

    @cached_property
    def module(self) -> ModuleType:
        """The module of the text."""
        return load(self.text)

    def clear(self) -> None:
        """Let go of memory that is kept from one call to the next."""
