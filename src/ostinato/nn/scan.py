"""`scan`: the plain functional form of a recurrence, compiled where its step can be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import CellError, ProgramError, ShapeError
from ..runtime import Inputs, Runner, check_choice, say_once
from .checks import Lengths
from .scan_call import Call
from .scan_loop import run_loop
from .scan_read import read


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

    What the step takes from outside of torch is read once and stands for all steps. It is read twice to find out
    whether it is the same: one that draws random numbers with Python or NumPy is refused.

    torch.compile breaks its graph at a call of `scan`, which runs as it does elsewhere. With ``fullgraph=True`` it
    refuses; a cell of the same equations in an `RNN` compiles into one graph.

    Args:
        step: ``(carry, x) -> (new carry, y)``; a carry is a vector [S] or any nest of tuples, lists and dicts of them,
            y the same or None (where it runs as a loop, tensors of any shape).
        init: the carry before the first step, each vector [S], or [B, S] where sequences differ.
        xs: [T, D] for one sequence, or [T, B, D].
        reverse: from the last step to the first; the y of step t stands at t.
        lengths: steps of each of B sequences; past its end y is 0 and the carry stays.
        backend: "auto", "c", "triton" or "eager"; "c" and "triton" raise where the step cannot be found.

    Returns:
        the carry after the last step, and the stack of all y, [T, S] or [T, B, S].

    Raises:
        ShapeError: shapes that do not fit, a step that is another one each time it is read.
        CellError, BackendError: the backend that is asked for cannot run it.

    >>> W, U = torch.eye(2), torch.ones(2, 3)
    >>> carry, ys = scan(lambda h, x: (torch.tanh(W @ h + U @ x),) * 2, torch.zeros(2), torch.ones(5, 3))
    >>> carry.shape, ys.shape, torch.equal(carry, ys[-1])
    (torch.Size([2]), torch.Size([5, 2]), True)
    """
    check_choice(backend)
    if not callable(step):
        raise ShapeError(f"scan got {type(step).__name__} for a step; give a function: step(carry, x) -> (carry, y)")
    if torch.compiler.is_compiling():
        from .scan_apart import run  # torch.compile is loaded by now; elsewhere it would take a second

        return run(step, init, xs, reverse, lengths, backend)
    return run_scan(step, init, xs, reverse, lengths, backend)


def run_scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Tensor,
    reverse: bool,
    lengths: Lengths | None,
    backend: str,
) -> tuple[Any, Any]:
    """`scan` of arguments that were checked."""
    call = Call.of(init, xs, lengths)
    try:
        found = read(step, call)
    except (CellError, ProgramError) as reason:
        if backend in ("c", "triton"):
            raise
        say_once(f"a step of scan runs as a loop, since it cannot be read: {reason}")
        return run_loop(step, call, reverse)
    inputs = Inputs(call.xs, [s.unsqueeze(0) for s in call.states], call.lengths, reverse)
    output, finals, _ = Runner(found.step)(inputs, found.tensors, backend)
    ys: Any = None if found.output is None else call.give(list(output.split(found.widths, -1)), found.output, 1)
    return call.give([s[0] for s in finals], call.carry, 0), ys
