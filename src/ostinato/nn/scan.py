"""`scan`: the plain functional form of a recurrence, compiled where its step can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import CellError, ProgramError, ShapeError
from ..lang import trace_step
from ..runtime import Runner, Step, check_choice, say_once
from .checks import Lengths, lengths_tensor


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Tensor,
    *,
    reverse: bool = False,
    lengths: Lengths | None = None,
    backend: str = "auto",
) -> tuple[Any, Any]:
    """``carry, y_t = step(carry, x_t)`` over the first axis of `xs`, as jax.lax.scan has it.

    The step is ordinary torch code on the vectors of one sequence: ``torch.tanh(W @ h + U @ x)``. Tensors it has at
    hand are its parameters, and get gradients. It is read once, with symbols for its arguments; arithmetic, products,
    ``linear``, ``cat``, ``mean`` and the elementwise functions of the language become compiled kernels. A step that
    cannot be read (it looks at numbers, or calls other functions) runs as a loop, which is said once in the log.

    Args:
        step: ``(carry, x) -> (new carry, y)``; a carry is a vector [S] or any nest of tuples, lists and dicts of them,
            y the same or None.
        init: the carry before the first step, each vector [S], or [B, S] where sequences differ.
        xs: [T, D] for one sequence, or [T, B, D].
        reverse: from the last step to the first; the y of step t stands at t.
        lengths: steps of each of B sequences; past its end y is 0 and the carry stays.
        backend: "auto", "c" or "eager"; "c" raises where the step cannot be read.

    Returns:
        the carry after the last step, and the stack of all y, [T, S] or [T, B, S].

    Raises:
        ShapeError: shapes that do not fit. CellError, BackendError: ``backend="c"`` cannot run it.

    >>> W, U = torch.eye(2), torch.ones(2, 3)
    >>> carry, ys = scan(lambda h, x: (torch.tanh(W @ h + U @ x),) * 2, torch.zeros(2), torch.ones(5, 3))
    >>> carry.shape, ys.shape, torch.equal(carry, ys[-1])
    (torch.Size([2]), torch.Size([5, 2]), True)
    """
    check_choice(backend)
    call = _Call.of(init, xs, lengths)
    try:
        read = _read(step, call)
    except (CellError, ProgramError) as reason:
        if backend == "c":
            raise
        say_once(f"a step of scan runs as a loop, since it cannot be read: {reason}")
        return _loop(step, call, reverse)
    output, finals = Runner(read.step, reverse)(
        call.xs, [s.unsqueeze(0) for s in call.states], read.tensors, call.lengths, backend
    )
    ys: Any = None if read.output is None else call.give(list(output.split(read.widths, -1)), read.output)
    return call.give([s[0] for s in finals], call.carry), ys


class _Call(NamedTuple):
    """What `scan` is given, with a batch: xs [T, B, D], states [B, S]."""

    xs: Tensor
    states: list[Tensor]
    carry: pytree.TreeSpec
    lengths: Tensor | None
    batched: bool

    @classmethod
    def of(cls, init: Any, xs: Any, lengths: Lengths | None) -> _Call:
        if not isinstance(xs, Tensor) or xs.dim() not in (2, 3):
            got = f"shape {list(xs.shape)}" if isinstance(xs, Tensor) else type(xs).__name__
            raise ShapeError(f"scan got xs of {got}; give a tensor [T, D], or [T, B, D] for a batch")
        batched = xs.dim() == 3
        if not batched and lengths is not None:
            raise ShapeError("lengths were given with one sequence [T, D]; cut it, or give a batch [T, B, D]")
        whole = xs if batched else xs.unsqueeze(1)
        leaves, carry = pytree.tree_flatten(init)
        states: list[Tensor] = []
        for leaf in leaves:
            most = 2 if batched else 1
            if not isinstance(leaf, Tensor) or not 1 <= leaf.dim() <= most:
                got = list(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ShapeError(f"scan got {got} in init; a carry is [S]{', or [B, S]' if batched else ''}")
            if leaf.dim() == 2 and leaf.shape[0] != whole.shape[1]:
                raise ShapeError(
                    f"init has {list(leaf.shape)} for a batch of {whole.shape[1]}; give [S] or [{whole.shape[1]}, S]"
                )
            if leaf.dtype != xs.dtype or leaf.device != xs.device:
                raise ShapeError(
                    f"init is {leaf.dtype} on {leaf.device}, but xs is {xs.dtype} on {xs.device}; use init.to(xs)"
                )
            states.append(leaf if leaf.dim() == 2 else leaf.expand(whole.shape[1], -1))
        ends = None if lengths is None else lengths_tensor(lengths, whole.shape[1], whole.shape[0])
        return cls(whole, states, carry, ends, batched)

    def give(self, values: Sequence[Tensor], spec: pytree.TreeSpec) -> Any:
        """Values with a batch in the caller's form."""
        return pytree.tree_unflatten([v if self.batched else v.squeeze(-2) for v in values], spec)


