"""The same step with other results: without random masks, with every state put out, with nothing put out."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProgramError
from .node import Node, size_sum
from .program import Program


def evaluation(program: Program) -> Program:
    """The step as it is evaluated: every mask at its expectation, so that dropout vanishes. Not yet simplified."""
    if not program.masks:
        return program
    values = {mask.name: mask.expectation for mask in program.masks}
    nodes = tuple(
        Node("const", (), (), float(values[str(n.attr)]), n.name) if n.op == "mask" else n for n in program.nodes
    )
    return replace(program, nodes=nodes, masks=())


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

