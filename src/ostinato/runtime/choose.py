"""Choosing a backend: what can run, what is said when it cannot, and what happens where a kernel fails."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any

import torch

from ..backends.base import Backend, Kernel, captured
from ..backends.c import CBackend
from ..backends.triton import TritonBackend, TritonKernel
from ..errors import BackendError, CacheError, LaunchError, StalledError, TooLargeError, UnsafeCacheError
from .asked import CHOICES, asked, check_choice
from .meant import reference
from .step import Step

__all__ = ["CHOICES", "FAILURES", "asked", "check_choice", "choose", "fall_back", "say_once", "warn_once"]

_C = CBackend()
_TRITON = TritonBackend()
_log = logging.getLogger("ostinato")
_said: set[str] = set()
_failed: set[Any] = set()  # kernels that "auto" takes no more, by plan, sizes, device and dtype

FAILURES = (BackendError, torch.OutOfMemoryError)
"""What a kernel may raise where it cannot run: to be told to `fall_back`."""


def say_once(message: str, about: str | None = None, level: int = logging.INFO) -> None:
    """Log that something fell back, once for each reason, or for each thing that it is `about`."""
    if (about or message) not in _said:
        _said.add(about or message)
        _log.log(level, message)


def choose(step: Step, backend: str, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The kernel that runs `step`; None for the eager backend. The choice is made once for each step.

    Args:
        dtype: of what is multiplied, see `dtypes.factors_of`.

    Raises:
        BackendError: the backend that is asked for cannot run this.
        UnsafeCacheError: the kernel cache is not safe to load code from.
    """
    key = (backend, device.type, dtype)
    if key not in step.kernels:
        named = asked(backend)
        remedy = "set OSTINATO_BACKEND to auto" if backend == "auto" else "use backend='auto'"
        step.kernels[key] = None if named == "eager" else _compiled(step, named, device, dtype, remedy)
    return step.kernels[key]


def _compiled(step: Step, name: str, device: torch.device, dtype: torch.dtype, remedy: str) -> Kernel | None:
    """By the backend of this name; for "auto" by that of the device, if it can. Triton's interpreter is for tests."""
    on_gpu = device.type == "cuda" if name == "auto" else name == "triton"
    backend: Backend = _TRITON if on_gpu else _C
    if name == "auto" and _failed and _identity(step, device, dtype) in _failed:
        return None
    plan = step.plan.anonymous()
    reason = backend.refuses(plan, device, dtype)
    if reason is not None:
        if name != "auto":
            raise BackendError(f"the {backend.title} backend cannot run {step.program.name}: {reason}; {remedy}")
        say_once(f"{step.program.name} runs on the eager backend; {backend.title}: {reason}")
        return None
    try:
        kernel = backend.compile(plan, dtype, step.plan_sizes)
        if isinstance(kernel, TritonKernel):
            kernel.reference = partial(reference, step)
        return kernel
    except UnsafeCacheError:
        raise
    except torch.OutOfMemoryError as error:
        if name != "auto":
            raise _out_of_memory(error) from error
        message = str(error)
    except (BackendError, CacheError) as error:
        if name != "auto":
            raise
        message = str(error)
    if backend is _C:
        warn_once(f"Ostinato runs on the slow eager backend: {message}")
    else:
        say_once(f"{step.program.name} runs on the slow eager backend: {message}", level=logging.WARNING)
    return None


def fall_back(
    step: Step, backend: str, device: torch.device, dtype: torch.dtype, error: Exception, for_good: bool = False
) -> None:
    """After a kernel failed, "auto" goes on with the eager backend, and says so once: for this call where memory was
    short or the call too large, else from now on, in every layer of these equations and sizes.

    Args:
        error: one of `FAILURES`.
        for_good: from now on, whatever the reason.

    Raises:
        BackendError: another backend than "auto" is asked for.
        StalledError: the error itself, if it is one: what an earlier call gave may be wrong. And any other while
            somebody records a CUDA graph, which may only want a call before it.
    """
    short = isinstance(error, torch.OutOfMemoryError)
    large = isinstance(error, TooLargeError)
    if asked(backend) != "auto" or isinstance(error, StalledError) or (captured(device) and not large):
        if short:
            raise _out_of_memory(error) from error
        raise error
    name = step.program.name
    if (short or large) and not for_good:
        which = "that find too little memory" if short else "that are too large for a kernel"
        about = f"{name}: calls {which}"
        say_once(f"{about} run on the eager backend: {error}", about, logging.WARNING)
        return
    step.kernels[backend, device.type, dtype] = None
    step.gave_up = True
    _failed.add(_identity(step, device, dtype))
    say_once(f"{name} runs on the slow eager backend from now on: {error}", level=logging.WARNING)


def _identity(step: Step, device: torch.device, dtype: torch.dtype) -> Any:
    return step.plan.anonymous(), tuple(step.plan_sizes), device.type, dtype


def _out_of_memory(error: Exception) -> LaunchError:
    return LaunchError(f"a kernel found too little memory: {error}; use smaller or shorter batches, or backend='auto'")


def warn_once(message: str) -> None:
    """Warn that kernels cannot be compiled: once in a process, whatever the number of layers."""
    if "compile" not in _said:
        _said.add("compile")
        warnings.warn(message, RuntimeWarning, stacklevel=2)
