"""Forward values and their gradients in one graph, with every product gathered into an accumulator.

A sum that contains products, ``b + W x + U h + rest``, becomes an accumulator ``acc = b + W x + U h`` and the pointwise
``acc + rest``. Behind this pass all nodes are pointwise or leaves, but for reductions: ``total`` over a
vector, ``batch_mean`` over the sequences of a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ProgramError
from ..ir import OPS, Builder, Node, Program, adjoint, size_sum
from .reduce import Reductions


@dataclass(frozen=True)
class Product:
    """A matrix times the vector at position `operand`; transposed in the backward section."""

    matrix: str
    operand: int
    transposed: bool


@dataclass(frozen=True)
class Acc:
    """A sum of products; `bias` are vector parameters it starts from."""

    size: str
    bias: tuple[str, ...]
    products: tuple[Product, ...]


@dataclass(frozen=True)
class Sum:
    """A root as a sum: an accumulator (or -1) and pointwise terms."""

    acc: int
    terms: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A step and its derivative.

    Args:
        nodes: pointwise operations and leaves; an ``acc`` leaf carries the accumulator's number.
        accs: the accumulators.
        next_states: positions of the states after the step.
        output: (offset, position) of each part of the output; one part with offset "" unless it is a concatenation.
        state_grads: gradient of each state before the step, as a sum.
        input_grad: gradient of x, as a sum.
        acc_grads: for each forward accumulator the position of its gradient (-1: none).
        vector_grads: (parameter, position): what each step adds to a vector parameter's gradient.
        scalar_grads: (parameter, position): what each step adds to a scalar's gradient; of a vector its sum.
    """

    nodes: tuple[Node, ...]
    accs: tuple[Acc, ...]
    next_states: tuple[int, ...]
    output: tuple[tuple[str, int], ...]
    state_grads: tuple[Sum, ...]
    input_grad: Sum
    acc_grads: tuple[int, ...]
    vector_grads: tuple[tuple[str, int], ...]
    scalar_grads: tuple[tuple[str, int], ...]


def acc_number(leaf: Node) -> int:
    """The accumulator that an ``acc`` leaf stands for."""
    return int(float(leaf.attr or 0))


def build_graph(core: Program) -> Graph:
    """The graph of a core Program (see `split_prologue`)."""
    b = Builder(core.nodes)
    grads = _differentiate(b, core)
    return _Gather(b, core, grads).graph()


def output_parts(core: Program) -> list[tuple[str, int]]:
    """The output's parts and where each begins: a size, "" for the first."""
    if core.output < 0:
        return []
    node = core.nodes[core.output]
    parts: list[tuple[str, int]] = []
    offset = ""
    for position in node.args if node.op == "concat" else (core.output,):
        parts.append((offset, position))
        offset = size_sum(offset, *core.nodes[position].shape)
    return parts


def _differentiate(b: Builder, core: Program) -> dict[int, int]:
    """Append the adjoint; the gradients that come in are leaves named ``next:STATE`` and ``output:OFFSET``."""
    seeds: dict[int, int] = {}
    sources = [(root, f"next:{s}") for s, root in zip(core.states, core.next_states, strict=True)]
    parts = [(root, f"output:{offset}") for offset, root in output_parts(core)]
    for root, name in (*sources, *parts):
        leaf = b.raw("grad", (), b.nodes[root].shape, name)
        seeds[root] = b.add(seeds[root], leaf) if root in seeds else leaf
    return adjoint(b, range(len(core.nodes)), seeds)


