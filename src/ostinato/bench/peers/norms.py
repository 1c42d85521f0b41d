"""A Program as one would write it in torch: normalisations are one operation, and what can be added early is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from ...ir import STATE, Node, Program, levels

__all__ = ["NORMS", "with_early_sums", "with_norms"]


def _layer_norm(a: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(a, a.shape[-1:], None, None, eps)


def _batch_norm(a: Tensor, eps: float) -> Tensor:
    """Over the batch [B, S]; of all steps [T, B, S] each on its own."""
    flat = a if a.dim() == 2 else a.transpose(0, 1).flatten(1)
    found = functional.batch_norm(flat, None, None, None, None, training=True, momentum=0.0, eps=eps)
    return found if a.dim() == 2 else found.unflatten(1, (a.shape[0], a.shape[2])).transpose(0, 1)


NORMS: dict[str, Callable[[Tensor, float], Tensor]] = {"layer_norm": _layer_norm, "batch_norm": _batch_norm}


def with_norms(program: Program) -> Program:
    """The same step in which (a - E[a]) / sqrt(E[(a - E[a])^2] + eps) is one node, eps its attribute.

    A gain may stand at the root, as in (gain (E[(a - E[a])^2] + eps)^-0.5) (a - E[a]), and stays a factor. E is the
    mean over the elements (``layer_norm``) or over the batch (``batch_norm``). For reading only: these operations stand
    in no table.
    """
    nodes = list(program.nodes)
    for i, node in enumerate(program.nodes):
        found = _norm(program.nodes, node)
        if found is not None:
            op, operand, eps = found
            nodes[i] = Node(op, (operand,), node.shape, eps, node.name)
        scaled = _scaled(program.nodes, node)
        if scaled is not None:
            gain, centred, (op, operand, eps) = scaled
            nodes[centred] = Node(op, (operand,), node.shape, eps)
            nodes[i] = replace(node, args=(gain, centred))
    return replace(program, nodes=tuple(nodes))


def _norm(nodes: tuple[Node, ...], node: Node) -> tuple[str, int, float] | None:
    """(operation, operand, eps) of a node that ends a normalisation."""
    if node.op != "div" or nodes[node.args[1]].op != "sqrt" or nodes[node.args[0]].op != "sub":
        return None
    return _of_centred(nodes, node.args[0], nodes[nodes[node.args[1]].args[0]])


def _scaled(nodes: tuple[Node, ...], node: Node) -> tuple[int, int, tuple[str, int, float]] | None:
    """(gain, centred, what `_norm` says) of a node that ends a normalisation with its gain at the root."""
    if node.op != "mul":
        return None
    for scale, centred in (node.args, node.args[::-1]):
        if nodes[scale].op != "mul" or nodes[centred].op != "sub":
            continue
        for gain, root in (nodes[scale].args, nodes[scale].args[::-1]):
            if nodes[root].op == "pow" and nodes[root].attr == -0.5:
                found = _of_centred(nodes, centred, nodes[nodes[root].args[0]])
                if found is not None:
                    return gain, centred, found
    return None


def _of_centred(nodes: tuple[Node, ...], centred: int, shifted: Node) -> tuple[str, int, float] | None:
    """(operation, operand, eps) if `shifted` is the variance of what is `centred`, and eps."""
    operand, mean = nodes[centred].args
    if shifted.op != "add":
        return None
    variance, eps = shifted.args if nodes[shifted.args[1]].op == "const" else shifted.args[::-1]
    if nodes[eps].op != "const":
        return None
    square_mean = _mean_of(nodes, variance)
    first = _mean_of(nodes, mean)
    if first is None or square_mean is None or first[0] != square_mean[0] or first[1] != operand:
        return None
    square = nodes[square_mean[1]]
    if square.op != "mul" or square.args != (centred, centred):
        return None
    return first[0], operand, float(nodes[eps].attr or 0.0)


def _mean_of(nodes: tuple[Node, ...], i: int) -> tuple[str, int] | None:
    node = nodes[i]
    if node.op == "batch_mean":
        return "batch_norm", node.args[0]
    if node.op == "div" and nodes[node.args[0]].op == "total" and nodes[node.args[1]].op == "size":
        total = nodes[node.args[0]]
        if nodes[node.args[1]].attr == nodes[total.args[0]].shape[0]:
            return "layer_norm", total.args[0]
    return None


def with_early_sums(program: Program) -> Program:
    """The same step in which the vectors of a sum that do not depend on a state are added to one another first."""
    level = levels(program)
    uses = [0] * len(program.nodes)
    for i in (*program.roots, *(a for node in program.nodes for a in node.args)):
        uses[i] += 1
    inner = {
        a
        for i, node in enumerate(program.nodes)
        if node.op == "add" and level[i] == STATE
        for a in node.args
        if program.nodes[a].op == "add" and level[a] == STATE and uses[a] == 1
    }
    nodes: list[Node] = []
    place: dict[int, int] = {}

    def put(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    def chain(terms: list[int], shape: tuple[str, ...]) -> int:
        total = terms[0]
        for term in terms[1:]:
            total = put(Node("add", (total, term), shape))
        return total

    def terms_of(i: int) -> list[int]:
        return [t for a in program.nodes[i].args for t in (terms_of(a) if a in inner else [a])]

    for i, node in enumerate(program.nodes):
        if i in inner:
            continue
        if node.op == "add" and level[i] == STATE:
            terms = terms_of(i)
            early = [t for t in terms if level[t] < STATE and program.nodes[t].shape == node.shape]
            groups = [[place[t] for t in early], [place[t] for t in terms if t not in early]]
            place[i] = chain([chain(group, node.shape) for group in groups if group], node.shape)
        else:
            place[i] = put(replace(node, args=tuple(place[a] for a in node.args)))
    nexts = tuple(place[i] for i in program.next_states)
    return replace(program, nodes=tuple(nodes), next_states=nexts, output=place.get(program.output, -1))
