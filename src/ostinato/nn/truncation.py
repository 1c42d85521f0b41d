"""Truncated backpropagation through time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from .checks import Lengths, check_causal, check_sizes, lengths_tensor
from .masks import piece
from .rnn import RNN
from .state import detach_state

Call = Callable[[Tensor, Any, "Tensor | None"], "tuple[Any, Any]"]


def truncate(
    layer: nn.Module,
    x: Tensor,
    k1: int,
    k2: int | None = None,
    state: Any = None,
    lengths: Lengths | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Run over a long sequence in pieces, each with a gradient that reaches back k2 steps (Williams & Peng 1990).

    Every k1 steps the outputs of these steps come out, to make a loss of, to call backward on and to update the
    weights with, before the next are asked for. Their gradients go back k2 steps from the last of them. Where k2 > k1
    the k2 - k1 steps before are run again with the weights as they are then, from the state that was noted there:
    k1 = k2 costs each step once, k1 = 1 costs it k2 times.

    Random masks that are one for all steps (`variational_dropout`, `weight_drop`) are drawn once, for all pieces.
    Others are drawn for each step, and again for a step that runs again. In a layer that torch.compile made all are
    drawn again with each piece.

    Args:
        layer: an `RNN`, or any module called as ``output, state = layer(x, state)``, such as one of torch.nn's; with
            ``batch_first=True`` time is the second axis of x.
        x: [T, B, D] or as `layer` takes it. T need not be a multiple of k1: the last piece is shorter.
        k1: steps between updates.
        k2: steps that gradients go back, k2 >= k1. None: k1.
        state: before the first step, taken without its history; None: the layer's initial state, whose parameters, if
            it is learned, have a gradient from the outputs of the first k2 steps.
        lengths: steps of each sequence, as a layer takes them.
        generator: of torch, for dropout and masks.

    Yields:
        The outputs of the next k1 steps, and the state behind them. Both have a history.

    Raises:
        ShapeError: k2 < k1, a module that takes no state or no lengths, or one that cannot run piece by piece:
            it is bidirectional, looks ahead, or has statistics of batch_norm.

    >>> layer, head = RNN("gru", 3, 8), nn.Linear(8, 1)
    >>> optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1)
    >>> x, y, at = torch.randn(100, 2, 3), torch.randn(100, 2, 1), 0
    >>> for output, state in truncate(layer, x, k1=20, k2=40):
    ...     loss = (head(output) - y[at : at + len(output)]).square().mean()
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     at += len(output)
    >>> at
    100
    """
    k2 = k1 if k2 is None else k2
    check_sizes(k1=k1, k2=k2)
    if k2 < k1:
        raise ShapeError(
            f"k2 is {k2}, less than k1 = {k1}: some outputs would have no gradient; pass k2 >= k1, the steps a "
            "gradient goes back"
        )
    if not isinstance(x, Tensor) or x.dim() not in (2, 3):
        raise ShapeError(
            "truncate cuts a tensor [T, B, D] in time, got "
            f"{list(x.shape) if isinstance(x, Tensor) else type(x).__name__}; unpack a PackedSequence and pass lengths="
        )
    _check_takes(layer, {"lengths": lengths, "generator": generator})
    check_causal(layer, "truncate")
    if getattr(layer, "stateful", False):
        raise ShapeError("truncate carries the states itself, but the layer has stateful=True; build it without")
    time = 1 if x.dim() == 3 and getattr(layer, "batch_first", False) else 0
    steps = x.shape[time]
    if lengths is not None:
        lengths = lengths_tensor(lengths, x.shape[1 - time] if x.dim() == 3 else 1, steps)
    call = _with_masks(_called(layer, generator), layer, x, generator)
    return _pieces(call, x, time, k1, k2, detach_state(state), lengths)


def _with_masks(call: Call, layer: nn.Module, x: Tensor, generator: torch.Generator | None) -> Call:
    """The same call, where each piece has the same masks of those that are one for all steps."""
    layers = [module for module in layer.modules() if isinstance(module, RNN)]
    programs = [program for rnn in layers for program in rnn.programs]
    if not any(mask.locked or len(p.mask_shapes[mask.name]) == 2 for p in programs for mask in p.masks):
        return call
    device = x.device if generator is None else generator.device
    seed = int(torch.randint(2**62, (), device=device, generator=generator))

    def one(x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Any, Any]:
        with piece(torch.Generator(device).manual_seed(seed)):
            return call(x, state, lengths)

    return one


def _check_takes(layer: nn.Module, options: dict[str, Any]) -> None:
    """The module is called with a state, and with those options that are given."""
    what = type(layer).__name__
    try:
        signature = inspect.signature(layer.forward)
    except (TypeError, ValueError, AttributeError):  # compiled code tells nothing
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ShapeError(
            f"truncate calls output, state = layer(x, state), but {what} does not take two arguments; give it the "
            "recurrent layer alone, and apply what stands around it to x and to the outputs"
        ) from None
    for name, value in options.items():
        try:
            signature.bind(None, None, **{} if value is None else {name: value})
        except TypeError:
            raise ShapeError(
                f"truncate was given {name}, but {what} takes none; leave {name} out, or use a layer of ostinato (of a "
                "module of torch.nn: ostinato.nn.from_torch)"
            ) from None


def _called(layer: nn.Module, generator: torch.Generator | None) -> Call:
    """The layer as a function of x, state and lengths, whatever it returns by default."""
    if isinstance(layer, RNN):
        return lambda x, state, lengths: layer(
            x, state, lengths, generator=generator, return_sequences=True, return_states=False
        )
    more = {} if generator is None else {"generator": generator}

    def call(x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Any, Any]:
        found = layer(x, state, **({} if lengths is None else {"lengths": lengths}), **more)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], Tensor):
            raise ShapeError(
                f"truncate needs output, state = layer(x, state), but {type(layer).__name__} returned "
                f"{type(found).__name__}; give a module that returns its outputs as one tensor, and its state"
            )
        return found

    return call


def _pieces(
    call: Call, x: Tensor, time: int, k1: int, k2: int, noted: Any, lengths: Tensor | None
) -> Iterator[tuple[Any, Any]]:
    """`noted` is the state, without history, before the step at which the next gradient ends."""

    def run(first: int, end: int, state: Any) -> tuple[Tensor, Any]:
        own = None if lengths is None else (lengths - first).clamp(0, end - first)
        return call(x.narrow(time, first, end - first), state, own)

    steps = x.shape[time]
    ends = [*range(k1, steps, k1), steps] if steps else []
    starts = [max(0, end - k2) for end in ends]
    for k, (first, end) in enumerate(zip(starts, ends, strict=True)):
        following = starts[k + 1] if k + 1 < len(starts) else first
        before, outputs, state = noted, [], noted
        if following > first:  # note the state where the next one begins
            output, state = run(first, following, before)
            outputs.append(output)
            noted = detach_state(state)
        if following < end:
            output, state = run(following, end, state)
            outputs.append(output)
        whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs, time)
        wanted = end - (ends[k - 1] if k else 0)
        yield whole.narrow(time, whole.shape[time] - wanted, wanted), state
