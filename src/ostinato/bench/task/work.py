"""How much work a step is: counted from its Program, the same way for every cell."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir import INPUT, OPS, Program, levels, size_value
from .shapes import Shape

__all__ = ["WEIGHTS", "Work", "work_of"]

# McMahon's weights for the Livermore loops (1986): 4 for a division or a root, 8 for an exponential and its like, 1 for
# the rest. On processors of today a vector of exponentials costs more than that, which counts against cells with many.
WEIGHTS: dict[str, int] = {
    "div": 4,
    "sqrt": 4,
    **dict.fromkeys(("sigmoid", "tanh", "exp", "log", "sin", "cos", "softplus", "pow"), 8),
}


@dataclass(frozen=True)
class Work:
    """The work of one call over T steps of B sequences.

    flops: floating-point operations in matrix products.
    operations: these and the pointwise ones, each by its weight.
    bytes: what must be read and written if nothing is kept in between.
    """

    flops: float
    operations: float
    bytes: float


def work_of(program: Program, sizes: dict[str, int], shape: Shape, pass_: str) -> Work:
    """The work of a simplified Program in a pass.

    A product of a matrix [m, k] has 2 m k operations a step and sequence. Training does it again for the gradient of
    the vector, and for that of the matrix if it is trained. What depends on parameters only is done once a call and
    not counted. A pointwise operation counts its weight for each element, in training three times. The bytes are those
    of x, of the output and of masks as float32; training reads x and masks again, reads the output's gradient and
    writes that of x. Weights, states and the drawing of masks are not counted.
    """
    level = levels(program)
    train = pass_ == "train"
    trained = _trained(program)
    flops = pointwise = 0.0
    for i in _live(program):
        node = program.nodes[i]
        if level[i] < INPUT:
            continue
        elements = 1
        for size in node.shape:
            elements *= size_value(size, sizes)
        if node.op == "matmul":
            once = 2.0 * elements * size_value(program.nodes[node.args[1]].shape[0], sizes)
            flops += once * ((2 + trained[node.args[0]]) if train else 1)
        elif node.op == "total":
            pointwise += size_value(program.nodes[node.args[0]].shape[0], sizes) * (3 if train else 1)
        elif OPS[node.op].kind in ("pointwise", "compare", "batch"):
            pointwise += WEIGHTS.get(node.op, 1) * elements * (3 if train else 1)
    reads_x = any(node.op == "input" for node in program.nodes)
    into = size_value(program.input_size, sizes) if reads_x else 0
    masks = sum(
        size_value(size[0], sizes)
        for mask in program.masks
        if len(size := program.mask_shapes[mask.name]) == 1 and not mask.locked
    )
    out = size_value(program.output_size, sizes)
    values = 3 * into + 2 * out + 2 * masks if train else into + out + masks
    rows = shape.T * shape.B
    return Work(rows * flops, rows * (flops + pointwise), 4.0 * rows * values)


def _live(program: Program) -> list[int]:
    """The nodes that a result depends on."""
    seen: set[int] = set()
    stack = list(program.roots)
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack += program.nodes[i].args
    return sorted(seen)


def _trained(program: Program) -> list[bool]:
    """For each node whether it depends on a parameter that is trained."""
    found: list[bool] = []
    for node in program.nodes:
        own = node.op == "param" and node.attr not in program.fixed
        found.append(own or any(found[a] for a in node.args))
    return found
