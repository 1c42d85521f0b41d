"""Choosing a backend: what is asked for, what can run, and what is said when it cannot."""

from __future__ import annotations

import logging
import os
import warnings

import torch
from torch import Tensor

from ..backends.base import Backend, Kernel
from ..backends.c import CBackend
from ..backends.triton import TritonBackend
from ..errors import BackendError, CacheError, CompileError, UnsafeCacheError
from .step import Step

CHOICES = ("auto", "c", "triton", "eager")
_C = CBackend()
_TRITON = TritonBackend()
_log = logging.getLogger("ostinato")
_said: set[str] = set()


NARROW = (torch.bfloat16, torch.float16)


def products_of(x: Tensor) -> torch.dtype:
    """The dtype in which a kernel multiplies: bfloat16 for bfloat16 tensors, and for float32 ones under autocast."""
    dtype = x.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled("cpu") and x.device.type == "cpu":
        return torch.bfloat16 if torch.get_autocast_dtype("cpu") == torch.bfloat16 else dtype
    return torch.float32 if dtype == torch.float16 else dtype


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


def say_once(message: str) -> None:
    """Log that something fell back, once for each reason."""
    if message not in _said:
        _said.add(message)
        _log.info(message)


def choose(step: Step, backend: str, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The kernel that runs `step`; None for the eager backend. The choice is made once for each step.

    Raises:
        BackendError: the backend that is asked for cannot run this.
        UnsafeCacheError: the kernel cache is not safe to load code from.
    """
    key = (backend, device.type, dtype)
    if key not in step.kernels:
        named = asked(backend)
        step.kernels[key] = None if named == "eager" else _compiled(step, named, device, dtype)
    return step.kernels[key]


def _compiled(step: Step, name: str, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """By the backend of this name, or, for "auto", by the first that can.

    "auto" does not take the Triton backend: no GPU has run it yet.
    """
    plan = step.plan.anonymous()
    backends: tuple[Backend, ...] = (_C,) if name == "auto" else (_C, _TRITON)
    reasons: list[str] = []
    for backend in backends:
        if name not in ("auto", backend.name):
            continue
        reason = backend.refuses(plan, device, dtype)
        if reason is None:
            try:
                return backend.compile(plan, dtype, step.plan_sizes)
            except UnsafeCacheError:
                raise
            except (CompileError, CacheError) as error:
                if name != "auto":
                    raise
                warn_once(f"Ostinato runs on the slow eager backend: {error}")
                return None
        if name != "auto":
            raise BackendError(
                f"the {backend.title} backend cannot run {step.program.name}: {reason}; use backend='eager'"
            )
        reasons.append(f"{backend.title}: {reason}")
    say_once(f"{step.program.name} runs on the eager backend; {'; '.join(reasons)}")
    return None


def warn_once(message: str) -> None:
    """Warn that kernels cannot be compiled: once in a process, whatever the number of layers."""
    if "compile" not in _said:
        _said.add("compile")
        warnings.warn(message, RuntimeWarning, stacklevel=2)
