"""What runs at the same time on a GPU, by the order of what a stand-in for torch's streams is told; and one after
another elsewhere.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from laws import needs_c
from measured import build, inputs, measure, ragged, states_for
from ostinato.backends import base
from ostinato.backends.base import AT_ONCE, on_device
from ostinato.named import named
from ostinato.runtime import streams, together
from tolerances import assert_agree

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
THERE: Any = SimpleNamespace(is_cuda=True, device=GPU)  # a tensor of a GPU


class Stream:
    """Notes what it is told."""

    def __init__(self, told: list[Any], number: int) -> None:
        self.told, self.cuda_stream, self.device = told, number, GPU

    def __repr__(self) -> str:
        return f"s{self.cuda_stream}"

    def wait_stream(self, other: Stream) -> None:
        self.told.append((str(self), "waits for", str(other)))


class Streams:
    """Stands in for `torch.cuda`: the current stream, new ones, and what is told to them."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.stack = [Stream(self.told, 0)]
        self.made = 0
        self.capturing = False

    def current_stream(self, device: Any) -> Stream:
        assert device == GPU
        return self.stack[-1]

    def Stream(self, device: Any) -> Stream:
        assert device == GPU
        self.made += 1
        return Stream(self.told, self.made)

    def stream(self, stream: Stream) -> Streams:
        self.entering = stream
        return self

    def __enter__(self) -> None:
        self.stack.append(self.entering)

    def __exit__(self, *_: Any) -> None:
        self.stack.pop()

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    @property
    def now(self) -> str:
        return str(self.stack[-1])


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Streams:
    found = Streams()
    for name in ("current_stream", "Stream", "stream", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, getattr(found, name))
    monkeypatch.setattr(streams, "_sides", {})
    names: dict[int, str] = {}

    def record(self: Tensor, stream: Stream) -> None:
        found.told.append((names.setdefault(id(self), f"{self.shape[0]}"), "kept for", str(stream)))

    monkeypatch.setattr(Tensor, "record_stream", record)
    return found


def meta(rows: int) -> Tensor:
    """A tensor that is told by its rows, and lies not on the CPU."""
    return torch.empty(rows, device="meta")


def test_the_last_call_stays_and_the_others_run_beside_it(cuda: Streams) -> None:
    """They begin behind what came before and end before what comes next; memory is kept for who uses it."""

    def call(name: str, given: Any) -> Any:
        cuda.told.append((cuda.now, "runs", name, AT_ONCE.get()))
        return {"a": (given[0], [meta(ord(name))])}

    results = together([call] * 3, [("a", [meta(1)]), ("b", [meta(2), torch.zeros(9)]), ("c", [meta(3)])], THERE)
    assert [result["a"][1][0].shape[0] for result in results] == [ord(n) for n in "abc"]
    assert cuda.told == [
        ("s1", "waits for", "s0"),
        ("s2", "waits for", "s0"),
        ("1", "kept for", "s1"),
        ("s1", "runs", "a", 3),
        ("2", "kept for", "s2"),  # and nothing of the CPU
        ("s2", "runs", "b", 3),
        ("s0", "runs", "c", 3),
        ("s0", "waits for", "s1"),
        ("s0", "waits for", "s2"),
        ("1", "kept for", "s0"),
        ("97", "kept for", "s0"),
        ("2", "kept for", "s0"),
        ("98", "kept for", "s0"),
    ]
    assert AT_ONCE.get() == 1 and cuda.now == "s0"
    together([call] * 2, [("a", [meta(1)]), ("b", [meta(2)])], THERE)
    assert cuda.made == 2, "streams are kept: memory that was freed is its stream's"


def test_another_stream_has_others_beside_it(cuda: Streams) -> None:
    """The user's own streams do not meet; none runs beside itself, though torch hands out the same ones in turn."""
    calls, arguments = [lambda: cuda.now] * 2, [(), ()]
    assert together(calls, arguments, THERE) == ["s1", "s0"]
    with torch.cuda.stream(Stream(cuda.told, 2)):  # pyright: ignore[reportArgumentType]
        assert together(calls, arguments, THERE) == ["s3", "s2"]
    assert together(calls, arguments, THERE) == ["s1", "s0"]


def test_an_error_leaves_nothing_behind(cuda: Streams) -> None:
    def fails() -> None:
        raise ValueError("no")

    for calls in ([fails, lambda: None], [lambda: None, fails]):
        cuda.told.clear()
        with pytest.raises(ValueError, match="no"):
            together(calls, [(), ()], THERE)
        assert cuda.told[-1] == ("s0", "waits for", "s1")
        assert cuda.now == "s0" and AT_ONCE.get() == 1 and streams._home.get() is None