class _Gather:
    """The pass from products to accumulators."""

    def __init__(self, b: Builder, core: Program, grads: dict[int, int]) -> None:
        self.b, self.core, self.grads = b, core, grads
        self.new = Builder()
        self.reductions = Reductions(b.nodes, self.new, self.convert)
        self.place: dict[int, int] = {}
        self.accs: list[Acc] = []
        self.acc_of: dict[int, int] = {}  # product -> forward accumulator
        nodes = b.nodes
        self.leaf = {(n.op, n.attr): i for i, n in enumerate(nodes) if n.op in ("state", "input", "param")}
        self.sums = [self._grad("state", s) for s in core.states] + [self._grad("input", "x")]
        roots = [*core.next_states, *(i for _, i in output_parts(core))]
        roots += [grads[i] for i, n in enumerate(nodes) if i in grads and n.op in ("param", "matmul")]
        self.uses = self._count([*roots, *(g for g in self.sums if g is not None)])

    def _grad(self, op: str, name: str) -> int | None:
        leaf = self.leaf.get((op, name))
        return None if leaf is None else self.grads.get(leaf)

    def _count(self, roots: Iterable[int]) -> dict[int, int]:
        """Uses of every live node; a root counts as two, so that nothing absorbs it."""
        uses: dict[int, int] = {}
        stack: list[int] = []
        for root in roots:
            if root not in uses:
                stack.append(root)
            uses[root] = uses.get(root, 0) + 2
        while stack:
            for a in self.b.nodes[stack.pop()].args:
                if a not in uses:
                    stack.append(a)
                uses[a] = uses.get(a, 0) + 1
        return uses

    def _terms(self, position: int, top: bool = True) -> list[int]:
        """The terms of a chain of additions; an inner sum used elsewhere stays whole."""
        node = self.b.nodes[position]
        if node.op == "add" and (top or self.uses[position] == 1):
            return [t for a in node.args for t in self._terms(a, False)]
        return [position]

    def _split(self, position: int) -> tuple[int, list[int]]:
        """A sum as an accumulator (-1: no product in it) and the positions, in the old graph, of the other terms."""
        terms = self._terms(position)
        nodes = self.b.nodes
        products = [t for t in terms if OPS[nodes[t].op].kind == "product" and (self.uses[t] == 1 or t == position)]
        if not products:
            return -1, terms
        rest = [t for t in terms if t not in products]
        forward = nodes[products[0]].op == "matmul"
        bias = [t for t in rest if forward and nodes[t].op == "param" and nodes[t].shape]
        rest = [t for t in rest if t not in bias]
        made: list[Product] = []
        for t in products:
            matrix, operand = nodes[t].args
            if nodes[matrix].op != "param":
                raise ProgramError(f"the matrix of product {t} is not a parameter")
            made.append(Product(str(nodes[matrix].attr), self.convert(operand), not forward))
        if forward:  # converting the operands may have made accumulators before this one
            self.acc_of.update((t, len(self.accs)) for t in products)
        size = nodes[products[0]].shape[0]
        self.accs.append(Acc(size, tuple(str(nodes[t].attr) for t in bias), tuple(made)))
        return len(self.accs) - 1, rest

    def _acc(self, index: int) -> int:
        return self.new.raw("acc", (), (self.accs[index].size,), float(index))

    def convert(self, position: int) -> int:
        """The node in the new graph."""
        if position not in self.place:
            node = self.b.nodes[position]
            if node.op == "add" or OPS[node.op].kind == "product":
                acc, rest = self._split(position)
                values = ([self._acc(acc)] if acc >= 0 else []) + [self.convert(t) for t in rest]
                total = values[0]
                for value in values[1:]:
                    total = self.new.add(total, value)
            elif OPS[node.op].kind == "leaf":
                total = self.new.raw(node.op, (), node.shape, node.attr, node.name)
            elif node.op in ("total", "batch_mean") and position >= len(self.core.nodes):
                total = self.reductions.of(node, node.args[0])
            elif node.op in ("total", "broadcast", "batch_mean"):
                total = self.new.raw(node.op, (self.convert(node.args[0]),), node.shape, node.attr)
            elif OPS[node.op].kind in ("pointwise", "compare"):
                total = self.new.op(node.op, *(self.convert(a) for a in node.args), attr=node.attr)
            else:
                raise ProgramError(f"{node.op} is not pointwise; it has no place in a kernel")
            if node.name and OPS[self.new.nodes[total].op].kind != "leaf":
                self.new.rename(total, node.name)
            self.place[position] = total
        return self.place[position]

    def _sum(self, position: int | None) -> Sum:
        if position is None:
            return Sum(-1, ())
        acc, rest = self._split(position)
        return Sum(acc, tuple(self.convert(t) for t in rest))

    def graph(self) -> Graph:
        core, nodes = self.core, self.b.nodes
        next_states = tuple(self.convert(i) for i in core.next_states)
        output = tuple((offset, self.convert(i)) for offset, i in output_parts(core))
        forward = len(self.accs)
        acc_grads = [-1] * forward
        for product, acc in sorted(self.acc_of.items()):
            if product in self.grads and nodes[product].op == "matmul":
                acc_grads[acc] = self.convert(self.grads[product])
        vectors: list[tuple[str, int]] = []
        scalars: list[tuple[str, int]] = []
        for name, shape in core.params.items():
            grad = self._grad("param", name)
            if grad is None or len(shape) == 2:
                continue
            if shape:
                vectors.append((name, self.convert(grad)))
            else:
                terms = self._terms(grad)
                scalars += [(name, self.convert(nodes[t].args[0] if nodes[t].op == "total" else t)) for t in terms]
        sums = [self._sum(g) for g in self.sums]
        self.new.const(0.0)  # what has no gradient is written as 0
        return Graph(
            tuple(self.new.nodes),
            tuple(self.accs),
            next_states,
            output,
            tuple(sums[:-1]),
            sums[-1],
            tuple(acc_grads),
            tuple(vectors),
            tuple(scalars),
        )


def describe(graph: Graph) -> str:
    """A graph for a reader: the sums of products, the pointwise values, and the gradients they end in."""
    lines = ["sums of products"]
    for number, acc in enumerate(graph.accs):
        terms = [*acc.bias, *(f"{p.matrix}{'ᵀ' if p.transposed else ''} %{p.operand}" for p in acc.products)]
        lines.append(f"  acc {number:<3} [{acc.size}] = {' + '.join(terms)}")
    lines.append("values")
    for i, n in enumerate(graph.nodes):
        attr = [] if n.attr is None else [f"{n.attr:g}" if isinstance(n.attr, float) else str(n.attr)]
        what = " ".join([n.op, *(f"%{a}" for a in n.args), *attr])
        lines.append(f"  %{i:<3} {what:<24} [{', '.join(n.shape)}]{'  # ' + n.name if n.name else ''}")
    lines.append("forward")
    nexts, parts = (", ".join(f"%{i}" for i in group) for group in (graph.next_states, [i for _, i in graph.output]))
    lines.append(f"  next states {nexts}; output {parts}")
    lines.append("backward")
    lines += [f"  gradient of acc {a} = %{g}" for a, g in enumerate(graph.acc_grads) if g >= 0]
    for name, total in [*((f"state {k}", s) for k, s in enumerate(graph.state_grads)), ("x", graph.input_grad)]:
        terms = [*([f"acc {total.acc}"] if total.acc >= 0 else []), *(f"%{t}" for t in total.terms)]
        lines.append(f"  gradient of {name} = {' + '.join(terms) or '0'}")
    lines += [f"  gradient of {name} += %{g}" for name, g in graph.vector_grads]
    lines += [f"  gradient of {name} += sum %{g}" for name, g in graph.scalar_grads]
    return "\n".join(lines)
