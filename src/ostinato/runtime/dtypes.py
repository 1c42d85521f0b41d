"""The dtypes of a call: of what comes in and goes out, and of what a kernel multiplies."""

from __future__ import annotations

import torch
from torch import Tensor

from .asked import asked

NARROW = (torch.bfloat16, torch.float16)
_KINDS = ("cpu", "cuda", "xpu", "mps", "mtia", "hpu", "ipu", "xla", "maia", "privateuseone")
_CAST = frozenset(kind for kind in _KINDS if torch.amp.is_autocast_available(kind))  # asked once: see `casting`
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def casting(device: str) -> bool:
    """Whether autocast is on for a device's type, found as torch.compile can follow it, that of torch 2.11 too."""
    return device in _CAST and torch.is_autocast_enabled(device)


def factors_of(device: str, dtype: torch.dtype, autocast: torch.dtype | None, backend: str) -> torch.dtype:
    """The dtype to which a kernel rounds what it multiplies; sums and states are float32, or float64 of float64.

        tensors             autocast        on a GPU    on the CPU
        float32             off             float32     float32
        float32             to bfloat16     bfloat16    bfloat16
        float32             to float16      float16     float32
        bfloat16            any             bfloat16    bfloat16
        float16             any             float16     float32
        float64, others     any             as they are

    Args:
        device: a device's type; the Triton backend on the CPU, which is its interpreter, does as on a GPU.
        dtype: of the tensors that come in.
        autocast: the dtype of torch.autocast for that device; None where it is off.
        backend: that which was asked for.
    """
    multiplied = NARROW if device == "cuda" or backend == "triton" else (torch.bfloat16,)
    if dtype == torch.float32:
        return autocast if autocast is not None and autocast in multiplied else dtype
    return torch.float32 if dtype in NARROW and dtype not in multiplied else dtype


def products_of(x: Tensor, backend: str) -> torch.dtype:
    """The same for a call with this x, from what is set here and now."""
    dtype = x.dtype
    if dtype == torch.float64:
        return dtype
    autocast = None
    if dtype == torch.float32:
        kind = "cpu" if x.is_cpu else "cuda"  # asking for a device's type takes longer than all the rest
        if not casting(kind) or not (x.is_cpu or x.is_cuda):
            return dtype
        autocast = torch.get_autocast_dtype(kind)
    return factors_of(x.device.type, dtype, autocast, asked(backend))


def name_of(dtype: torch.dtype) -> str:
    """Its name among `DTYPES`, found as torch.compile can follow it."""
    if dtype == torch.bfloat16:
        return "bfloat16"
    if dtype == torch.float16:
        return "float16"
    return "float64" if dtype == torch.float64 else "float32"
