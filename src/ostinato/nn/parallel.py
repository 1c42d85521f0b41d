"""Modules that do not depend on one another, called at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import ShapeError
from ..runtime import tensors_in, together

__all__ = ["parallel_apply"]


def parallel_apply(
    modules: Sequence[Callable[..., Any]], inputs: Sequence[Any], kwargs: Sequence[Mapping[str, Any]] | None = None
) -> list[Any]:
    """Call modules that do not depend on one another; on a GPU they run at the same time.

        result[i] = modules[i](*inputs[i], **kwargs[i])

    On a GPU the last runs on the current CUDA stream and each of the others on one of its own, all behind what the
    current stream was given before, and what that is given next waits for all of them: the caller sees one stream, in
    backward too. Kernels of Ostinato's layers share out the multiprocessors. Modules are called in order, so that
    random numbers are those of plain calls.

    They run one after another on the CPU, where the inputs lie on several GPUs, where a module, or a part of one,
    stands in several of them (what it keeps would be written by two at once), and where torch.compile follows the
    calls. Functions that are no nn.Module must not write to what another one reads.

    Args:
        modules: layers, other modules, or functions.
        inputs: for each a tuple of its arguments, or its one argument.
        kwargs: for each its arguments by name; default: none.

    Returns:
        What each gives, in order.

    Raises:
        ShapeError: there are not as many inputs, or kwargs, as modules, or they are no list.

    The name is that of torch.nn.parallel.parallel_apply, which runs one module a GPU.
    """
    named = [{}] * len(modules) if kwargs is None else kwargs
    for what, given in (("inputs", inputs), ("kwargs", named)):
        if isinstance(given, Tensor | PackedSequence):
            raise ShapeError(f"{what} is one {type(given).__name__}; give a list, with an element for each module")
        if len(given) != len(modules):
            raise ShapeError(f"there are {len(modules)} modules, and {len(given)} {what}; give one for each module")
    calls = [partial(_call, module) for module in modules]
    arguments = [(_positional(each), more) for each, more in zip(inputs, named, strict=True)]
    like = _common(arguments)
    if like is None or _overlapping(modules):
        return [call(*given) for call, given in zip(calls, arguments, strict=True)]
    return together(calls, arguments, like)


def _call(module: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any]) -> Any:
    return module(*given, **named)


def _positional(given: Any) -> tuple[Any, ...]:
    """The arguments: a PackedSequence is a tuple too, and is one of them."""
    return given if isinstance(given, tuple) and not isinstance(given, PackedSequence) else (given,)


def _common(given: Any) -> Tensor | None:
    """A tensor of the device on which all lie that are not on the CPU; None if there are several devices, or none."""
    found = {tensor.device: tensor for tensor in tensors_in(given) if not tensor.is_cpu}
    return next(iter(found.values())) if len(found) == 1 else None


def _overlapping(modules: Sequence[Any]) -> bool:
    """Whether a module, or a part of one, stands in several."""
    parts = [{id(part) for part in module.modules()} for module in modules if isinstance(module, nn.Module)]
    return len(set[int]().union(*parts)) < sum(map(len, parts))
