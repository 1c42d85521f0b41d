"""Random small cells, drawn from the language as the source text of a cell function.

Every choice is a number from `pick(n)`, 0 <= number < n, and 0 is the simplest: hypothesis picks for the
tests, `random.Random` for thousands by a command (`scripts/fuzz`), a list of numbers to shrink a failure.
Operations stand in forms that are safe for any number: ``log(softplus(a) + 0.1)``, ``a / (1 + abs(b))``.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass

import ostinato
from ostinato import Cell

Pick = Callable[[int], int]

UNARY = (
    "tanh({a})",
    "sigmoid({a})",
    "relu({a})",
    "abs({a})",
    "softplus({a})",
    "(-{a})",
    "exp(tanh({a}))",
    "log(softplus({a}) + 0.1)",
    "sqrt({a} * {a} + 0.5)",
    "(1 - {a})",
    "({a} * 0.5)",
    "(0.3 + {a})",
    "(2 / (1.5 + abs({a})))",
    "(tanh({a}) ** 2)",
    "(sigmoid({a}) ** 3)",
    "((softplus({a}) + 0.2) ** 0.5)",
    "((softplus({a}) + 0.5) ** -1.5)",
    "({a} / 1.7)",
    "sin({a})",
    "cos({a} + 0.5)",
    "(floor({a} * 2) * 0.25)",
    "({a} - mean({a}))",
    "({a} / sqrt(mean({a} * {a}) + 0.4))",
    "(tanh(total({a})) * {a})",
    "dropout({a}, 0.25)",
    "dropout({a}, 0.4, locked=True)",
)
BINARY = (
    "({a} + {b})",
    "({a} - {b})",
    "({a} * sigmoid({b}))",
    "(tanh({a}) * {b})",
    "({a} * {b})",
    "({a} / (1 + abs({b})))",
    "({a} / (softplus({b}) + 0.6))",
    "maximum({a}, {b})",
    "minimum({a}, {b})",
    "maximum({a}, 0.1)",
    "minimum(0.2, {a})",
    "({a} * mean({b}))",
)
COMPARISONS = (
    "{a} > {b}",
    "{a} < {b}",
    "{a} >= {b}",
    "{a} <= {b}",
    "{a} > 0.05",
    "0.1 <= {a}",
    "{s} > 0.1",
    "{s} < {a}",
)
SCALARS = ("{s}", "sigmoid({s})", "({s} * 0.5 + 1)", "exp(tanh({s}))", "(0.7 - {s})")
MATRICES = (
    "{m}",
    "({m} * {n})",
    "({m} + {n})",
    "tanh({m})",
    "({s} * {m})",
    "(-{m})",
    "(0.5 * {m})",
    "({m} / (1 + abs({n})))",
)


@dataclass(frozen=True)
class Drawn:
    """A cell as source text."""

    source: str

    def cell(self) -> Cell:
        """The cell that the text defines."""
        file = f"<drawn {abs(hash(self.source))}>"
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(True), file)
        names = {name: getattr(ostinato, name) for name in ostinato.__all__}
        exec(compile(self.source, file, "exec"), names)
        return names["drawn"]


def draw(pick: Pick) -> Drawn:
    """A cell of one to three states (rarely none), up to five local values, and often another output."""
    return Drawn(_Writer(pick).text())


class _Writer:
    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.declared: dict[str, str] = {}  # sizes, as text
        self.always = pick(2) == 1  # declare the sizes of all parameters, or leave them to be inferred
        count = pick(13)
        self.states = ("h", "c", "m")[: 0 if count == 12 else 1 + count % 3]
        x = "H" if pick(5) == 4 else "D"
        if x != "D":
            self.declared["x"] = repr(x)
        self.vectors: list[tuple[str, str]] = [("x", x)]
        for state in self.states:
            size = "P" if pick(3) == 2 else "H"
            if size != "H":
                self.declared[state] = repr(size)
            self.vectors.append((state, size))
        self.leaves = list(self.vectors)
        self.firm = list(self.vectors)  # their sizes are known whatever is inferred later: fit for concat
        self.sizes = sorted({size for _, size in self.vectors} | {"H"})
        self.matrices: list[tuple[str, str, str]] = []
        self.params: list[tuple[str, str]] = []
        self.scalars: list[str] = []
        self.made = 0

    # ---- the whole function

    def text(self) -> str:
        lines: list[str] = []
        for k in range(self.pick(6)):
            size = self.any(self.sizes)
            value = self.vector(size, 1 + self.pick(3))
            if re.fullmatch(r"p\.\w+", value):  # a bare parameter would not be a value yet
                value = f"tanh({value})"
            lines.append(f"v{k} = {value}")
            known = [name for name, _ in self.firm]
            loose = [
                name for name, _ in self.vectors if name not in known and re.search(rf"\b{name}\b", value)
            ]
            if self.always and "concat" not in value and not loose:
                self.firm.append((f"v{k}", size))
            self.vectors.append((f"v{k}", size))
        nexts = [self.next_state(size) for _, size in self.leaves[1:]]
        output = self.output()
        if output is None and nexts:
            lines.append(f"return {', '.join(nexts)}")
        else:
            put_out = output or f"(0.9 * {self.vector('H', 2)})"
            lines.append(f"return emit({', '.join([put_out, *nexts])})")
        body = " ".join(lines)
        kept = [k for k in self.declared if k in ("x", *self.states) or re.search(rf"p\.{k}\b", body)]
        sizes = f"(sizes={{{', '.join(f'{k!r}: {self.declared[k]}' for k in kept)}}})" if kept else ""
        arguments = ", ".join(["p", "x", *self.states])
        return "\n".join(
            [f"@cell{sizes}", f"def drawn({arguments}):", *(f"    {line}" for line in lines), ""]
        )

    def next_state(self, size: str) -> str:
        kind = self.pick(10)
        same = [name for name, s in self.vectors if s == size and name != "x"]
        if kind < 5:
            return f"tanh({self.vector(size, 2)})"
        if kind < 7:
            z = f"sigmoid({self.vector(size, 1)})"
            return f"{z} * {self.any(same)} + (1 - {z}) * tanh({self.vector(size, 1)})"
        if kind < 9:  # unchanged, swapped, or a value that has a name
            return self.any(same)
        return f"(0.5 * {self.vector(size, 2)})"

    def output(self) -> str | None:
        kind = self.pick(8)
        if kind < 3:
            return None
        if kind < 5:
            return f"(0.9 * {self.vector(self.any(self.sizes), 2)})"
        if kind == 5:
            return self.any([name for name, _ in self.vectors])
        return self.wide(self.parts(), 1)

    # ---- vectors of one size

    def vector(self, size: str, depth: int) -> str:
        if depth <= 0:
            return self.leaf(size)
        kind = self.pick(16)
        if kind == 0:
            return self.leaf(size)
        if kind < 6:
            return self.product(size, depth)
        if kind < 9:
            return self.any(UNARY).format(a=self.vector(size, depth - 1))
        if kind < 13:
            return self.binary(self.vector(size, depth - 1), self.vector(size, depth - 1))
        if kind == 13:
            return f"({self.scalar()} * {self.vector(size, depth - 1)})"
        return self.choice([self.vector(size, depth - 1) for _ in range(4)])

    def binary(self, a: str, b: str) -> str:
        form = self.any(BINARY)
        # a product minus itself is 0 or its rounding error, as the machine pleases
        return form.format(a=a, b=b) if a != b else form.replace(" - ", " + ").format(a=a, b=b)

    def choice(self, values: list[str]) -> str:
        """where: a comparison and two values, one of which may be a number."""
        a, b, c, d = values
        test = self.any(COMPARISONS)
        test = test.format(a=a, b=b, s=self.scalar() if "{s}" in test else "")
        # a vector at least on one side: the comparison may be of scalars
        numbers = self.pick(4)
        return f"where({test}, {'0.4' if numbers == 2 else c}, {'-0.3' if numbers == 3 else d})"

    def leaf(self, size: str) -> str:
        known = [name for name, s in self.vectors if s == size]
        kind = self.pick(6)
        if kind < 4 and known:
            return known[-1 - self.pick(len(known))]
        name = self.param(size)
        return name if kind < 5 else self.any(("exp({a})", "sigmoid({a})", "({a} * {a})")).format(a=name)

    def product(self, size: str, depth: int) -> str:
        """A matrix times x, a state, a computed value, a parameter, or a concatenation."""
        if self.pick(5) == 4:
            return f"({self.new('W')} @ {self.wide(self.parts(), depth - 1)})"
        inner = self.any(self.sizes)
        operand = self.vector(inner, depth - 1) if self.pick(3) == 2 else self.leaf(inner)
        return f"({self.matrix(size, inner)} @ {operand})"

    # ---- vectors of several parts

    def parts(self) -> list[tuple[str, str]]:
        """Two or three values, with their sizes."""
        return [self.firm[self.pick(len(self.firm))] for _ in range(2 + self.pick(4) // 3)]

    def wide(self, parts: list[tuple[str, str]], depth: int) -> str:
        """An expression of concatenations that are cut alike."""
        kind = self.pick(9) if depth > 0 else 0
        if kind < 3:
            return f"concat({', '.join(name for name, _ in self.alike(parts))})"
        if kind < 5:
            whole = tuple(form for form in UNARY if "dropout" not in form)  # a mask cannot be cut
            return self.any(whole).format(a=self.wide(parts, depth - 1))
        if kind < 7:
            return self.binary(self.wide(parts, depth - 1), self.wide(parts, depth - 1))
        if kind == 7:  # a parameter, or a product, as wide as the whole: it is cut where the parts meet
            whole = (
                self.new("q")
                if self.pick(2) == 0
                else f"({self.new('W')} @ {self.leaf(self.any(self.sizes))})"
            )
            return f"({whole} * {self.wide(parts, depth - 1)})"
        return self.choice([self.wide(parts, depth - 1) for _ in range(4)])

    def alike(self, parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Other values of the same sizes in the same order."""
        chosen = [[k for k in self.firm if k[1] == size] for _, size in parts]
        return [same[self.pick(len(same))] for same in chosen]

    # ---- parameters

    def new(self, letter: str) -> str:
        """A parameter that takes its shape from where it stands."""
        self.made += 1
        return f"p.{letter}{self.made}"

    def param(self, size: str) -> str:
        same = [name for name, s in self.params if s == size]
        if same and self.pick(3) == 2:
            return self.any(same)
        name = self.new("b")
        self.params.append((name, size))
        if self.always and size != "H":
            self.declared[name[2:]] = repr(size)
        return name

    def scalar(self) -> str:
        if not self.scalars or self.pick(2) == 1:
            name = self.new("s")
            self.scalars.append(name)
            self.declared[name[2:]] = "()"
        return self.any(SCALARS).format(s=self.any(self.scalars))

    def matrix(self, rows: str, columns: str) -> str:
        form = MATRICES[self.pick(len(MATRICES))] if self.pick(4) == 3 else "{m}"
        plain = form == "{m}"
        names = [self.one_matrix(rows, columns, plain and not self.always)]
        if "{n}" in form:
            names.append(self.one_matrix(rows, columns, False))
        return form.format(m=names[0], n=names[-1], s=self.scalar() if "{s}" in form else "")

    def one_matrix(self, rows: str, columns: str, inferred: bool) -> str:
        same = [name for name, *shape in self.matrices if shape == [rows, columns]]
        if same and self.pick(4) == 3:
            name = self.any(same)
        else:
            name = self.new("W")
            self.matrices.append((name, rows, columns))
        if not inferred:
            self.declared[name[2:]] = repr((rows, columns))
        return name

    def any(self, options: list[str] | tuple[str, ...]) -> str:
        return options[self.pick(len(options))]
