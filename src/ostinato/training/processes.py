"""Which of the processes that train together this is. This file imports no torch."""

from __future__ import annotations

import os

__all__ = ["is_first"]


def is_first() -> bool:
    """Whether this process is the one that writes and speaks, as torchrun, SLURM or Fabric's own start numbers them."""
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name]) == 0
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))
