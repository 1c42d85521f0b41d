"""What runs at the same time on a GPU, by the order of what a stand-in for torch's streams is told; and one after
another elsewhere.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import ostinato
import ostinato.nn.parallel as parallel
from laws import needs_c
from measured import build, inputs, measure, ragged, states_for
from ostinato import parallel_apply
from ostinato.backends import base
from ostinato.backends.base import AT_ONCE, on_device
from ostinato.errors import ShapeError
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


# ---- modules of the user's


@pytest.fixture
def there(cuda: Streams, monkeypatch: pytest.MonkeyPatch) -> Streams:
    """All tensors count as those of a GPU."""
    monkeypatch.setattr(parallel, "_common", lambda given: THERE)
    return cuda


def test_modules_at_the_same_time(there: Streams) -> None:
    """What they give, and all gradients, are those of calls one by one; parameters are the caller's stream's own."""
    layers = [build(named("gru"), 3, 4, "eager", bidirectional=i == 0) for i in range(3)]
    x, lengths = inputs(5, 4, 3, torch.float64).requires_grad_(), [2, 5, 1, 3]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    one_by_one = [layers[0](x), layers[1](packed), layers[2](x, lengths=lengths)]
    together = parallel_apply(layers, [(x,), packed, x], [{}, {}, {"lengths": lengths}])
    leaves = [x, *(p for layer in layers for p in layer.parameters())]
    found: list[list[Tensor]] = []
    for (whole, _), (rows, _), (ended, _) in (one_by_one, together):
        values = [whole, rows.data, ended]
        found.append([*values, *torch.autograd.grad([v.square().sum() for v in values], leaves, retain_graph=True)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    sides = {each[0] for each in there.told if each[1] == "waits for"}
    assert sides == {"s0", "s1", "s2"}


def test_what_runs_beside_may_have_others_beside_it(there: Streams) -> None:
    seen: list[Any] = []

    def inner() -> None:
        seen.append((there.now, AT_ONCE.get(), str(streams._home.get())))

    def outer() -> None:
        together([inner, inner], [(), ()], THERE)

    together([outer, outer], [(), ()], THERE)
    assert seen == [("s2", 4, "s0"), ("s1", 4, "s0"), ("s1", 4, "s0"), ("s0", 4, "None")]


def test_modules_one_after_another(cuda: Streams) -> None:
    """On the CPU, on several devices, without tensors, and where two would write to what one keeps."""
    order: list[str] = []

    class Module(nn.Module):
        def __init__(self, name: str, part: nn.Module | None = None) -> None:
            super().__init__()
            self.name, self.part = name, part

        def forward(self, *given: Any, **more: Any) -> str:
            order.append(self.name)
            return cuda.now

    one, other = Module("a"), Module("b")
    there, elsewhere = meta(1), meta(2)
    for given in ((torch.zeros(1), torch.zeros(1)), (1, 2), ((), ()), (there, torch.zeros(1)), (there, elsewhere)):
        assert parallel_apply([one, other], given) == ["s0", "s0"]
    assert order == ["a", "b"] * 5 and cuda.told == []
    assert parallel._common([(there, torch.zeros(1)), {"a": [elsewhere]}]) is elsewhere
    assert parallel._common([torch.zeros(1)]) is None
    part = nn.Linear(1, 1)
    assert parallel._overlapping([one, other, one]) and parallel._overlapping([Module("c", part), Module("d", part)])
    assert not parallel._overlapping([one, other, print, print])


def test_as_many_inputs_as_modules() -> None:
    with pytest.raises(ShapeError, match="2 modules, and 1 inputs"):
        parallel_apply([print, print], [1])
    with pytest.raises(ShapeError, match="2 modules, and 3 kwargs"):
        parallel_apply([print, print], [1, 2], [{}, {}, {}])
    with pytest.raises(ShapeError, match="inputs is one Tensor; give a list"):
        parallel_apply([print, print], torch.zeros(2, 3))  # whose rows would be taken for inputs


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
