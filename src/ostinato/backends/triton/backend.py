"""The Triton backend: what it takes, and why it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch

from ...schedule import Plan
from .device import facts, interpreted
from .kernel import TritonKernel

__all__ = ["TritonBackend"]

OLDEST = (7, 0)  # the compute capability that Triton compiles for
OLDEST_OF = {torch.bfloat16: (8, 0)}  # that has units for products of these
OLDEST_TRITON = (3, 6)


class TritonBackend:
    """See `ostinato.backends.base.Backend`. Tensors of float32 on a GPU, products of float32, bfloat16 or float16."""

    name, title = "triton", "Triton"

    def refuses(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run this, or None."""
        if device.type != "cuda" and not (interpreted() and device.type == "cpu"):
            return f"the tensors are on {device}, and this backend runs on a GPU"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"the tensors are {dtype}, and this backend takes float32, bfloat16 and float16"
        return _missing() or (_unfit(device, dtype) if device.type == "cuda" else _misread(dtype))

    def compile(self, plan: Plan, dtype: torch.dtype, sizes: Sequence[int]) -> TritonKernel:
        """The kernel of a Plan at these sizes."""
        return TritonKernel(plan, sizes, str(dtype).removeprefix("torch."))


@lru_cache(maxsize=1)
def _missing() -> str | None:
    """Why there is no Triton."""
    if find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    try:
        import triton.language  # pyright: ignore[reportMissingImports]
    except Exception as error:  # noqa: BLE001  (whatever stops it, no kernel can be compiled)
        return f"triton cannot be imported ({type(error).__name__}: {error})"
    version = str(triton.__version__)
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TRITON:
        return f"triton is of version {version}, and kernels need 3.6 or newer (pip install 'triton>=3.6')"
    return None


def _misread(dtype: torch.dtype) -> str | None:
    """What the interpreter gets wrong: the tests put that right, and then it is not Triton's own any more."""
    from triton.runtime.interpreter import InterpreterBuilder  # pyright: ignore[reportMissingImports]

    if dtype == torch.bfloat16 and InterpreterBuilder.create_dot.__module__ == InterpreterBuilder.__module__:
        return "Triton's interpreter multiplies bfloat16 numbers as the integers that hold their bits"
    return None


def _unfit(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a GPU cannot run kernels of this dtype."""
    if torch.version.hip is not None:
        return "torch was built for ROCm, and kernels are written for NVIDIA's cards"
    if not torch.cuda.is_available():
        return "torch finds no CUDA driver or no card"
    card = facts(device)
    least = max(OLDEST, OLDEST_OF.get(dtype, OLDEST))
    if card.capability < least:
        has, needs = (".".join(map(str, version)) for version in (card.capability, least))
        return f"{card.name} has compute capability {has}, and kernels of {dtype} need {needs}"
    return None
