"""Which device computes: the one that is asked for, or an error that says which there are."""

from __future__ import annotations

import torch

from ..errors import OptionError

__all__ = ["find_device"]


def find_device(name: str) -> str:
    """The kind of device, "cpu", "cuda" or "mps".

    Args:
        name: one of these, or "auto": the fastest that is here.

    Raises:
        OptionError: it is not here, or there is no such kind.

    >>> find_device("cpu")
    'cpu'
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    here = [kind for kind, there in available.items() if there]
    if name == "auto":
        return here[0]
    if name not in here:
        raise OptionError(f"device {name!r} is not here; torch sees {', '.join(here)}: pass one of these, or auto.")
    return name
