"""Memory for tapes that is used again.

A tape is written once and read once, and is as large as everything a layer computes; fresh pages from the system would
take longer than the pointwise part of a step. A freed tape's memory waits here for the next one.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref

import torch
from torch import Tensor

LIMIT_BYTES = 1 << 30  # of memory that waits; no more than an eighth of the machine's
_SMALLEST = 1 << 18  # below, the allocator of C uses memory again by itself
_ROUND = 1 << 16


class Memory:
    """Blocks of memory that wait to be used again, at most `limit` bytes of them (None: see `LIMIT_BYTES`)."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = min(LIMIT_BYTES, _machine() // 8) if limit is None else limit
        self._free: list[mmap.mmap] = []
        self._renew()
        if hasattr(os, "register_at_fork"):  # another thread may hold the lock while this one forks
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()  # a collection of garbage may give back while the same thread takes

    def empty(self, count: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor of `count` values; its memory comes back when nothing refers to it any more."""
        size = count * dtype.itemsize
        if size < _SMALLEST or not hasattr(mmap, "MAP_ANONYMOUS"):
            return torch.empty(count, dtype=dtype, device="cpu")
        block = self._take(size)
        view = memoryview(block)  # the tensor's storage holds the view, and the view's end is the sign
        weakref.finalize(view, self._give, block).atexit = False
        return torch.frombuffer(view, dtype=dtype, count=count)

    def waiting(self) -> int:
        """How many bytes wait."""
        with self._lock:
            return sum(map(len, self._free))

    def _take(self, size: int) -> mmap.mmap:
        """The smallest block that waits and fits without waste, or a new one."""
        with self._lock:
            fitting = [block for block in self._free if size <= len(block) <= size + size // 2]
            if fitting:
                block = min(fitting, key=len)
                self._free = [other for other in self._free if other is not block]
                return block
        whole = -(-size // _ROUND) * _ROUND
        try:
            return mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"there is no memory for {whole} bytes that backward would read: {error}") from None

    def _give(self, block: mmap.mmap) -> None:
        """Keep `block`; what waited longest goes back to the system if there is too much."""
        if len(block) > self._limit:
            return
        with self._lock:
            self._free.append(block)
            while sum(map(len, self._free)) > self._limit:
                self._free.pop(0)


def _machine() -> int:
    """Bytes of the machine's memory, as far as the system says."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 * LIMIT_BYTES
