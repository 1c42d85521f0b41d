"""What a device has, as forms are chosen by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from ..base import AT_ONCE

__all__ = ["Facts", "facts", "interpreted", "lasting"]


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels, on the CPU and slowly: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@contextmanager
def lasting() -> Iterator[None]:
    """What is made within outlasts the call: nothing outside inference mode may write to what is made in it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@dataclass(frozen=True)
class Facts:
    """A device.

    Args:
        name: as the driver says it; versions: of what compiles kernels for it.
        programs: how many programs of a grid that waits are taken to run at once: one for each multiprocessor.
        shared: bytes of shared memory that a program may have.
        capability: of the instructions, (9, 0) for an H100 or H200.
    """

    name: str
    programs: int
    shared: int
    capability: tuple[int, int]


H200 = Facts("NVIDIA H200", 132, 227 << 10, (9, 0))  # what is taken for a device where there is none


@lru_cache(maxsize=16)
def _facts(index: int) -> Facts:
    found = torch.cuda.get_device_properties(index)
    shared = getattr(found, "shared_memory_per_block_optin", 96 << 10)
    return Facts(found.name, found.multi_processor_count, shared, (found.major, found.minor))


def facts(device: torch.device) -> Facts:
    """Of a GPU, or of its share where several kernels run at once; of an H200 for a CPU, which interprets kernels."""
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    card = _facts(index) if device.type == "cuda" else H200
    sharing = AT_ONCE.get()
    return card if sharing == 1 else replace(card, programs=max(1, card.programs // sharing))
