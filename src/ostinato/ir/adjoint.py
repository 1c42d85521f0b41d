"""The adjoint: gradients of a section of a Program, node by node from the table."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .build import Builder
from .ops import OPS


def adjoint(builder: Builder, section: Collection[int], seeds: Mapping[int, int]) -> dict[int, int]:
    """Append the gradients of `section` to `builder`; returns the gradient of every node that gets one.

    Args:
        builder: holds the forward values; gradients are added behind them.
        section: positions to differentiate through; what lies outside (leaves, hoisted values) only receives.
        seeds: gradient of each root.

    The gradient of a scalar operand of a vector operation is summed (`total`). The gradient of a matrix is never
    built: a weight gradient is a sum over all steps and belongs to the schedule.
    """
    gradient: dict[int, int] = dict(seeds)
    for position in sorted(section, reverse=True):
        grad = gradient.get(position)
        node = builder.nodes[position]
        if grad is None or OPS[node.op].kind in ("leaf", "compare"):
            continue
        for operand, part in zip(node.args, _parts(builder, position, grad), strict=True):
            if part is None:
                continue
            wide, narrow = builder.nodes[part].shape, builder.nodes[operand].shape
            if wide and not narrow:
                part = builder.total(part)
            gradient[operand] = builder.add(gradient[operand], part) if operand in gradient else part
    return gradient


def _parts(builder: Builder, position: int, grad: int) -> tuple[int | None, ...]:
    node = builder.nodes[position]
    if node.op == "matmul":
        return None, builder.op("matmul_t", node.args[0], grad)
    rule = OPS[node.op].derivative
    if rule is None:
        return (None,) * len(node.args)
    return rule(builder, node.args, position, grad)
