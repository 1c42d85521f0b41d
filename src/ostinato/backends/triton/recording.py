"""CUDA graphs: recorded where nobody else's memory is in their way, and given up where that fails."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

import torch

__all__ = ["ALONE", "recorded"]

ALONE = threading.RLock()  # a recording fails where another thread waits for the whole GPU: one of the two at a time
_log = logging.getLogger("ostinato")


class _Lane:
    """Where the graphs that run on one stream are recorded.

    Products that are recorded work in memory that torch keeps for the stream that they are recorded on, also when
    their graph runs on another one. Graphs that run on one stream, one after the other, may share it; those of two
    streams may run at the same time. The memory lies in the lane's pool, which stays as long as a graph of it does.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream, self.pool = stream, torch.cuda.graph_pool_handle()
        self.lost = False  # a recording could not be ended: nothing more is recorded here
        with torch.cuda.stream(stream):
            self._one = torch.zeros(1, device=stream.device)
            self._stays = self.record(self._one.zero_)

    def record(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """The work as a graph; the lane's stream is the current one.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(self.pool, capture_error_mode="thread_local")
        try:
            work()
        finally:
            try:
                graph.capture_end()
            except RuntimeError:
                self._abandon()
                raise
        return graph

    def _abandon(self) -> None:
        """Put right what torch leaves behind where the driver does not end a recording: it would go on allocating for
        it, and random numbers of the device would take it for running.
        """
        self.lost = True
        index = self.stream.device_index
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(index, self.pool)
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())


_lanes: dict[tuple[torch.device, int], _Lane | None] = {}
_streams: dict[torch.device, list[torch.cuda.Stream]] = {}  # that no lane has


def recorded(device: torch.device, work: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """The work as a graph for the current stream and no other; None where it cannot be recorded, and is to be launched.

    While it is recorded no other thread may draw random numbers of the device, which torch refuses. With
    OSTINATO_GRAPHS=0 nothing is recorded.
    """
    if os.environ.get("OSTINATO_GRAPHS") == "0":
        return None
    here = torch.cuda.current_stream(device)
    key = device, here.cuda_stream
    with ALONE:
        lane = _lanes.get(key)
        try:
            if key not in _lanes or (lane is not None and lane.lost):
                lane = _lanes[key] = _lane(device)
            if lane is None:
                return None
            lane.stream.wait_stream(here)
            torch.cuda.current_blas_handle()  # this thread's, which cannot be made while a graph is recorded
            with torch.cuda.stream(lane.stream):
                graph = lane.record(work)
        except RuntimeError as error:
            _log.warning("steps of a recurrence could not be recorded as a CUDA graph, and are launched: %s", error)
            return None
        here.wait_stream(lane.stream)
        return graph


def _lane(device: torch.device) -> _Lane | None:
    """With a stream that no other lane has; None where there is none left.

    Torch hands out 32 streams of each priority in turn; those of this one, few ask for.
    """
    if device not in _streams:
        given = (torch.cuda.Stream(device, priority=-1) for _ in range(32))
        _streams[device] = list({stream.cuda_stream: stream for stream in given}.values())
    return _Lane(_streams[device].pop()) if _streams[device] else None
