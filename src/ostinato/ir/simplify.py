"""Program to Program: fold, share, drop what is dead, and take concatenations apart."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProgramError
from .build import Builder
from .node import Node, size_sum
from .ops import OPS
from .program import Program


def simplify(program: Program) -> Program:
    """The same step in fewer values.

    Constants are folded, equal values shared, unused ones dropped, and every concatenation is split into its pieces:
    ``W @ concat(h, x)`` becomes ``W[:, :H] @ h + W[:, H:] @ x``. Only an output may remain a concatenation.
    """
    builder = Builder()
    pieces: dict[int, tuple[int, ...]] = {}
    live = _live(program)
    for i, node in enumerate(program.nodes):
        if i in live:
            pieces[i] = _split(builder, node, [pieces[a] for a in node.args])
            if node.name and len(pieces[i]) == 1:
                _name(builder, pieces[i][0], node.name)

    def whole(position: int) -> int:
        return builder.op("concat", *pieces[position]) if len(pieces[position]) > 1 else pieces[position][0]

    nexts = tuple(whole(i) for i in program.next_states)
    output = whole(program.output) if program.output >= 0 else -1
    return prune(replace(program, nodes=tuple(builder.nodes), next_states=nexts, output=output)).check()


def _name(builder: Builder, position: int, name: str) -> None:
    if not builder.nodes[position].name and OPS[builder.nodes[position].op].kind != "leaf":
        builder.rename(position, name)


def _live(program: Program) -> set[int]:
    """Positions that a root needs."""
    live = set(program.roots)
    for i in range(len(program.nodes) - 1, -1, -1):
        if i in live:
            live.update(program.nodes[i].args)
    return live


def prune(program: Program) -> Program:
    """Without the nodes that no root needs."""
    live = _live(program)
    new: dict[int, int] = {}
    nodes: list[Node] = []
    for i, n in enumerate(program.nodes):
        if i in live:
            new[i] = len(nodes)
            nodes.append(Node(n.op, tuple(new[a] for a in n.args), n.shape, n.attr, n.name))
    kept = {op: {str(n.attr) for n in nodes if n.op == op} for op in ("mask", "param", "batch_mean")}
    return replace(
        program,
        nodes=tuple(nodes),
        next_states=tuple(new[i] for i in program.next_states),
        output=new[program.output] if program.output >= 0 else -1,
        masks=tuple(mask for mask in program.masks if mask.name in kept["mask"]),
        fixed=tuple(name for name in program.fixed if name in kept["param"]),
        statistics=tuple(s for s in program.statistics if s.name in kept["batch_mean"] | kept["mask"]),
    )


def _split(b: Builder, node: Node, args: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The pieces of a node from the pieces of its operands: one, unless a concatenation is below."""
    if node.op == "concat":
        return tuple(piece for arg in args for piece in arg)
    longest = max(args, key=len, default=())
    if len(longest) <= 1:
        flat = [arg[0] for arg in args]
        shape = node.shape if OPS[node.op].kind in ("leaf", "structure") and node.op != "total" else None
        return (b.op(node.op, *flat, attr=node.attr, shape=shape),)
    sizes = [b.nodes[piece].shape[0] for piece in longest]
    if node.op == "matmul":
        matrix, offset = args[0][0], ""
        terms: list[int] = []
        rows = b.nodes[matrix].shape[0]
        for piece, size in zip(longest, sizes, strict=True):
            part = b.op("cols", matrix, attr=offset, shape=(rows, size))
            terms.append(b.op("matmul", part, piece))
            offset = size_sum(offset, size)
        total = terms[0]
        for term in terms[1:]:
            total = b.add(total, term)
        return (total,)
    if node.op == "total":
        parts = [b.total(piece) for piece in longest]
        whole = parts[0]
        for part in parts[1:]:
            whole = b.add(whole, part)
        return (whole,)
    if OPS[node.op].kind in ("pointwise", "compare", "batch"):
        result: list[int] = []
        offset = ""
        for k, size in enumerate(sizes):
            operands = [_piece(b, arg, k, sizes, offset) for arg in args]
            result.append(b.op(node.op, *operands, attr=node.attr))
            offset = size_sum(offset, size)
        return tuple(result)
    raise ProgramError(f"{node.op} of a concatenation is not supported; apply it to the parts")


def _piece(b: Builder, arg: tuple[int, ...], k: int, sizes: list[str], offset: str) -> int:
    """Piece k of an operand that is split like `sizes`, is a scalar, or is whole and can be cut there."""
    first, *others = arg
    if others:
        if [b.nodes[p].shape[0] for p in arg] != sizes:
            raise ProgramError("two concatenations of equal size but different parts meet; cut them alike")
        return arg[k]
    return _rows(b, first, offset, sizes[k])


def _rows(b: Builder, position: int, offset: str, size: str) -> int:
    """A slice of a vector, moved down to the parameters it is made of."""
    node = b.nodes[position]
    if not node.shape:
        return position
    if node.op == "matmul":
        columns = b.nodes[node.args[0]].shape[1]
        part = b.op("rows", node.args[0], attr=offset, shape=(size, columns))
        return b.op("matmul", part, node.args[1])
    if OPS[node.op].kind in ("pointwise", "compare"):
        return b.op(node.op, *(_rows(b, a, offset, size) for a in node.args), attr=node.attr)
    if node.op in ("param", "rows"):
        return b.op("rows", position, attr=offset, shape=(size,))
    if node.op == "mask":
        raise ProgramError("dropout of a concatenation is not supported; apply it to the parts")
    raise ProgramError(f"a part of {node.op} was asked for; give the concatenation's parts names of their own")
