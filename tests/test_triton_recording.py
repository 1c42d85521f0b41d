"""CUDA graphs of a kernel's steps, on a stand-in for a GPU: where they are recorded, and what a failure leaves."""

from __future__ import annotations

import contextlib
import itertools
import logging
from typing import Any

import pytest
import torch

from device_laws import quiet
from ostinato import cells
from ostinato.backends.triton import Form, TritonKernel, choosing, recording
from ostinato.backends.triton.staged import ROOM, Stages
from ostinato.runtime.step import Step

DEVICE = torch.device("cuda", 0)


def recorded(work) -> Any:
    return recording.recorded(DEVICE, work)


def generator() -> Any:
    return torch.cuda.default_generators[0]


class Stream:
    numbers = itertools.count()

    def __init__(self, device=DEVICE, priority=0):
        self.device, self.device_index, self.waited = device, 0, []
        self.cuda_stream = priority * 100 - next(Stream.numbers) % 32

    def wait_stream(self, other):
        self.waited.append(other)


class Generator:
    def __init__(self, capturing=False):
        self.capturing = capturing

    def clone_state(self):
        return Generator()

    def graphsafe_set_state(self, state):
        self.capturing = state.capturing


class Graph:
    """Notes the stream and the pool it is recorded with; `broken` ones cannot be ended."""

    broken = False

    def capture_begin(self, pool, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.stream, self.pool = torch.cuda.current_stream(DEVICE), pool
        generator().capturing = True

    def capture_end(self):
        if Graph.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        generator().capturing = False


@pytest.fixture
def gpu(monkeypatch):
    """What torch.cuda is asked for; gives the current stream, to be set, and the pools that were ended."""
    now, ended = [Stream()], []

    @contextlib.contextmanager
    def stream(chosen):
        before, now[0] = now[0], chosen
        try:
            yield
        finally:
            now[0] = before

    stand_ins = {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": stream,
        "current_stream": lambda device=None: now[0],
        "graph_pool_handle": object,
        "current_blas_handle": lambda: 0,
        "default_generators": [Generator()],
    }
    for name, instead in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda _, pool: ended.append(pool), raising=False)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda size, device: zeros(size))
    monkeypatch.setattr(recording, "_lanes", {})
    monkeypatch.setattr(recording, "_streams", {})
    monkeypatch.setattr(Graph, "broken", False)
    return now, ended


def test_graphs_of_one_stream_are_recorded_on_one_and_those_of_others_on_others(gpu):
    """Products that are recorded share the memory that they work in with those of the same stream."""
    now, _ = gpu
    streams = [Stream() for _ in range(20)]
    graphs = []
    for stream in (*streams, *streams):
        now[0] = stream
        graphs.append(recorded(lambda: None))
        assert now[0] is stream and stream.waited  # what comes next comes behind what was recorded
    used = [graph.stream.cuda_stream for graph in graphs]
    assert len(set(used)) == 20 and used[:20] == used[20:] and not set(used) & {s.cuda_stream for s in streams}
    assert len({id(graph.pool) for graph in graphs}) == 20


def test_with_no_stream_left_nothing_is_recorded(gpu):
    now, _ = gpu
    found = []
    for number in range(40):
        now[0] = Stream()
        now[0].cuda_stream = number
        found.append(recorded(lambda: None))
    assert all(found[:32]) and not any(found[32:])


def test_a_recording_that_cannot_be_ended_leaves_the_device_as_it_was(gpu, monkeypatch, caplog):
    _, ended = gpu
    first = recorded(lambda: None)
    monkeypatch.setattr(Graph, "broken", True)
    with caplog.at_level(logging.WARNING, "ostinato"):
        assert recorded(lambda: None) is None
    assert "could not be recorded" in caplog.text
    assert ended == [first.pool] and not generator().capturing
    monkeypatch.setattr(Graph, "broken", False)
    again = recorded(lambda: None)
    assert again.stream is not first.stream and again.pool is not first.pool


def test_work_that_fails_is_no_graph(gpu):
    _, ended = gpu

    def work():
        raise torch.OutOfMemoryError("no memory")

    first = recorded(lambda: None)
    assert recorded(work) is None and not ended
    assert not generator().capturing
    again = recorded(lambda: None)
    assert again.stream is first.stream and again.pool is first.pool


def test_nothing_is_recorded_where_that_is_not_wanted(gpu, monkeypatch):
    monkeypatch.setenv("OSTINATO_GRAPHS", "0")
    assert recorded(lambda: None) is None and not recording._lanes


def test_sizes_of_batch_are_kept_for_each_kind_of_call():
    """Those of the other direction do not take their room."""
    pytest.importorskip("triton", reason="triton is not installed (pip install triton==3.6.0 'numpy<2.4')")
    step = Step.of(cells.elman.program(), True, {"D": 3, "H": 4})
    kernel = TritonKernel(step.plan.anonymous(), step.plan_sizes, "float32")
    of, form = kernel.layout.of, Form(batch=8, stages=True)
    params = [torch.randn(of(rows), of(columns)) for _, rows, columns in kernel.plan.matrices]
    bound = kernel.bind(params + [torch.randn(of(size)) for _, size in kernel.plan.vectors])
    stages = kernel.made("infer", form)
    assert isinstance(stages, Stages)
    with quiet(), kernel.taking("infer", form):
        for batch in range(1, ROOM + 3):
            for reverse in (False, True):
                bound.forward(choosing.Inputs(torch.randn(2, batch, 3), reverse=reverse), False)
    kept = {(key[0], desk.constants["REVERSE"]) for key, desk in stages._desks.items()}
    assert kept == {(batch, reverse) for batch in range(3, ROOM + 3) for reverse in (False, True)}
    kernel.let_go("infer", form)
    assert not stages._desks
