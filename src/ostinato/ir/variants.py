"""The same step with other results: as it is evaluated, with states put out, with nothing put out."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProgramError
from .node import Mask, Node, size_sum
from .program import Program


def evaluation(program: Program) -> Program:
    """The step as it is evaluated: every mask at its expectation, so that dropout vanishes, and every statistic of the
    batch a leaf that the layer gives, [T, B, S]. Not yet simplified.
    """
    if not program.masks and not program.statistics:
        return program
    names = {s.name for s in program.statistics}
    values = {mask.name: mask.expectation for mask in program.masks if mask.name not in names}
    given = tuple(Mask(s.name, 1.0) for s in program.statistics)

    def evaluated(node: Node) -> Node:
        if node.op == "mask" and str(node.attr) in values:
            return Node("const", (), (), float(values[str(node.attr)]), node.name)
        if node.op == "batch_mean" and node.attr is not None:
            return Node("mask", (), node.shape, node.attr, node.name)
        return node

    return replace(program, nodes=tuple(map(evaluated, program.nodes)), masks=given)


def with_states_out(program: Program) -> Program:
    """The step that puts out its output and behind it every state."""
    parts = (program.output, *program.next_states) if program.output >= 0 else program.next_states
    shape = (size_sum(*(program.nodes[i].shape[0] for i in parts)),)
    nodes = (*program.nodes, Node("concat", parts, shape))
    return replace(program, nodes=nodes, output=len(nodes) - 1)


def without_output(program: Program) -> Program:
    """The step that puts out nothing: a layer that is asked for the last states only builds no stack of outputs."""
    return replace(program, output=-1)


def output_as_state(program: Program, name: str) -> Program:
    """The step that carries its output as one more state, the last: what it put out last is a final state."""
    if program.output < 0 or name in program.states:
        raise ProgramError(f"{program.name} has no output to carry, or a state {name!r} already; choose another name")
    return replace(
        program, states=(*program.states, name), next_states=(*program.next_states, program.output), output=-1
    )
