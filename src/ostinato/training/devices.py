"""Which devices are here."""

from __future__ import annotations

import torch

from ..errors import OptionError

__all__ = ["found_device"]


def found_device(device: str) -> str:
    """The device of this name, or the best there is for "auto".

    Raises:
        OptionError: it is not here.

    >>> found_device("cpu")
    'cpu'
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available.get(device, False):
        here = ", ".join(name for name, there in available.items() if there)
        raise OptionError(f"device {device!r} is not here; torch sees {here}: pass one of these, or auto.")
    return device
