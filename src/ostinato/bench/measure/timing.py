"""Timing two or more contestants against each other, fairly, on a machine that is never quite still.

A sample is a run of inner calls long enough to be read off the clock; samples of all contestants are taken
in turn (a, b, c, a, b, c, ...), so that what slows the machine for a while slows them all alike.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Samples", "Timer", "geometric_mean", "interleave"]

Call = Callable[[], object]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Samples:
    """The samples of one contestant, in milliseconds per call, in the order they were taken."""

    values: tuple[float, ...]
    inner: int

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def spread(self) -> float:
        """Distance between the quartiles over the median: 0 on a machine that is quite still."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / self.median


@dataclass(frozen=True)
class Timer:
    """How samples are taken.

    repeats: samples of each contestant.
    sample_ms: the least length of a sample; a call shorter than that is repeated within it.
    clock: nanoseconds, monotonic.
    """

    repeats: int = 9
    sample_ms: float = 20.0
    clock: Clock = time.perf_counter_ns


def geometric_mean(values: list[float]) -> float:
    """The geometric mean of positive numbers; nan of none, so that an empty table claims nothing."""
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else math.nan


def interleave(calls: Mapping[str, Call], timer: Timer) -> dict[str, Samples]:
    """Time every call in turn, `timer.repeats` times around, and return the samples of each.

    Each call must have been made at least once before: compilation and first allocations are not timed.
    """
    if not calls:
        return {}
    inner = {name: _inner_calls(call, timer) for name, call in calls.items()}
    values: dict[str, list[float]] = {name: [] for name in calls}
    with _collector_at_rest():
        for _ in range(timer.repeats):
            for name, call in calls.items():
                values[name].append(_sample(call, inner[name], timer))
    return {name: Samples(tuple(v), inner[name]) for name, v in values.items()}


def _inner_calls(call: Call, timer: Timer) -> int:
    """How many calls fill a sample, by the fastest of a few: a slow one would make the sample too short."""
    fastest = _elapsed_ms(call, 1, timer.clock)
    spent = fastest
    while spent < timer.sample_ms:
        taken = _elapsed_ms(call, 1, timer.clock)
        fastest = min(fastest, taken)
        # A clock that reads 0 for a call must still end this loop.
        spent += max(taken, 0.01)
    return max(1, math.ceil(timer.sample_ms / max(fastest, 1e-4)))


def _sample(call: Call, inner: int, timer: Timer) -> float:
    # The contestant before this one has left its data in the cache and its threads spinning; one call
    # outside the clock clears that.
    call()
    return _elapsed_ms(call, inner, timer.clock) / inner


def _elapsed_ms(call: Call, count: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(count):
        call()
    return (clock() - begin) / 1e6


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection inside a sample: it would be charged to whoever happens to run."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
