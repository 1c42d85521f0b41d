"""Which of the processes that train together this is. This file imports no torch."""

from __future__ import annotations

import os

__all__ = ["is_first"]


def is_first() -> bool:
    """Whether this process is the one that writes and speaks, as torchrun, SLURM or Fabric's own start numbers them."""
    for rank, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and _number(count, 1) > 1:
            return _number(rank, 0) == 0
    return _number("WORLD_SIZE", 1) == 1 or _number("LOCAL_RANK", 0) == _number("NODE_RANK", 0) == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
