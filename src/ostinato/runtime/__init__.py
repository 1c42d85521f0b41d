"""From layers to backends: choosing one, the kernels, autograd, the registered operator."""

from __future__ import annotations

from ..backends.base import Inputs, Outputs, extent_of, on_device
from .asked import asked
from .choose import CHOICES, check_choice, choose, say_once
from .dtypes import casting, products_of
from .packed import last_rows, packed, unpacked
from .runner import Runner
from .step import Step
from .streams import tensors_in, together

__all__ = [
    "CHOICES",
    "Inputs",
    "Outputs",
    "Runner",
    "Step",
    "asked",
    "casting",
    "check_choice",
    "choose",
    "extent_of",
    "last_rows",
    "on_device",
    "packed",
    "products_of",
    "say_once",
    "tensors_in",
    "together",
    "unpacked",
]
