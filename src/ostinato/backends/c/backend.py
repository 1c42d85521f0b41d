"""The C backend: render, compile, cache, load."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import CacheError
from ...schedule import Plan
from . import cache, compiler
from .kernel import CKernel, CLibrary
from .memory import Memory
from .render import products, render

_SUFFIX = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}


class CBackend:
    """See `ostinato.backends.base.Backend`. float32 and float64 on the CPU, and bfloat16 products of float32."""

    name, title = "c", "C"

    def __init__(self) -> None:
        self._made: dict[Any, CLibrary] = {}  # by plan, dtype and the compiler's flags
        self._renew()
        if hasattr(os, "register_at_fork"):  # another thread may be compiling while this one forks
            os.register_at_fork(after_in_child=self._renew)
        self._memory = Memory()

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        if device.type != "cpu":
            return f"the tensors are on {device}, and this backend runs on the CPU"
        if dtype not in _SUFFIX:
            return f"the tensors are {dtype}, and this backend takes float32, float64, bfloat16 and float16"
        return None

    def compile(self, plan: Plan, dtype: torch.dtype, sizes: Sequence[int]) -> CKernel:
        """The kernel of a Plan; see `cache` for where it is kept."""
        key = (plan, dtype, *compiler.flags())
        library = self._made.get(key)
        if library is None:
            with self._lock:
                library = self._made.get(key)
                if library is None:
                    library = self._made[key] = self._load(plan, dtype)
        return CKernel(library, sizes)

    def _load(self, plan: Plan, dtype: torch.dtype) -> CLibrary:
        """Another process may trim the cache between finding a library and loading it: try once more."""
        try:
            return CLibrary(plan, dtype, self._library(plan, dtype), self._memory)
        except OSError as first:
            if isinstance(first, CacheError):
                raise
        try:
            return CLibrary(plan, dtype, self._library(plan, dtype), self._memory)
        except OSError as error:
            raise CacheError(
                f"a compiled kernel cannot be loaded ({error}); set XDG_CACHE_HOME to a folder that may hold programs"
            ) from error

    def _library(self, plan: Plan, dtype: torch.dtype) -> Path:
        kind = _SUFFIX[dtype]
        own, shared = render(plan), products()

        def build_shared(target: Path) -> None:
            _compile(shared, target, kind, None)

        def build(target: Path) -> None:
            """What all kernels share is compiled once; a kernel is linked with it."""
            _compile(own, target, kind, cache.fetch(_key(shared, kind), build_shared))

        return cache.fetch(_key(own + shared, kind), build)


def _compile(text: str, target: Path, kind: str, linked: Path | None) -> None:
    source = target.with_suffix(".c")
    source.write_text(text)
    compiler.compile_file(source, target, kind, linked)


def _key(source: str, kind: str) -> str:
    return hashlib.sha256(f"{source}\0{kind}\0{compiler.identity()}".encode()).hexdigest()[:40]
