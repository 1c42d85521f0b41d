"""A Program as equations: unicode for the terminal, LaTeX for paper."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .levels import PARAMETERS, levels
from .node import size_sum
from .ops import OPS, written
from .program import Program

_BREAK = "\x1f"  # stands where a line may be broken
_TALL = ("\\frac", "\\begin")  # what brackets have to grow with
_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|chi|psi|omega"
)


def equations(program: Program, latex: bool = False, width: int = 0) -> str:
    """The named values of a cell, one equation a line; states before the step carry t-1, what is new carries t.

    Values of parameters alone carry no time.

    Args:
        width: characters, as they are seen, after which an equation is broken; 0: never.
    """
    return _Writer(program, latex).text(width)


def value_names(program: Program) -> dict[int, str]:
    """The values that `equations` gives a line of their own, by position, with names that carry no time."""
    return _Writer(program, False, times=False).names


def expression(program: Program, position: int, names: Mapping[int, str], width: int = 0) -> str:
    """One value in unicode, in terms of the values of a step that have names; nothing carries a time."""
    writer = _Writer(program, False, times=False)
    writer.names = dict(names)
    return writer.value(position, width)


class _Writer:
    def __init__(self, program: Program, latex: bool, times: bool = True) -> None:
        self.program = program
        self.nodes = program.nodes
        self.latex = latex
        self.times = times
        self.level = levels(program)
        self.names = self._name()

    def _name(self) -> dict[int, str]:
        """What stands left of an equals sign: next states, the output, what has a name or is used twice."""
        program = self.program
        uses = [0] * len(program.nodes)
        for node in program.nodes:
            for a in node.args:
                uses[a] += 1
        names: dict[int, str] = {}
        roots = dict(zip(program.next_states, program.states, strict=True))
        if program.output >= 0 and program.output not in roots:
            roots[program.output] = "y"
        taken = set(program.states) | set(program.params) | set(program.mask_shapes) | {"x", "y"}
        unnamed = 0
        for i, node in enumerate(program.nodes):
            if OPS[node.op].kind == "leaf":
                continue
            if i in roots:
                names[i] = self._timed(roots[i], "t")
            elif node.name or uses[i] > 1:
                name = node.name
                while not name or name in taken:
                    unnamed += 1
                    name = f"a{unnamed}"
                taken.add(name)
                names[i] = self._timed(name, "t") if self.level[i] > PARAMETERS else self._symbol(name)
        return names

    def text(self, width: int) -> str:
        lines: list[tuple[str, str]] = []
        for i, name in sorted(self.names.items()):
            lines.append((name, self._cases(i) or self._expand(i)[0]))
        program = self.program
        for state, i in zip(program.states, program.next_states, strict=True):
            if self.names.get(i) != self._timed(state, "t"):
                lines.append((self._timed(state, "t"), self._value(i)[0]))
        if program.output >= 0 and program.output not in (*self.names, *program.next_states):
            lines.append((self._timed("y", "t"), self._value(program.output)[0]))
        longest = max(self._seen(name) for name, _ in lines)
        rows = [(name, self.broken(value, width - longest - 3 if width else 0)) for name, value in lines]
        if self.latex:
            body = " \\\\\n".join(f"  {name} &= " + " \\\\\n  &\\quad ".join(parts) for name, parts in rows)
            return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"
        gap = "\n" + " " * (longest + 5)
        return "\n".join(f"{name:<{longest}} = {gap.join(parts)}" for name, parts in rows)

    def value(self, position: int, width: int) -> str:
        return "\n".join(self.broken(self._expand(position)[0], width))

    # Names

    def _timed(self, name: str, time: str) -> str:
        if not self.times:
            return name
        return self._symbol(name, time) if self.latex else f"{name}[{time}]"

    def _symbol(self, name: str, time: str = "") -> str:
        if not self.latex:
            return name
        head, _, tail = name.partition("_")
        number = re.fullmatch(r"([A-Za-z]+)(\d+)", head)
        if number:
            head, tail = number[1], ",".join(filter(None, [number[2], self._index(tail)]))
        else:
            tail = self._index(tail)
        index = ",".join(filter(None, [tail, time]))
        head = head if len(head) == 1 else f"\\{head}" if _GREEK.fullmatch(head) else rf"\mathrm{{{head}}}"
        return f"{head}_{{{index}}}" if index else head

    def _index(self, tail: str) -> str:
        """A subscript: letters of their own stand slanted, a word upright, a name with a subscript as itself."""
        if "_" in tail:
            return self._symbol(tail)
        return rf"\mathrm{{{tail}}}" if re.fullmatch(r"[A-Za-z]{3,}", tail) else tail

    def _number(self, value: float) -> str:
        text = f"{value:g}"
        if not self.latex or "e" not in text:
            return text.replace("inf", "\\infty") if self.latex else f"−{text[1:]}" if text[0] == "-" else text
        digits, power = text.split("e")
        scale = f"10^{{{int(power)}}}"
        return scale if digits == "1" else f"{digits} \\cdot {scale}"

    # Values

    def _leaf(self, position: int) -> tuple[str, int] | None:
        node = self.nodes[position]
        if node.op == "const":
            number = float(node.attr or 0)
            return self._number(number), 100 if number >= 0 else 25
        if node.op == "input":
            return self._timed("x", "t"), 100
        if node.op == "state":
            return self._timed(str(node.attr), "t-1"), 100
        if node.op == "param":
            return self._symbol(str(node.attr)), 100
        if node.op == "mask":  # one of a whole sequence or call has no time
            still = len(node.shape) == 2 or any(m.locked for m in self.program.masks if m.name == node.attr)
            return self._symbol(str(node.attr)) if still else self._timed(str(node.attr), "t"), 100
        return (str(node.attr), 100) if node.op == "size" else None

    def _value(self, position: int) -> tuple[str, int]:
        if position in self.names:
            return self.names[position], 100
        return self._expand(position)

    def _bracket(self, text: str) -> str:
        if self.latex and any(tall in text for tall in _TALL):
            return rf"\left({text}\right)".replace(_BREAK, "")
        return f"({text})"

    def _operand(self, position: int, binding: int, strict: bool = False, behind: bool = False) -> str:
        """An operand, in brackets if it binds less tightly; `behind`: it may not begin with a sign."""
        text, own = self._value(position)
        if own < binding or (strict and own == binding) or (behind and text[0] in "−-"):
            return self._bracket(text)
        return text

    def _expand(self, position: int) -> tuple[str, int]:
        """The text of a value, and how tightly it binds."""
        node = self.nodes[position]
        leaf = self._leaf(position)
        if leaf is not None:
            return leaf
        if node.op in ("add", "sub"):
            return self._sum(*node.args, minus=node.op == "sub"), 10
        if node.op == "mul":
            return self._times(*node.args), 20
        if node.op == "div":
            return self._over(*node.args)
        if node.op in ("cols", "rows"):
            return self._slice(position), 100
        op = OPS[node.op]
        attr = self._number(node.attr) if isinstance(node.attr, float) else str(node.attr or "")
        template = op.latex if self.latex else op.text
        if op.binding == 100:  # brackets of its own
            values = [self._value(a)[0] for a in node.args]
            if self.latex and any(tall in text for text in values for tall in _TALL):
                template = template.replace("(", r"\left(").replace(")", r"\right)")
            text = written(template, values, attr)
            return (text.replace(_BREAK, "") if r"\left" in text or r"\sqrt" in text else text), 100
        tower = node.op == "pow"
        values = [self._operand(a, op.binding, tower, k == 1 and op.kind == "product") for k, a in enumerate(node.args)]
        return written(template, values, attr), op.binding

    def _sum(self, a: int, b: int, minus: bool) -> str:
        """a + b or a - b; what is negative is subtracted."""
        node, sign = self.nodes[b], ("-" if self.latex else "−")
        if b not in self.names and node.op == "neg":
            b, minus = node.args[0], not minus
            right = self._operand(b, 10, strict=minus, behind=True)
        elif node.op == "const" and float(node.attr or 0) < 0:
            right, minus = self._number(-float(node.attr or 0)), not minus
        else:
            right = self._operand(b, 10, strict=minus, behind=True)
        return f"{self._operand(a, 10)}{_BREAK} {sign if minus else '+'} {right}"

    def _times(self, a: int, b: int) -> str:
        """⊙ between vectors; a scalar stands before what it scales."""
        scalars = [not self.nodes[i].shape for i in (a, b)]
        if scalars[1] and not scalars[0]:
            a, b = b, a
        sign = (r"\," if self.latex else "·") if any(scalars) else (r"\odot" if self.latex else "⊙")
        right = self._operand(b, 20, behind=True)
        if sign == r"\," and right[0].isdigit():
            sign = r"\cdot"
        return f"{self._operand(a, 20)} {sign} {right}"

    def _over(self, a: int, b: int) -> tuple[str, int]:
        """A quotient; the sum of a vector's elements over their number is their mean."""
        above, below = self.nodes[a], self.nodes[b]
        if above.op == "total" and a not in self.names and below.op == "size":
            (inner,) = above.args
            if self.nodes[inner].shape == (below.attr,):
                text = self._value(inner)[0]
                return (rf"\mathrm{{mean}}{self._bracket(text)}" if self.latex else f"mean({text})"), 100
        if self.latex:
            above_text, below_text = (self._value(i)[0].replace(_BREAK, "") for i in (a, b))
            return rf"\frac{{{above_text}}}{{{below_text}}}", 26
        return f"{self._operand(a, 20)} / {self._operand(b, 20, strict=True, behind=True)}", 20

    def _slice(self, position: int) -> str:
        """Columns of a matrix, or rows, from where to where."""
        node = self.nodes[position]
        start = str(node.attr or "")
        stop = size_sum(start, node.shape[-1 if node.op == "cols" else 0])
        colon = "{:}" if self.latex else ":"
        whole = f"{colon}, " if node.op == "cols" else ""
        return f"{self._operand(node.args[0], 100)}[{whole}{start}{colon}{stop}]"

    def _cases(self, position: int) -> str:
        """A choice that is a whole equation, on paper."""
        node = self.nodes[position]
        if not self.latex or node.op != "where":
            return ""
        condition, a, b = (self._value(i)[0].replace(_BREAK, "") for i in node.args)
        return rf"\begin{{cases}} {a} & \text{{if }} {condition} \\ {b} & \text{{else}} \end{{cases}}"

    # Lines

    def _seen(self, text: str) -> int:
        """As many characters as a reader sees, of LaTeX about."""
        if self.latex:
            text = re.sub(r"\\(mathrm|text|left|right|frac)\b|[{}_^&]", "", text)
            text = re.sub(r"\\[a-zA-Z]+ ?|\\.", "a", text)
        return len(text.replace(_BREAK, ""))

    def broken(self, text: str, width: int) -> list[str]:
        """The lines of a value: broken in front of a sign, where the fewest brackets are open."""
        parts = text.split(_BREAK)
        if width <= 0 or self._seen(text) <= width:
            return ["".join(parts)]
        depth, opened = [0], 0
        for part in parts:
            opened += len(re.findall(r"[(\[]", part)) - len(re.findall(r"[)\]]", part))
            depth.append(opened)
        lines: list[str] = []
        first = 0
        while first < len(parts):
            last = len(parts)
            if self._seen("".join(parts[first:])) > width:
                seen = {k: self._seen("".join(parts[first:k])) for k in range(first + 1, len(parts))}
                fits = [k for k in seen if seen[k] <= width]
                full = [k for k in fits if seen[k] >= width // 3]
                last = min(full or fits, key=lambda k: (depth[k], -k), default=first + 1)
            lines.append("".join(parts[first:last]).strip())
            first = last
        return lines
