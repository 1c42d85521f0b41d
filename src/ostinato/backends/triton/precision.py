"""What torch's switches say of products of float32 numbers on a GPU."""

from __future__ import annotations

import torch

__all__ = ["tf32_allowed"]


def tf32_allowed() -> bool:
    """Whether the factors of float32 products may be rounded to TF32's ten bits: only where the user told torch so.

    By ``torch.set_float32_matmul_precision("high")`` or ``"medium"``, by ``torch.backends.cuda.matmul.allow_tf32``, or
    by ``fp32_precision`` of that or of all backends; the last knows what the older switches were set to, which raise
    once both were used.
    """
    return torch.backends.cuda.matmul.fp32_precision == "tf32"