def test_one_after_another_elsewhere(cuda: Streams) -> None:
    """On the CPU, for one call, and where a graph is traced."""
    order: list[str] = []
    for like, names in ((torch.zeros(1), "ab"), (THERE, "a")):
        order.clear()
        assert together([order.append] * len(names), [(n,) for n in names], like) == [None] * len(names)
        assert order == list(names)
    with torch._subclasses.FakeTensorMode():
        together([order.append] * 2, [("a",), ("b",)], THERE)
    assert cuda.told == [] and cuda.made == 0


def test_gradients_of_parameters_belong_to_the_stream_of_the_call(cuda: Streams) -> None:
    """In a call beside, what gets a gradient goes on by a view that was made on the current stream, no copy."""
    weight, fixed = nn.Parameter(torch.ones(2)), torch.ones(3)
    seen: list[Any] = []

    def call(name: str) -> None:
        (own, other) = streams.rooted([weight, fixed])
        seen.append((name, own is weight, own.data_ptr() == weight.data_ptr(), other is fixed))
        if own is not weight:
            own.sum().backward()

    together([call, call], [("a",), ("b",)], THERE)
    assert seen == [("a", False, True, True), ("b", True, True, True)]
    assert weight.grad is not None and torch.equal(weight.grad, torch.ones(2))
    with torch.no_grad():
        together([lambda: seen.append(streams.rooted([weight])[0] is weight), lambda: None], [(), ()], THERE)
    assert seen[-1] is True


@needs_c
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("backend", ["c", "eager"])
@pytest.mark.parametrize(
    "name", ["lstm", "recurrent_dropout(gru, 0.4)", "batch_norm(elman, 9)", "weight_drop(gru, 0.3)"]
)
def test_both_directions_at_the_same_time(
    name: str, backend: str, cuda: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers as they run on a GPU give what they give elsewhere: values, gradients, masks, statistics."""
    own = ostinato.nn.stack.together
    layers = [build(named(name), 3, 4, backend, num_layers=2, bidirectional=True) for _ in range(2)]
    x, state, lengths = inputs(5, 4, 3, torch.float64), states_for(layers[0], 4, torch.float64), ragged(5, 4)
    meant = measure(layers[0], x, state, lengths)
    monkeypatch.setattr(ostinato.nn.stack, "together", lambda calls, given, _: own(calls, given, THERE))
    found = measure(layers[1], x, state, lengths)
    assert_agree(found, meant, torch.float64)
    assert [torch.equal(a, b) for a, b in zip(*(list(m.buffers()) for m in layers), strict=True)].count(False) == 0
    waits = [each for each in cuda.told if each[1] == "waits for"]
    assert waits == [("s1", "waits for", "s0"), ("s0", "waits for", "s1")] * 2


def test_backward_knows_what_runs_beside_it(cuda: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two directions go back at the same time too, in a thread of autograd's."""
    from ostinato.runtime import apart

    seen: list[tuple[str, int]] = []
    for way in ("forward", "backward"):
        own = getattr(apart, way)
        monkeypatch.setattr(apart, way, lambda *a, way=way, own=own: seen.append((way, AT_ONCE.get())) or own(*a))
    monkeypatch.setattr(ostinato.nn.stack, "together", lambda calls, given, _: together(calls, given, THERE))
    layer = build(named("gru"), 3, 4, "c", bidirectional=True)
    layer(inputs(3, 2, 3, torch.float64))[0].sum().backward()
    assert seen == [("forward", 2)] * 2 + [("backward", 2)] * 2 and AT_ONCE.get() == 1


# ---- lengths


def test_lengths_are_sent_once_for_each_stream(cuda: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(base, "_sent", lambda values, device: sent.append(cuda.now) or values.clone())
    lengths = torch.tensor([3, 1])
    first = on_device(lengths, GPU)
    assert on_device(lengths, GPU) is first and torch.equal(first, lengths)
    with torch.cuda.stream(Stream(cuda.told, 5)):  # pyright: ignore[reportArgumentType]
        for _ in range(2):
            assert on_device(lengths, GPU) is not first
    assert on_device(lengths, GPU) is first and sent == ["s0", "s5"]
    assert on_device(lengths, CPU) is lengths
    cuda.capturing = True  # what is there may be used, and nothing is sent
    assert on_device(lengths, GPU) is first
    with pytest.raises((RuntimeError, AssertionError)):
        on_device(torch.tensor([2]), GPU)
    assert sent == ["s0", "s5"]
