"""Which states are activations, and which only hold or count."""

from __future__ import annotations

from .program import Program


def delayed(program: Program) -> tuple[str, ...]:
    """The states of a simplified Program that are delay lines: they hold another state's old value, or the input's."""
    found: list[str] = []
    for name, position in zip(program.states, program.next_states, strict=True):
        node = program.nodes[position]
        if node.op == "input" or (node.op == "state" and node.attr != name):
            found.append(name)
    return tuple(found)


def activations(program: Program) -> tuple[str, ...]:
    """The states of a simplified Program that are no bookkeeping (`Program.auxiliary`) and no delay lines."""
    held = {*program.auxiliary, *delayed(program)}
    return tuple(name for name in program.states if name not in held)
