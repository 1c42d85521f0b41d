"""The eager backend: a Program interpreted in torch operations. It defines the meaning.

Any device, any floating dtype, double backward, vmap: torch's own autograd differentiates it, so it is an independent
witness of the compiled kernels, whose gradients come from our adjoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...ir import INPUT, STATE, Node, Program, levels, size_value
from ..base import on_device

Values = list[Any]


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, Tensor):
        return a if condition else b
    like = next((v for v in (a, b) if isinstance(v, Tensor)), None)
    dtype = torch.get_default_dtype() if like is None else like.dtype
    a, b = (v if isinstance(v, Tensor) else torch.full((), v, dtype=dtype, device=condition.device) for v in (a, b))
    return torch.where(condition, a, b)


def _extreme(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Any]:
    def run(a: Any, b: Any) -> Any:
        like = a if isinstance(a, Tensor) else b
        a, b = (v if isinstance(v, Tensor) else torch.full_like(like, v) for v in (a, b))
        return function(a, b)

    return run


def _matmul(matrix: Tensor, vector: Tensor) -> Tensor:
    return functional.linear(vector, matrix)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "softplus": lambda a: torch.logaddexp(a, torch.zeros_like(a)),  # torch's own is linear from 20 on
    "abs": torch.abs,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": _extreme(torch.maximum),
    "minimum": _extreme(torch.minimum),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "where": _where,
    # of a batch of vectors a scalar each, which meets vectors as [..., 1]; of a vector of parameters one scalar
    "total": lambda a: a.sum(-1, keepdim=a.dim() > 1),
    "batch_mean": lambda a: a.mean(-2, keepdim=True).expand_as(a),
    "transpose": lambda a: a.transpose(-1, -2),
    "matmul": _matmul,
    "concat": lambda *parts: torch.cat(torch.broadcast_tensors(*parts) if len(parts) == 1 else _even(parts), -1),
}


def _even(parts: Sequence[Tensor]) -> list[Tensor]:
    """Bring a vector of parameters and a batch of vectors to one number of dimensions."""
    lead = max((p.shape[:-1] for p in parts), key=len)
    return [p.expand(*lead, p.shape[-1]) for p in parts]


def evaluate(node: Node, args: Sequence[Any], sizes: dict[str, int]) -> Any:
    """The value of one node that is not a leaf; vectors may carry batch dimensions before their own."""
    if node.op == "pow":
        return args[0] ** node.attr
    if node.op == "size":
        return float(size_value(str(node.attr), sizes))
    if node.op in ("cols", "rows"):  # the first dimension of a matrix is its rows
        start = size_value(str(node.attr or ""), sizes)
        across = -2 if node.op == "rows" and len(node.shape) == 2 else -1
        return args[0].narrow(across, start, size_value(node.shape[across], sizes))
    if node.op not in ("matmul", "concat") and not any(isinstance(a, Tensor) for a in args):
        args = [torch.tensor(a, dtype=torch.get_default_dtype()) for a in args]
    return OPERATIONS[node.op](*args)


@lru_cache(maxsize=256)
def _parts(program: Program) -> tuple[tuple[tuple[int, Node], ...], ...]:
    """The nodes of each level, leaves excluded, and the leaves."""
    level = levels(program)
    given = ("const", "param", "input", "state", "mask")
    inner = [(i, n) for i, n in enumerate(program.nodes) if n.op not in given]
    leaves = [(i, n) for i, n in enumerate(program.nodes) if n.op in given]
    by_level = [tuple((i, n) for i, n in inner if level[i] == k) for k in range(STATE + 1)]
    return (*by_level, tuple(leaves))


def recurrence(
    program: Program,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    sizes: dict[str, int],
    lengths: Sequence[int] | None = None,
    reverse: bool = False,
    masks: Sequence[Tensor] = (),
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Run a Program over a sequence.

    Args:
        program: the step.
        x: [T, B, D].
        states: the states before the first step, each [B, S].
        params: the parameters in the order of ``program.params``.
        sizes: the number each size symbol stands for.
        lengths: steps of each sequence; what lies past them is not read.
        reverse: run from each sequence's last step to its first.
        masks: in the order of ``program.masks``: [T, B, S], [1, B, S] for all steps, or a matrix.

    Returns:
        the outputs [T, B, O] (zeros past a sequence's end), the states after each sequence's last step, each [B, S],
        and the statistics that the step measures, each [T, S] in the order in which steps run (zeros where no sequence
        does), which nothing is differentiated through.
    """
    steps, batch = x.shape[0], x.shape[1]
    if lengths is not None:
        return _ragged(program, x, states, params, sizes, lengths, reverse, masks)
    if reverse:
        x = x.flip(0)
        masks = [m.flip(0) if m.dim() == 3 else m for m in masks]
    outputs, finals, statistics = _loop(program, x, states, params, sizes, [batch] * steps, masks)
    if not outputs:
        empty = _nothing(x, params, 0, size_value(program.output_size, sizes))
        return empty, tuple(s.clone() for s in finals), statistics
    if reverse:
        outputs.reverse()
    return torch.stack(outputs), finals, statistics


