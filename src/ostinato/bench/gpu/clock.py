"""Time on a device: events around calls that are made in turn; a host's clock where a rehearsal needs one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..measure.timing import Samples

__all__ = ["METHOD", "Clock", "DeviceClock", "HostClock", "ceilings", "interleave", "no_tf32"]

METHOD = (
    "Medians of {clock}; contestants in turn, after two calls of each. A sample is several calls in a row where one is "
    "short. Between samples the device is idle; {cache}. torch.backends.cuda.matmul.allow_tf32 and "
    "torch.backends.cudnn.allow_tf32 are False for all contestants, and set back afterwards."
)
FLUSHED = 256 * 2**20  # bytes that are written to empty the second-level cache
LEAST, MOST = 3, 21  # samples of a contestant
SAMPLE_MS = 1.0  # the least length of a sample
PART_MS = 250.0  # for the samples of one contestant


class DeviceClock:
    """Events of the current stream.

    Args:
        flush: write to more memory than the second-level cache has before each sample, which is one call then.
    """

    name = "device events (torch.cuda.Event)"

    def __init__(self, device: torch.device, flush: bool = False) -> None:
        self.device, self.flush = device, flush
        self._junk = torch.empty(FLUSHED, dtype=torch.int8, device=device) if flush else None

    @property
    def cache(self) -> str:
        """What a sample finds in the cache."""
        return (
            "the second-level cache is flushed before each" if self.flush else "the second-level cache is not flushed"
        )

    def sample(self, call: Callable[[], object], count: int) -> float:
        """ms per call of so many in a row."""
        if self._junk is not None:
            self._junk.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count

    def inner(self, ms: float) -> int:
        """How many calls a sample has."""
        return 1 if self.flush else max(1, math.ceil(SAMPLE_MS / max(ms, 1e-3)))

    def settle(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self.device)


class HostClock:
    """A host's clock, for a rehearsal."""

    name = "a host's clock: a rehearsal, of which no figure means anything"
    cache = "caches are not flushed"

    def sample(self, call: Callable[[], object], count: int) -> float:
        """ms per call of so many in a row."""
        begin = time.perf_counter_ns()
        for _ in range(count):
            call()
        return (time.perf_counter_ns() - begin) / 1e6 / count

    def inner(self, ms: float) -> int:
        """How many calls a sample has."""
        return 1

    def settle(self) -> None:
        """A host waits for itself."""


Clock = DeviceClock | HostClock


def interleave(
    calls: Mapping[str, Callable[[], object]], clock: Clock, part_ms: float = PART_MS, least: int = LEAST
) -> dict[str, Samples]:
    """Samples of every contestant, taken in turn; each has been called before, and is called twice more first."""
    taken: dict[str, float] = {}
    for name, call in calls.items():
        taken[name] = min(clock.sample(call, 1) for _ in range(2))
    inner = {name: clock.inner(ms) for name, ms in taken.items()}
    rounds = {
        name: min(MOST, max(least, math.floor(part_ms / max(ms * inner[name], 1e-3)))) for name, ms in taken.items()
    }
    values: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(max(rounds.values(), default=0)):
        for name, call in calls.items():
            if turn < rounds[name]:
                values[name].append(clock.sample(call, inner[name]))
    return {name: Samples(tuple(v), inner[name]) for name, v in values.items()}


@contextmanager
def no_tf32() -> Any:
    """Within, float32 is float32 on all sides; gives what the switches were before, and sets them back."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = {"cuda.matmul.allow_tf32": matmul.allow_tf32, "cudnn.allow_tf32": cudnn.allow_tf32}
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield before
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before["cuda.matmul.allow_tf32"], before["cudnn.allow_tf32"]


def ceilings(clock: Clock, device: torch.device, small: bool = False) -> dict[str, float]:
    """What bounds a kernel, measured: bytes/s of a copy on the device, read and written together, and operations/s of
    large products, by dtype.
    """
    rates = {"copy": _copy(clock, torch.randn(2**16 if small else 2**28, device=device))}
    for dtype, side in (("float32", 4096), ("bfloat16", 8192)):
        n = 64 if small else side
        rates[dtype] = _products(clock, *(torch.randn(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2)))
    return rates


def _copy(clock: Clock, source: Tensor) -> float:
    target = torch.empty_like(source)
    return 8e3 * source.numel() / _median(lambda: target.copy_(source), clock)


def _products(clock: Clock, a: Tensor, b: Tensor) -> float:
    out = torch.empty_like(a)
    return 2e3 * a.shape[0] ** 3 / _median(lambda: torch.mm(a, b, out=out), clock)


def _median(call: Callable[[], object], clock: Clock) -> float:
    return interleave({"": call}, clock, least=10)[""].median
