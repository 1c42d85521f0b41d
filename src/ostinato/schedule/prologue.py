"""What depends on parameters only leaves the kernel: it is computed once per call, before the sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..ir import OPS, PARAMETERS, Node, Program, levels, prune


@dataclass(frozen=True)
class Prologue:
    """A Program cut in two.

    Args:
        program: the whole; its values at `derived` are computed before the sequence.
        derived: (name, position in `program`) of each value the core needs; a parameter stands for itself.
        core: the step, in which every derived value is a parameter.
    """

    program: Program
    derived: tuple[tuple[str, int], ...]
    core: Program

    @property
    def trivial(self) -> bool:
        """True if the core needs the parameters as they are."""
        return all(self.program.nodes[i].op == "param" for _, i in self.derived)


def split_prologue(program: Program) -> Prologue:
    """Cut `program` where values of parameters meet values of the step."""
    level = levels(program)
    roots = set(program.roots)
    needed: set[int] = {i for i in roots if level[i] == PARAMETERS}
    stays = [at > PARAMETERS for at in level]
    for i in range(len(program.nodes) - 1, -1, -1):
        if stays[i]:  # a truth value is no parameter: the comparison stays with who asks
            for a in program.nodes[i].args:
                stays[a] = stays[a] or OPS[program.nodes[a].op].kind == "compare"
    for i, node in enumerate(program.nodes):
        if stays[i]:
            needed.update(a for a in node.args if not stays[a])
    nodes: list[Node] = []
    derived: list[tuple[str, int]] = []
    for i, node in enumerate(program.nodes):
        if i in needed and node.op not in ("const", "size"):
            name = str(node.attr) if node.op == "param" else f"%{i}"
            derived.append((name, i))
            node = Node("param", (), node.shape, name)
        elif not stays[i] and node.op not in ("const", "size"):
            node = Node("const", (), (), 0.0)  # not reached from the core
        nodes.append(node)
    core = prune(replace(program, nodes=tuple(nodes), init=(), fixed=()))
    return Prologue(program, tuple(derived), core)
