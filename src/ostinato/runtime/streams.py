"""Calls that do not wait for one another: at the same time on a GPU, each on a CUDA stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from ..backends.base import AT_ONCE, seen_through

_sides: dict[tuple[int, int], list[Any]] = {}  # by device and stream, those that run beside it
_home: ContextVar[Any] = ContextVar("_home", default=None)


def together(calls: Sequence[Callable[..., Any]], arguments: Sequence[tuple[Any, ...]], like: Tensor) -> list[Any]:
    """The results of calls with their arguments, in order. They are begun in order too, random numbers and all.

    On a GPU the last runs on the current stream, those before on streams beside it. All begin behind what the current
    stream has to do, and what it is given next waits for all, so that a caller sees one stream.

    torch runs backward of each operation on the stream of its forward, those that came last first: what the current
    stream did is begun before anything waits for what streams beside it give. Hence also `rooted`.

    Where somebody follows the operations (torch.compile, a trace), there is one stream.

    Args:
        like: a tensor of the device on which they run.
    """
    if not like.is_cuda or len(calls) < 2 or torch.compiler.is_compiling() or seen_through():
        return [call(*given) for call, given in zip(calls, arguments, strict=True)]
    home = torch.cuda.current_stream(like.device)
    beside = _beside(home, like.device, len(calls) - 1)
    results: list[Any] = []
    sharing = AT_ONCE.set(AT_ONCE.get() * len(calls))
    try:
        for side in beside:
            side.wait_stream(home)
        for call, given, side in zip(calls, arguments, beside, strict=False):
            _record(given, side)
            at_home = _home.set(_home.get() or home)  # within another call beside: that one's
            try:
                with torch.cuda.stream(side):
                    results.append(call(*given))
            finally:
                _home.reset(at_home)
        results.append(calls[-1](*arguments[-1]))
    finally:  # an error leaves nothing running behind it
        AT_ONCE.reset(sharing)
        for side in beside:
            home.wait_stream(side)
    _record(results[:-1], home)
    return results


def rooted(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The same tensors; in a call beside the current stream, views of parameters that belong to that stream.

    Their gradients are added up there, as those of other parameters are, behind backward of all the calls. Else each
    stream would have parameters of its own, and where they were known to the current stream before (by
    DistributedDataParallel), that would wait at the first of them.
    """
    home = _home.get()
    if home is None or not torch.is_grad_enabled():
        return tensors
    with torch.cuda.stream(home):
        return [t.view_as(t) if t.requires_grad and t.is_leaf else t for t in tensors]


def _beside(home: Any, device: torch.device, count: int) -> list[Any]:
    """Streams other than this one; the same ones whenever it asks, since memory stays with its stream."""
    kept = _sides.setdefault((home.device.index, home.cuda_stream), [])
    while len(kept) < count:
        taken = {home.cuda_stream, *(stream.cuda_stream for stream in kept)}
        side = torch.cuda.Stream(device)
        for _ in range(32):  # torch hands out 32 streams in turn
            if side.cuda_stream not in taken:
                break
            side = torch.cuda.Stream(device)
        kept.append(side)
    return kept[:count]


def _record(value: Any, stream: Any) -> None:
    """Tensors' memory is not given to others before the stream has done what it was given so far."""
    for tensor in tensors_in(value):
        if tensor.device.type != "cpu":
            tensor.record_stream(stream)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    elif isinstance(value, tuple | list):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            yield from tensors_in(part)
