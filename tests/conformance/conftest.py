"""Law 7 stands over every other: fresh memory is filled with NaN, so an unwritten output shows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

os.environ["OSTINATO_POISON"] = "1"  # kernels fill their own scratch with NaN before they use it


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """torch.empty and its kin give NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(before)
