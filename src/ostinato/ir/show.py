"""A Program as equations: unicode for the terminal, LaTeX for paper."""

from __future__ import annotations

from .node import Node
from .ops import OPS, written
from .program import Program


def equations(program: Program, latex: bool = False) -> str:
    """The named values of a cell, one equation a line; states before the step carry t-1, what is new carries t."""
    return _Writer(program, latex).text()


class _Writer:
    def __init__(self, program: Program, latex: bool) -> None:
        self.program = program
        self.latex = latex
        uses = [0] * len(program.nodes)
        for node in program.nodes:
            for a in node.args:
                uses[a] += 1
        self.names: dict[int, str] = {}
        roots = dict(zip(program.next_states, program.states, strict=True))
        if program.output >= 0 and program.output not in roots:
            roots[program.output] = "y"
        taken = set(program.states) | set(program.params) | set(program.mask_shapes) | {"x", "y"}
        for i, node in enumerate(program.nodes):
            leaf = OPS[node.op].kind == "leaf"
            if i in roots:
                self.names[i] = self._timed(roots[i], "t")
            elif not leaf and (node.name or uses[i] > 1):
                name = node.name if node.name and node.name not in taken else f"a{len(self.names) + 1}"
                taken.add(name)
                self.names[i] = self._timed(name, "t")

    def text(self) -> str:
        lines: list[tuple[str, str]] = []
        for i, name in sorted(self.names.items()):
            lines.append((name, self._expand(self.program.nodes[i])[0]))
        for state, i in zip(self.program.states, self.program.next_states, strict=True):
            if self.names[i] != self._timed(state, "t"):
                lines.append((self._timed(state, "t"), self.names[i]))
        if self.latex:
            body = " \\\\\n".join(f"  {name} &= {value}" for name, value in lines)
            return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}} = {value}" for name, value in lines)

    def _timed(self, name: str, time: str) -> str:
        if self.latex:
            head, _, tail = name.partition("_")
            index = ",".join(filter(None, [tail, time]))
            head = head if len(head) == 1 else rf"\mathrm{{{head}}}"
            return f"{head}_{{{index}}}"
        return f"{name}[{time}]"

    def _param(self, name: str) -> str:
        if not self.latex:
            return name
        head, _, tail = name.partition("_")
        head = head if len(head) == 1 else rf"\mathrm{{{head}}}"
        return f"{head}_{{{tail}}}" if tail else head

    def _value(self, position: int) -> tuple[str, int]:
        if position in self.names:
            return self.names[position], 100
        return self._expand(self.program.nodes[position])

    def _expand(self, node: Node) -> tuple[str, int]:
        """The text of a node and how tightly it binds."""
        if node.op == "const":
            return f"{node.attr:g}", 100 if float(node.attr or 0) >= 0 else 25
        if node.op == "input":
            return self._timed("x", "t"), 100
        if node.op == "state":
            return self._timed(str(node.attr), "t-1"), 100
        if node.op == "param":
            return self._param(str(node.attr)), 100
        if node.op == "mask":
            locked = any(mask.locked for mask in self.program.masks if mask.name == node.attr)
            return (self._param(str(node.attr)) if locked else self._timed(str(node.attr), "t")), 100
        if node.op == "size":
            return str(node.attr), 100
        op = OPS[node.op]
        template = op.latex if self.latex else op.text
        values: list[str] = []
        for place, arg in enumerate(node.args):
            text, binding = self._value(arg)
            # the right operand of -, / needs brackets at equal strength
            strict = place == 1 and node.op in ("sub", "div")
            call = op.binding == 100 and node.op not in ("cols", "rows")
            loose = binding < op.binding or (strict and binding == op.binding)
            if not call and loose:
                text = rf"\left({text}\right)" if self.latex else f"({text})"
            values.append(text)
        attr = f"{node.attr:g}" if isinstance(node.attr, float) else str(node.attr or "")
        return written(template, values, attr), op.binding