def _ragged(
    program: Program,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    sizes: dict[str, int],
    lengths: Sequence[int],
    reverse: bool,
    masks: Sequence[Tensor],
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Longest first, so that the sequences still running are the first rows of every step."""
    steps, batch = x.shape[0], x.shape[1]
    order = sorted(range(batch), key=lambda b: -lengths[b])
    running = [sum(1 for n in lengths if n > t) for t in range(max(lengths, default=0))]
    rank = on_device(torch.tensor(order, dtype=torch.long, device="cpu"), x.device)
    back = torch.argsort(rank)
    # Where step t of a sequence lies in its rows of x. Past its end stands the longest sequence's row: it is not used,
    # and what is computed of it for all steps at once is as finite as the rest, so that no gradient of 0 becomes NaN.
    rows = [[b if t < lengths[b] else order[0] for b in order] for t in range(len(running))]
    times = [[lengths[b] - 1 - t if reverse else t for b in row] for t, row in enumerate(rows)]

    def table(values: list[list[int]]) -> Tensor:
        return on_device(torch.tensor(values, dtype=torch.long, device="cpu"), x.device).reshape(len(running), batch)

    def arrange(given: Tensor) -> Tensor:
        if given.dim() < 3:
            return given
        if given.shape[0] == 1 and steps != 1:  # the same at every step
            return given[:, rank]
        return given[table(times), table(rows)] if running else given[:0, rank]

    x = arrange(x)
    outputs, finals, statistics = _loop(
        program, x, [s[rank] for s in states], params, sizes, running, [arrange(m) for m in masks]
    )
    statistics = tuple(functional.pad(s, (0, 0, 0, steps - len(running))) for s in statistics)
    width = size_value(program.output_size, sizes)
    padded = [functional.pad(y, (0, 0, 0, batch - y.shape[0])) for y in outputs]
    stacked = torch.stack(padded) if padded else _nothing(x, params, 1 if steps else 0, width)
    finals = tuple(s[back] for s in finals)
    whole = functional.pad(stacked, (0, 0, 0, 0, 0, steps - stacked.shape[0]))[:, back]
    if reverse:  # put step t of the reversed run where it came from
        where = [[(n - 1 - t if t < n else t) for n in lengths] for t in range(steps)]
        at = on_device(torch.tensor(where, dtype=torch.long, device="cpu"), x.device).reshape(steps, batch)
        whole = whole[at, torch.arange(batch, device=x.device)]
    return whole, finals, statistics


def _nothing(x: Tensor, params: Sequence[Tensor], steps: int, width: int) -> Tensor:
    """The zeros that no step wrote; they hang on the inputs, whose gradients are zeros."""
    none = torch.cat([t.reshape(-1)[:0] for t in (x, *params)]).sum()
    return x.new_zeros(steps, x.shape[1], width) + none


def _loop(
    program: Program,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    sizes: dict[str, int],
    running: Sequence[int],
    masks: Sequence[Tensor],
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The time loop; step t has the first ``running[t]`` sequences."""
    once, hoisted, looped, leaves = _parts(program)
    values: Values = [None] * len(program.nodes)
    by_name = dict(zip(program.params, params, strict=True))
    given = {m.name: t for m, t in zip(program.masks, masks, strict=True)}
    for i, node in leaves:
        if node.op == "const":
            values[i] = node.attr
        elif node.op == "param":
            values[i] = by_name[str(node.attr)]
        elif node.op == "input":
            values[i] = x
        elif node.op == "mask":
            mask = given[str(node.attr)]
            values[i] = mask.expand(x.shape[0], -1, -1) if mask.dim() == 3 and mask.shape[0] == 1 else mask
    for i, node in (*once, *hoisted):
        values[i] = evaluate(node, [values[a] for a in node.args], sizes)
    level = levels(program)
    whole = [i for i, node in enumerate(program.nodes) if level[i] == INPUT]
    current = list(states)
    outputs: list[Tensor] = []
    measured = {i: size_value(program.nodes[i].shape[0], sizes) for i in program.measured.values()}
    means: dict[int, list[Tensor]] = {i: [] for i in measured}
    state_nodes = [(i, program.states.index(str(n.attr))) for i, n in leaves if n.op == "state"]
    for t, count in enumerate(running):
        step = list(values)
        for i in whole:
            step[i] = values[i][t, :count]
        for i, place in state_nodes:
            step[i] = current[place][:count]
        for i, node in looped:
            step[i] = evaluate(node, [step[a] for a in node.args], sizes)
        for i, size in measured.items():
            means[i].append(step[i].detach()[0] if count else x.new_zeros(size))
        rows = [_as_rows(step[i], count, size_value(program.nodes[i].shape[0], sizes)) for i in program.roots]
        outputs.append(rows.pop() if program.output >= 0 else x.new_empty(count, 0))
        for place, new in enumerate(rows):
            old = current[place]
            current[place] = new if count == old.shape[0] else torch.cat([new, old[count:]])
    borrowed = _borrowed(program)
    finals = tuple(s.clone() if place in borrowed else s for place, s in enumerate(current))
    return outputs, finals, tuple(torch.stack(m) if m else x.new_zeros(0, measured[i]) for i, m in means.items())


@lru_cache(maxsize=256)
def _borrowed(program: Program) -> frozenset[int]:
    """The states whose next value is no memory of its own: x or a state passed on, parameters alone, or another's."""
    nexts, level = program.next_states, levels(program)
    return frozenset(
        place
        for place, i in enumerate(nexts)
        if program.nodes[i].op in ("input", "state", "mask") or level[i] < STATE or i in nexts[:place]
    )


def _as_rows(value: Tensor, count: int, width: int) -> Tensor:
    """A value that depends on parameters only is the same for every sequence."""
    return value if value.dim() == 2 else value.expand(count, width)
