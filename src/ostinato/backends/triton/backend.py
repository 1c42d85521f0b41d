"""The Triton backend: what it takes, and the form of its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch

from ...schedule import Plan
from .device import interpreted
from .kernel import TritonKernel
from .precision import tf32_allowed

__all__ = ["TritonBackend"]


class TritonBackend:
    """See `ostinato.backends.base.Backend`. float32, and bfloat16 products of float32, on a GPU."""

    name, title = "triton", "Triton"

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        if device.type != "cuda" and not (interpreted() and device.type == "cpu"):
            return f"the tensors are on {device}, and this backend runs on a GPU"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"the tensors are {dtype}, and this backend takes float32, bfloat16 and float16"
        if not _has_triton():
            return "triton is not installed; pip install triton"
        return None

    def compile(self, plan: Plan, dtype: torch.dtype, sizes: Sequence[int]) -> TritonKernel:
        """The kernel of a Plan at these sizes."""
        factors = str(dtype).removeprefix("torch.")
        if factors == "float32" and tf32_allowed():
            factors = "tf32"
        return TritonKernel(plan, sizes, factors)


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return find_spec("triton") is not None
