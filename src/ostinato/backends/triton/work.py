"""What a call has to do: operations and bytes, by the Plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...schedule import BatchMean, Loop, Plan, Run, StepLoop
from .layout import Layout

__all__ = ["Work", "pointwise", "work"]


class Work(NamedTuple):
    """Floating-point operations, and bytes to and from memory."""

    operations: float
    bytes: float


def work(plan: Plan, sizes: Sequence[int], name: str, steps: int, batch: int) -> Work:
    """What the least of a call is: products, pointwise operations, and each byte of what it is given and gives once.

    Args:
        plan: the schedule; sizes: in the order of its symbols.
        name: infer, train, or backward.
        steps, batch: T and B.
    """
    layout, rows = Layout(plan, sizes), steps * batch
    areas = {name: layout.of(height) * layout.of(width) for name, height, width in plan.matrices}
    slots = {"infer": plan.infer, "train": plan.forward, "backward": plan.backward}[name]
    runs = [slot for slot in slots if isinstance(slot, Run)]
    runs += plan.deferred if name == "backward" else plan.hoist
    products = sum(areas[entry.matrix] for run in runs for entry in run.entries)
    products += sum(areas[grad.matrix] for grad in plan.weight_grads) if name == "backward" else 0
    width, columns = layout.of(plan.input_size), sum(map(layout.width, range(len(plan.columns))))
    values = width + layout.output_size  # read and written by infer; backward reads and writes gradients of both
    if name == "train":
        values += columns
    elif name == "backward":
        values += width + layout.output_size + 2 * columns
    parameters = sum(areas.values()) * (2 if name == "backward" else 1)
    return Work(rows * (2.0 * products + pointwise(layout, name)), 4.0 * (rows * values + parameters))


def pointwise(layout: Layout, name: str) -> float:
    """Pointwise operations of a row in a step, a function of several instructions counted as such."""
    plan = layout.plan
    slots = {"infer": plan.infer, "train": plan.forward, "backward": plan.backward}[name]
    total = 0.0
    for slot in slots:
        if isinstance(slot, Run):
            continue
        if isinstance(slot, BatchMean):
            total += layout.of(slot.size)
            continue
        total += layout.of(slot.size) * sum(_weight(plan.nodes[i].op) for i in _computed(plan, slot))
    return total


# instructions of a function, as the compiler makes them
_WEIGHTS = {"tanh": 12, "sigmoid": 8, "softplus": 14, "exp": 3, "log": 3, "pow": 8, "div": 4, "sin": 12, "cos": 12}


def _computed(plan: Plan, slot: Loop | StepLoop) -> set[int]:
    """The nodes that a loop computes."""
    found: set[int] = set()
    left = [store.node for store in slot.stores]
    ready = {node for node, _ in slot.loads}
    while left:
        i = left.pop()
        if i not in found and i not in ready:
            found.add(i)
            left += plan.nodes[i].args
    return found


def _weight(op: str) -> float:
    return _WEIGHTS.get(op, 1)
