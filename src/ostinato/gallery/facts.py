"""What there is to say of a cell, from its equations and its docstring alone."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..cells import catalogue
from ..ir import Program, simplify, size_value
from ..lang import Cell
from ..schedule import make_plan, split_prologue
from ..transforms import __all__ as transforms

WIDTH = 256  # every size, where numbers are counted

_PARTS = ("Args:", "Raises:", "New parameters:", "New statistics:")


@dataclass(frozen=True)
class Text:
    """A docstring in its parts.

    Args:
        summary: the first line, without the reference.
        equations: as they are written, lines.
        notes: paragraphs of prose.
        arguments: what is said of each argument or option.
        more: other headed parts (what is raised, new parameters), as (heading, prose).
    """

    summary: str
    equations: tuple[str, ...]
    notes: tuple[str, ...]
    arguments: Mapping[str, str]
    more: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter: sizes, how it starts, whether it is trained."""

    name: str
    shape: tuple[str, ...]
    rule: float | str
    fixed: bool


class Facts:
    """One cell of the catalogue.

    >>> from ostinato import cells
    >>> facts = Facts(cells.lstm)
    >>> facts.stages, facts.count, facts.states
    (1, 525312, (('h', 'H'), ('c', 'H')))
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.name = cell.name
        self.reference = cell.reference
        self.program: Program = simplify(cell.program())
        self.text = read(cell.doc)

    @cached_property
    def stages(self) -> int:
        """Rounds of recurrent products that wait for one another within a step."""
        return make_plan(split_prologue(self.program).core).stages

    @property
    def states(self) -> tuple[tuple[str, str], ...]:
        """The states and their sizes."""
        return tuple(self.program.state_sizes.items())

    @property
    def count(self) -> int:
        """How many numbers are trained where every size is `WIDTH`."""
        sizes = dict.fromkeys(self.program.symbols, WIDTH)
        shapes = {k: v for k, v in self.program.params.items() if k not in self.program.fixed}
        return sum(math.prod(size_value(size, sizes) for size in shape) for shape in shapes.values())

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters in the order of the equations."""
        from ..nn.initialize import default_rules  # with torch, which a list of the catalogue does without

        rules = default_rules(self.program)
        fixed = self.program.fixed
        return tuple(Parameter(k, shape, rules[k], k in fixed) for k, shape in self.program.params.items())

    @property
    def options(self) -> list[tuple[str, Any, str]]:
        """The options, their values, and what the docstring says of each, "" if it is in other words."""
        told = self.text.arguments

        def said(name: str) -> str:
            named = (text for text in told.values() if re.search(rf"\b{name}:", text))
            return told.get(name) or next(named, "")

        return [(name, value, said(name)) for name, value in self.cell.options.items()]

    @cached_property
    def applied(self) -> tuple[tuple[str, ...], str]:
        """The transforms that made it, the last one first, and what they were applied to.

        >>> from ostinato.named import named
        >>> Facts(named("zoneout(layer_norm(lstm), 0.1)")).applied
        (('zoneout', 'layer_norm'), 'lstm')
        """
        found: list[str] = []
        try:
            tree = ast.parse(self.name, mode="eval").body
        except SyntaxError:  # a preset is called what its author likes
            return (), self.name
        while isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in transforms:
            found.append(tree.func.id)
            tree = tree.args[0]
        return tuple(found), ast.unparse(tree) if found else self.name

    @property
    def preset_of(self) -> tuple[str, dict[str, Any]] | None:
        """The cell whose function it is under another name, and the options that make it so."""
        name = self.cell.code.co_name if self.cell.code is not None else self.name
        origin = catalogue().get(name)
        if name == self.name or origin is None or self.applied[0]:
            return None
        return name, {k: v for k, v in self.cell.options.items() if origin.options.get(k) != v}

    @property
    def family(self) -> str:
        """What the file says that holds the cell: its families have a heading each."""
        module = inspect.getmodule(self.cell.code)
        first = inspect.cleandoc((module and module.__doc__) or "Other cells").partition("\n")[0]
        return re.split(r'^([^"]*?): ', first)[1 if re.match(r'[^"]*?: ', first) else 0].rstrip(".")


def rule(parameter: Parameter) -> str:
    """How a parameter starts, for a reader."""
    return parameter.rule if isinstance(parameter.rule, str) else f"{parameter.rule:g}"


def families() -> dict[str, list[Facts]]:
    """The catalogue by families, each in the order of the catalogue."""
    found: dict[str, list[Facts]] = {}
    for cell in catalogue().values():
        facts = Facts(cell)
        found.setdefault(facts.family, []).append(facts)
    return found


def read(doc: str) -> Text:
    """A docstring's parts; the example that doctest runs is left out."""
    lines = inspect.cleandoc(doc).split("\n")
    summary = re.sub(r"\s*\([^()]*\b(?:19|20)\d\d[^()]*\)(?=\.?$)", "", lines[0])
    equations: list[str] = []
    notes: list[str] = []
    arguments: dict[str, str] = {}
    more: list[tuple[str, str]] = []
    for block in _blocks(lines[1:]):
        head = block[0].strip()
        if head.startswith(">>>"):
            continue
        if head == "Args:":
            arguments.update(_arguments(block[1:]))
        elif head.startswith(_PARTS):
            heading, _, rest = head.partition(":")
            more.append((heading, " ".join([rest.strip(), *(line.strip() for line in block[1:])]).strip()))
        elif block[0].startswith("    ") or (not equations and not notes and _are_equations(block)):
            equations += [*([""] if equations else []), *inspect.cleandoc("\n" + "\n".join(block)).split("\n")]
        else:
            notes.append(" ".join(line.strip() for line in block))
    return Text(summary, tuple(equations), tuple(notes), arguments, tuple(more))


def _blocks(lines: list[str]) -> list[list[str]]:
    """Paragraphs; a heading's lines and the lines of an example belong together."""
    blocks: list[list[str]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
        elif fresh:
            blocks.append([line])
            fresh = False
        else:
            blocks[-1].append(line)
    return blocks


def _are_equations(block: list[str]) -> bool:
    """Whether a paragraph is of equations: it begins with a name that is assigned, and each line assigns something."""
    first = re.match(r"(for )?[\w~'{}+()\[\]⊙-]+( [\w(]\S*){0,3} (=|->) ", block[0])
    return bool(first) and all("=" in line or "->" in line for line in block)


def _arguments(lines: list[str]) -> dict[str, str]:
    """``name, other: what`` entries, with what goes on below them."""
    base = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        entry = re.match(r"([\w*, ;:\[\]]+?): (.*)", line[base:])
        if entry and not line[base:].startswith(" "):
            names = [name.strip() for name in entry[1].split(",")]
            found.update(dict.fromkeys(names, entry[2]))
        else:
            for name in names:
                found[name] += " " + line.strip()
    return found