class _Read(NamedTuple):
    """A step that was read: what runs, the tensors it takes, and the y it puts out."""

    step: Step
    tensors: list[Tensor]
    output: pytree.TreeSpec | None
    widths: list[int]


def _read(step: Callable[[Any, Any], tuple[Any, Any]], call: _Call) -> _Read:
    found: dict[str, Tensor] = {}
    known: dict[int, str] = {}
    shape: list[pytree.TreeSpec | None] = []

    def name(tensor: Tensor) -> str:
        if id(tensor) not in known:
            known[id(tensor)] = f"w{len(known)}"
            found[known[id(tensor)]] = tensor
        return known[id(tensor)]

    def flat(x: Any, *states: Any) -> tuple[list[Any], list[Any]]:
        carry, y = _pair(step(pytree.tree_unflatten(list(states), call.carry), x))
        leaves, spec = pytree.tree_flatten(carry)
        if spec != call.carry:
            raise CellError(f"the step turns a carry of the form {call.carry} into {spec}; return the same form")
        outputs, own = pytree.tree_flatten(y) if y is not None else ([], None)
        shape.append(own)
        return leaves, outputs

    program, widths = trace_step(flat, call.xs.shape[-1], [s.shape[-1] for s in call.states], name)
    made = Step.of(program, True, {"D": 0, "H": 0})
    tensors = [found[own] for own in made.program.params]
    for tensor in tensors:
        if tensor.dtype != call.xs.dtype or tensor.device != call.xs.device:
            raise ShapeError(
                f"the step uses a tensor of {tensor.dtype} on {tensor.device}, but xs is {call.xs.dtype} on "
                f"{call.xs.device}; use .to(xs)"
            )
    return _Read(made, tensors, shape[-1], widths)


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ShapeError(f"the step returned {type(result).__name__}; return (new carry, y), with y None for no output")
    return result


def _loop(step: Callable[[Any, Any], tuple[Any, Any]], call: _Call, reverse: bool) -> tuple[Any, Any]:
    """The same, step by step, in torch."""
    steps, batch = call.xs.shape[:2]
    lengths = torch.full((batch,), steps) if call.lengths is None else call.lengths
    across = torch.arange(batch, device=call.xs.device)

    def one(states: list[Tensor], x: Tensor) -> tuple[list[Tensor], Any]:
        carry, y = _pair(step(pytree.tree_unflatten(states, call.carry), x))
        leaves, spec = pytree.tree_flatten(carry)
        if spec != call.carry:
            raise ShapeError(f"the step turns a carry of the form {call.carry} into {spec}; return the same form")
        return leaves, () if y is None else (y,)

    whole = torch.vmap(one, randomness="different")
    states, rows = call.states, list[list[Tensor]]()
    spec: pytree.TreeSpec | None = None
    for t in range(steps):
        at = (lengths - 1 - t).clamp_min(0) if reverse else torch.full_like(lengths, t)
        new, y = whole(states, call.xs[at.to(across.device), across])
        running = (t < lengths).to(across.device).unsqueeze(1)
        states = [torch.where(running, a, b) for a, b in zip(new, states, strict=True)]
        leaves, spec = pytree.tree_flatten(y)
        rows.append([torch.where(running, leaf, torch.zeros_like(leaf)) for leaf in leaves])
    finals = call.give(states, call.carry)
    if spec is None:
        raise ShapeError("scan over no steps cannot tell what this step puts out; give T >= 1")
    stacks = [torch.stack(column) for column in zip(*rows, strict=True)]
    if reverse and stacks:  # the y of step t stands at t
        times = torch.arange(steps).unsqueeze(1)
        place = torch.where(times < lengths, lengths - 1 - times, times).to(across.device)
        stacks = [stack[place, across] for stack in stacks]
    found = call.give(stacks, spec)
    return finals, found[0] if found else None
