"""What a value depends on: parameters only, the input, or the states."""

from __future__ import annotations

from dataclasses import replace

from .program import Program

PARAMETERS, INPUT, STATE = 0, 1, 2


def levels(program: Program) -> tuple[int, ...]:
    """For every node 0 (parameters and constants: once per call), 1 (x: for all steps at once), 2 (the time loop)."""
    found: list[int] = []
    for node in program.nodes:
        # which sequences a mean over the batch is taken of is known in the time loop
        own = {"input": INPUT, "state": STATE, "grad": STATE, "batch_mean": STATE}.get(node.op, PARAMETERS)
        if node.op == "mask" and len(node.shape) == 1:  # one of a matrix is drawn with the parameters
            own = INPUT
        found.append(max([own, *(found[a] for a in node.args)]))
    return tuple(found)


def without_params(program: Program, names: frozenset[str]) -> Program:
    """The same step with these parameters at zero (``bias=False``); not yet simplified."""
    nodes = [n if n.op != "param" or n.attr not in names else type(n)("const", (), (), 0.0) for n in program.nodes]
    init = tuple((k, v) for k, v in program.init if k not in names)
    return replace(program, nodes=tuple(nodes), init=init, fixed=tuple(n for n in program.fixed if n not in names))
