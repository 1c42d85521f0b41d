"""Reading a step of `scan`: run on symbols, it becomes a Program."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import CellError, ProgramError, ShapeError
from ..ir import Program
from ..lang import trace_step
from ..runtime import Step, casting
from .scan_call import Call, pair


class Read(NamedTuple):
    """A step that was read: what runs, the tensors it takes, and the y it puts out."""

    step: Step
    tensors: list[Tensor]
    output: pytree.TreeSpec | None
    widths: list[int]


class _Traced(NamedTuple):
    """What one reading wrote down: the Program, its tensors by name, the form of y, and the widths of what it holds."""

    program: Program
    found: dict[str, Tensor]
    output: pytree.TreeSpec | None
    widths: list[int]


def read(step: Callable[[Any, Any], tuple[Any, Any]], call: Call) -> Read:
    """Read the step.

    Raises:
        CellError, ProgramError: it cannot be read.
        ShapeError: it is another step each time it is read.
    """
    before = _generators()
    first = _trace(step, call)
    # one that tosses a coin may show the same side twice; where no generator moved, once more is enough
    for _ in range(1 if before == _generators() else 9):
        _check_same(first, step, call)
    made = Step.of(first.program, True, {"D": 0, "H": 0})
    tensors = [first.found[own] for own in made.program.params]
    for tensor in tensors:
        if tensor.dtype != call.xs.dtype or tensor.device != call.xs.device:
            raise ShapeError(
                f"the step uses a tensor of {tensor.dtype} on {tensor.device}, but xs is {call.xs.dtype} on "
                f"{call.xs.device}; use .to(xs)"
            )
    return Read(made, tensors, first.output, first.widths)


def _trace(step: Callable[[Any, Any], tuple[Any, Any]], call: Call) -> _Traced:
    found: dict[str, Tensor] = {}
    known: dict[int, str] = {}
    shape: list[pytree.TreeSpec | None] = []

    def name(tensor: Tensor) -> str:
        if id(tensor) not in known:
            known[id(tensor)] = f"w{len(known)}"
            found[known[id(tensor)]] = tensor
        return known[id(tensor)]

    def flat(x: Any, *states: Any) -> tuple[list[Any], list[Any]]:
        carry, y = pair(step(pytree.tree_unflatten(list(states), call.carry), x))
        leaves, spec = pytree.tree_flatten(carry)
        if spec != call.carry:
            raise CellError(f"the step turns a carry of the form {call.carry} into {spec}; return the same form")
        outputs, own = pytree.tree_flatten(y) if y is not None else ([], None)
        shape.append(own)
        return leaves, outputs

    def mode() -> tuple[bool, ...]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), casting(call.xs.device.type)

    with _Plain():
        program, widths = trace_step(flat, call.xs.shape[-1], [s.shape[-1] for s in call.states], name, mode)
    return _Traced(program, found, shape[-1], widths)


def _generators() -> list[Any]:
    """Where the generators of Python and of NumPy stand that a step draws from without naming one."""
    numbers = sys.modules.get("numpy.random")
    kind, keys, *rest = numbers.get_state() if numbers is not None else ("", b"")
    return [random.getstate(), kind, bytes(keys), *rest]


def _check_same(first: _Traced, step: Callable[[Any, Any], tuple[Any, Any]], call: Call) -> None:
    """The step is the same when it is read again: what it takes from outside of torch would be the same at every step.

    Raises:
        ShapeError: it is another one.
    """
    try:
        again = _trace(step, call)
    except (CellError, ProgramError) as error:
        why = f"once it cannot be read: {error}".splitlines()[0]
    else:
        if first.program != again.program and first.program.dumps() != again.program.dumps():  # NaN is no NaN's equal
            why = "its numbers or its operations differ"
        elif all(map(_equal, first.found.values(), again.found.values())):
            return
        else:
            why = "the tensors it makes differ"
    raise ShapeError(
        f"the step is not the same when it is read twice ({why}), as one that draws random numbers with Python or "
        "NumPy, or counts its calls: what was read first would stand for all steps; draw such numbers before and give "
        "them in xs, or draw with torch"
    )


@torch.no_grad()
def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two readings took the same tensor, or made one of the same numbers."""
    if a is b or a.device.type == "meta" or torch._C._are_functorch_transforms_active():  # there are no numbers there
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
        return True
    return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all())


class _Plain(TorchDispatchMode):
    """While a step is read, what it does with tensors alone happens once: that must be the same at every step."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CellError(f"the step draws random numbers ({func}); draw them before and give them in xs")
        if func._schema.is_mutable:
            raise CellError(f"the step changes a tensor in place ({func}); make a new one")
        return func(*args, **(kwargs or {}))
