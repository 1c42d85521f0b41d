"""Launching kernels, and saying why one could not be."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import LaunchError
from .device import interpreted
from .form import Form

__all__ = ["launch"]


def launch(
    function: Any, grid: tuple[int, ...], given: Sequence[Any], constants: Mapping[str, bool], form: Form
) -> None:
    """Launch a kernel.

    Raises:
        LaunchError: it asks for more than the card has, does not compile, or the driver refuses it.
    """
    options: dict[str, Any] = {**form.options}
    if form.meeting and not interpreted():
        options["launch_cooperative_grid"] = True  # refused where its programs do not all run at once
    try:
        function[grid](*given, **constants, **options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if not _of_triton(error):
            raise
        if "out of memory" in str(error):  # the driver's, where it loads a kernel
            raise torch.OutOfMemoryError(_first_line(error)) from error
        raise LaunchError(
            f"a Triton kernel with {form} could not be launched: {_first_line(error)}; use smaller sizes, or "
            "backend='eager'"
        ) from error


_COMPILING = ("triton.runtime.build", "triton.runtime.driver", "triton.runtime.cache", "triton.compiler")


def _of_triton(error: Exception) -> bool:
    """Whether an error is the compiler's, the assembler's or the driver's; or there is no C compiler, or no disk."""
    if type(error).__module__.startswith("triton"):
        return True
    if isinstance(error, RuntimeError) and ("Triton" in str(error) or "CUDA" in str(error)):
        return True
    frames = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(name.startswith((*_COMPILING, "triton.backends")) for name in frames)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
