"""`scan`: the plain functional form of a recurrence, compiled where its step can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import CellError, OstinatoError, ProgramError, ShapeError
from ..lang import trace_step
from ..lang.symbol import Symbol
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
    cannot be read runs as a loop, which is said once in the log: one that looks at numbers (``if h.sum() > 0``), draws
    random ones, changes a value in place, turns gradients off, or calls other functions. Over no steps at all such a
    step is called once, on zeros, to tell what it puts out.

    Args:
        step: ``(carry, x) -> (new carry, y)``; a carry is a vector [S] or any nest of tuples, lists and dicts of them,
            y the same or None (where
            it runs as a loop, tensors of any shape).
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
    if not callable(step):
        raise ShapeError(f"scan got {type(step).__name__} for a step; give a function: step(carry, x) -> (carry, y)")
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
    ys: Any = None if read.output is None else call.give(list(output.split(read.widths, -1)), read.output, 1)
    return call.give([s[0] for s in finals], call.carry, 0), ys


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

    def give(self, values: Sequence[Tensor], spec: pytree.TreeSpec, axis: int) -> Any:
        """Values with a batch, which is this axis, in the caller's form."""
        return pytree.tree_unflatten([v if self.batched else v.squeeze(axis) for v in values], spec)


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

    def mode() -> tuple[bool, ...]:
        casting = torch.is_autocast_enabled(call.xs.device.type)
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), casting

    with _Plain():
        program, widths = trace_step(flat, call.xs.shape[-1], [s.shape[-1] for s in call.states], name, mode)
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
        got = "one value" if isinstance(result, Tensor | Symbol) else type(result).__name__
        raise ShapeError(f"the step returned {got}; return (new carry, y), with y None for no output")
    return result


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


class _Whole:
    """The step in torch, for all sequences at once; one by one from where it can do that no more."""

    def __init__(self, step: Callable[[Any, Any], tuple[Any, Any]], call: _Call) -> None:
        self.step = step
        self.call = call
        self.spec: pytree.TreeSpec | None = None  # of y
        self.all: Callable[..., Any] | None = torch.vmap(self.one, randomness="different")

    def one(self, states: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The new states and the leaves of y of one sequence."""
        carry, y = _pair(self.step(pytree.tree_unflatten(states, self.call.carry), x))
        leaves, spec = pytree.tree_flatten(carry)
        if spec != self.call.carry:
            raise ShapeError(f"the step turns a carry of the form {self.call.carry} into {spec}; return the same form")
        for old, new in zip(self.call.states, leaves, strict=True):
            if not isinstance(new, Tensor) or new.shape != old.shape[1:]:
                got = list(new.shape) if isinstance(new, Tensor) else f"{type(new).__name__} {new!r}"
                raise ShapeError(
                    f"the step turns a vector {list(old.shape[1:])} of the carry into {got}; return one of its size"
                )
        outputs, self.spec = ([], None) if y is None else pytree.tree_flatten(y)
        for value in outputs:
            if not isinstance(value, Tensor):
                raise ShapeError(
                    f"the step puts out {type(value).__name__} {value!r}; return tensors as y, or None for no output"
                )
        return leaves, outputs

    def __call__(self, states: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """New states, each [B, S], and the leaves of y, each [B, ...], from states and x [B, D]."""
        if not len(x):
            new, outputs = self.one([s.new_zeros(s.shape[1:]) for s in states], x.new_zeros(x.shape[1:]))
            return states, [y.new_zeros(0, *y.shape) for y in outputs]
        if self.all is not None:
            try:  # copies, as the step may change them in place
                return self.all([s.clone() for s in states], x.clone())
            except OstinatoError:
                raise
            except Exception:  # noqa: BLE001 - what looks at numbers cannot be done at once; an error of its own comes again
                self.all = None
        rows = [self.one([s[b].clone() for s in states], x[b].clone()) for b in range(len(x))]
        new, outputs = ([torch.stack(column) for column in zip(*part, strict=True)] for part in zip(*rows, strict=True))
        return new, outputs


def _loop(step: Callable[[Any, Any], tuple[Any, Any]], call: _Call, reverse: bool) -> tuple[Any, Any]:
    """The same, step by step, in torch."""
    steps, batch = call.xs.shape[:2]
    lengths = torch.full((batch,), steps) if call.lengths is None else call.lengths
    across = torch.arange(batch, device=call.xs.device)
    whole = _Whole(step, call)
    states, rows = call.states, list[list[Tensor]]()
    for t in range(steps):
        at = (lengths - 1 - t).clamp_min(0) if reverse else torch.full_like(lengths, t)
        new, outputs = whole(states, call.xs[at.to(across.device), across])
        running = (t < lengths).to(across.device)
        states = [_where(running, a, b) for a, b in zip(new, states, strict=True)]
        rows.append([_where(running, y, torch.zeros_like(y)) for y in outputs])
    finals = call.give(states, call.carry, 0)
    if not steps:  # what y would be, a step on zeros tells
        outputs = whole([s.new_zeros(1, s.shape[1]) for s in states], call.xs.new_zeros(1, call.xs.shape[2]))[1]
        stacks = [y.new_zeros(0, batch, *y.shape[1:]) for y in outputs]
    else:
        stacks = [torch.stack(column) for column in zip(*rows, strict=True)]
    if reverse and stacks:  # the y of step t stands at t
        times = torch.arange(steps).unsqueeze(1)
        place = torch.where(times < lengths, lengths - 1 - times, times).to(across.device)
        stacks = [stack[place, across] for stack in stacks]
    return finals, None if whole.spec is None else call.give(stacks, whole.spec, 1)


def _where(running: Tensor, value: Tensor, other: Tensor) -> Tensor:
    """The value of the sequences that run, the other of the rest; both [B, ...]."""
    return torch.where(running.reshape(-1, *[1] * (value.dim() - 1)), value, other)
