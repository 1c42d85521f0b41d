"""The gallery: the page in the repository is what the catalogue says, and the pictures say what the Programs do."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from ostinato import transforms
from ostinato.cells import catalogue
from ostinato.gallery import layout
from ostinato.gallery.facts import Facts, read
from ostinato.gallery.figure import Item, figure
from ostinato.gallery.page import gallery
from ostinato.gallery.strip import short
from ostinato.gallery.svg import svg
from ostinato.gallery.transformed import transformed
from ostinato.ir import OPS, PARAMETERS, Node, Program, equations, levels, simplify
from ostinato.schedule import make_plan, split_prologue
from programs import draw

DOCS = Path(__file__).resolve().parent.parent / "docs"
CELLS = catalogue()
EVERY = [*CELLS.values()]
SVG = "http://www.w3.org/2000/svg"

# What KaTeX and GitHub's MathJax both render; GitHub refuses \operatorname.
MACROS = {
    *("begin", "end", "quad", "text", "mathrm", "left", "right", "frac", "sqrt", "odot", "cdot", "top", "infty"),
    *("sigma", "tanh", "exp", "log", "sin", "cos", "max", "min", "lfloor", "rfloor", "le", "ge"),
    *("alpha", "beta", "gamma", "epsilon", "zeta", "theta", "lambda", "mu", "nu", "tau", "rho", "phi"),
}


def programs() -> list[Program]:
    """Cells drawn at random from the language."""
    return [draw(random.Random(seed).randrange).cell().program() for seed in range(60)]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    return gallery()


# ---------------------------------------------------------------- the page


def test_the_page_in_the_repository_is_what_the_catalogue_says(files):
    remedy = "run scripts/gallery and commit docs/"
    held = {"cells.md", *(f"cells/{path.name}" for path in (DOCS / "cells").glob("*"))}
    assert held == set(files), f"docs/ has other files than the catalogue gives; {remedy}"
    for path, text in files.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"docs/{path} is not up to date; {remedy}"


def test_the_page_is_the_same_every_time(files):
    assert gallery() == files


@pytest.mark.parametrize("cell", EVERY, ids=lambda cell: cell.name)
def test_the_page_says_all_there_is_to_say_of_a_cell(cell, files):
    section = files["cells.md"].split(f"\n### `{cell.name}`\n")[1].split("\n### ")[0]
    facts = Facts(cell)
    assert equations(facts.program, latex=True, width=92) in section
    assert f"(cells/{cell.name}.svg)" in section and cell.reference in section
    for name, shape in facts.program.params.items():
        size = f"[{', '.join(shape)}]" if shape else "scalar"
        assert re.search(rf"^\| `{name}` \| {re.escape(size)} \| \S.* \| (yes|no) \|$", section, re.MULTILINE), name
    for state, size in facts.program.state_sizes.items():
        assert f"`{state}` [{size}]" in section
    assert f"Stages: {make_plan(split_prologue(facts.program).core).stages}." in section
    if facts.preset_of is None:
        assert all(f"| `{option}` |" in section for option in cell.options)


def test_links_within_the_page_lead_somewhere(files):
    page = files["cells.md"]
    headings = set(re.findall(r"^#+ `?(\w+)`?$", page.lower(), re.MULTILINE))
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert len(links) >= len(CELLS) and set(links) <= headings
    assert {f"cells/{name}.svg" for name in CELLS} == set(re.findall(r"\]\((cells/\w+\.svg)\)", page))


@pytest.mark.parametrize("cell", EVERY, ids=lambda cell: cell.name)
def test_a_cell_says_what_it_is_in_a_sentence_with_its_source(cell):
    text = read(cell.doc)
    assert text.summary.endswith(".") and len(text.summary) <= 100, text.summary
    assert re.search(r"\b(19|20)\d\d$", cell.reference), f"{cell.name}: no (authors year) in the docstring"
    assert text.equations, f"{cell.name}: no equations in the docstring"


PRESETS = [c for c in EVERY if Facts(c).preset_of is not None]


@pytest.mark.parametrize("cell", PRESETS, ids=lambda cell: cell.name)
def test_the_equations_of_a_preset_have_its_parameters(cell):
    told = set(re.findall(r"\b[WUVpb]_\w\b", "\n".join(read(cell.doc).equations)))
    assert told == set(cell.program().params)


@pytest.mark.parametrize("cell", [c for c in EVERY if c not in PRESETS], ids=lambda cell: cell.name)
def test_each_option_of_a_cell_is_told_by_itself(cell):
    told = {name: said for name, _, said in Facts(cell).options}
    own = [said for said in told.values() if not re.fullmatch(r"as in `\w+`\.", said)]
    assert all(told.values()), [name for name, said in told.items() if not said]
    assert len(set(own)) == len(own), "two options with one text"
    assert not any(re.search(rf"\b{name}: ", said) for said in own for name in told), "one text of two options"


def test_a_docstring_is_read_in_its_parts():
    text = read(
        "What it is (Author & Other 1999).\n\n    a = b\n    c = d\n\nA note,\ncontinued.\n\nArgs:\n    x, y: a thing\n"
        "        of two lines.\n    z: another.\n\nRaises:\n    CellError: never.\n\n>>> 1\n1\n"
    )
    assert text.summary == "What it is." and text.equations == ("a = b", "c = d")
    assert text.notes == ("A note, continued.",)
    assert text.arguments == {"x": "a thing of two lines.", "y": "a thing of two lines.", "z": "another."}
    assert text.more == (("Raises", "CellError: never."),)


def test_every_transform_has_its_section_and_an_example_of_what_it_makes(files):
    page = files["cells.md"]
    found = {t.name: t for t in transformed()}
    assert list(found) == list(transforms.__all__)
    for name, t in found.items():
        assert f"\n### `{name}`\n" in page and t.reference, name
        assert t.examples and all(name in call for call, _ in t.examples), name
        for call, program in t.examples:
            assert f"`{call}`" in page and equations(simplify(program), latex=True, width=92) in page


# ---------------------------------------------------------------- equations


def _latex(page: str) -> list[str]:
    return re.findall(r"```math\n(.*?)\n```", page, re.DOTALL)


def test_equations_use_what_github_renders(files):
    blocks = _latex(files["cells.md"])
    assert len(blocks) >= len(CELLS)
    for block in [*blocks, *(equations(simplify(p), latex=True, width=60) for p in programs())]:
        assert set(re.findall(r"\\([a-zA-Z]+)", block)) <= MACROS, block
        for opening, closing in ("{}", "()", "[]", ("\\left", "\\right"), ("\\begin", "\\end")):
            assert block.count(opening) == block.count(closing), block
        plain = block
        while "{" in plain:  # innermost braces first: what is left of two subscripts is __
            plain = re.sub(r"\{[^{}]*\}", "", plain)
        assert not re.search(r"[_^]\s*[_]|\^\s*\^", plain), block


def test_long_equations_are_broken_outside_of_what_grows():
    for cell in EVERY:
        program = simplify(cell.program())
        whole = equations(program)
        for width in (40, 76):
            broken = equations(program, width=width)
            assert re.sub(r"\s+", " ", broken) == re.sub(r"\s+", " ", whole)
            for block in [equations(program, latex=True, width=width)]:
                for row in re.split(r"\\\\\n", block):
                    assert row.count("\\left(") == row.count("\\right)") and row.count("{") == row.count("}")


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("name", CELLS)
def test_a_picture_stands_alone(name, files):
    text = files[f"cells/{name}.svg"]
    root = ET.fromstring(text)
    assert root.tag.endswith("svg") and root.get("viewBox")
    assert "<script" not in text and "@import" not in text and "@font-face" not in text
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#tip"}
    assert "prefers-color-scheme:dark" in text


def _leaf(node: Node) -> str:
    return "x" if node.op == "input" else str(node.attr)


def _reads(program: Program) -> dict[int, set[str]]:
    """The states and x that each value depends on."""
    found: dict[int, set[str]] = {}
    for i, node in enumerate(program.nodes):
        own = {_leaf(node)} if node.op in ("state", "input") else set()
        found[i] = own.union(*(found[a] for a in node.args))
    return found


def _drawn_reads(drawn) -> dict[Item, set[str]]:
    """The same, by the arrows of a picture."""
    edges = [*drawn.edges, *drawn.readings]
    found: dict[Item, set[str]] = {}

    def of(item: Item) -> set[str]:
        if item not in found:
            before = [a for a, b in edges if b is item]
            own = {item.name} if item.kind == "state" and item.column == 0 else set()
            own |= {"x"} if item.kind == "reading" or item in drawn.taps else set()
            found[item] = own.union(*(of(a) for a in before))
        return found[item]

    for item in drawn.items:
        of(item)
    return found


@pytest.mark.parametrize("cell", EVERY, ids=lambda cell: cell.name)
def test_a_picture_says_what_the_program_does(cell):
    program = simplify(cell.program())
    drawn = figure(program)
    plan = make_plan(split_prologue(program).core)
    assert len(drawn.stages) == plan.stages
    level, reads, by_arrows = levels(program), _reads(program), _drawn_reads(drawn)
    ports = [item for item in drawn.items if item.column == drawn.columns - 1]
    assert [p.name for p in ports] == ["output", *(f"{s}′" for s in program.states)]
    for port, position in zip(ports, (program.output, *program.next_states), strict=True):
        assert by_arrows[port] == reads[position], port.name
    # every named value of the step has its node, and depends on what it depends on
    values = {item.name: item for item in drawn.items if item.kind not in ("state", "output", "product", "reading")}
    for i, node in enumerate(program.nodes):
        if node.name and level[i] > PARAMETERS and OPS[node.op].kind != "leaf" and node.name in values:
            assert by_arrows[values[node.name]] == reads[i], node.name
    # every matrix that multiplies a value of the step stands in a box
    boxes = " ".join(" ".join([i.name, *i.lines]) for i in drawn.items if i.kind in ("product", "reading"))
    for node in program.nodes:
        if node.op == "matmul" and program.nodes[node.args[0]].op == "param":
            assert str(program.nodes[node.args[0]].attr) in boxes.split()
    # products of x stand apart, as in the plan, where they are taken of all steps at once
    apart = {m for i in drawn.items if i.kind == "reading" for line in (i.name, *i.lines) for m in line.split("  ")}
    hoisted = {entry.matrix for run in plan.hoist for entry in run.entries}
    assert len(apart) == len(hoisted) and {m for m in hoisted if not m.startswith("%")} <= apart


@pytest.mark.parametrize("name", CELLS)
def test_a_picture_shows_the_step_unrolled(name, files):
    """Three boxes in a row, each with its input and output, and the states between them."""
    program = simplify(CELLS[name].program())
    texts = ["".join(t.itertext()) for t in ET.fromstring(files[f"cells/{name}.svg"]).iter(f"{{{SVG}}}text")]
    assert all(texts.count(time) >= 1 for time in ("t−1", "t", "t+1"))
    for time in ("t−1", "t", "t+1"):
        assert texts.count(f"x[{time}]") == any(node.op == "input" for node in program.nodes)
        assert texts.count(f"output[{time}]") == (program.output >= 0)
    carried = [text for text in texts if text == short(program.states).replace("_", "")]
    assert len(carried) >= (4 if program.states else 0)
    assert short(program.states).removesuffix(", …") in ", ".join(program.states)


def test_arrows_lead_to_the_right_and_nothing_lies_on_anything():
    for program in [*(c.program() for c in EVERY), *programs()]:
        drawn = figure(program)
        assert all(a.column < b.column for a, b in (*drawn.edges, *drawn.readings)), program.name
        root = ET.fromstring(svg(program))
        boxes = [
            tuple(float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
            for rect in root.iter("{http://www.w3.org/2000/svg}rect")
            if rect.get("class") == "box"
        ]
        width, height = map(float, root.get("viewBox", "").split()[2:])
        for k, (x, y, w, h) in enumerate(boxes):
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height, program.name
            for x2, y2, w2, h2 in boxes[k + 1 :]:
                apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
                assert apart, (program.name, (x, y, w, h), (x2, y2, w2, h2))


def test_a_layout_keeps_distances_orders_what_crosses_and_leaves_no_edge_behind_a_box():
    columns = [["a", "b"], ["m", "n", "o"], ["p", "q"]]
    edges = [("a", "o"), ("b", "m"), ("m", "q"), ("o", "p"), ("a", "p"), ("b", "q"), ("n", "p")]
    found = layout.lay_out(columns, edges, lambda item: 20.0, frozenset({0}))
    assert found.y["a"] < found.y["b"] and found.y["o"] < found.y["m"] and found.y["p"] < found.y["q"]
    for column in columns:
        heights = sorted(found.y[item] for item in column)
        assert all(b - a >= 34 - 1e-6 for a, b in pairwise(heights))
    for (first, _), passed in found.passages.items():
        for k, y in enumerate(passed, 1 if first in "ab" else 2):
            assert all(abs(y - found.y[item]) > 10 for item in columns[k])


def _strings(items: Iterable[Item]) -> list[str]:
    return sorted(item.name for item in items)


def test_the_picture_of_an_lstm():
    drawn = figure(CELLS["lstm"].program())
    kinds = {kind: _strings(i for i in drawn.items if i.kind == kind) for kind in ("gate", "squash", "plain")}
    assert kinds == {"gate": ["f", "i", "o"], "squash": ["g"], "plain": ["c′", "h′"]}
    (product,) = (i for i in drawn.items if i.kind == "product")
    assert [product.name, *product.lines] == ["U_i", "U_f", "U_g", "U_o"]
    (memory,) = (i for i in drawn.items if i.name == "c′" and i.kind == "plain")
    assert memory.lines == ("f ⊙ c + i ⊙ g",)
    assert _strings(a for a, b in drawn.edges if b is memory) == ["c", "f", "g", "i"]


def test_formulas_speak_of_named_values_by_their_names_and_of_products_as_a_dot():
    def formula(cell: str, value: str) -> tuple[str, ...]:
        return next(i.lines for i in figure(CELLS[cell].program()).items if i.name == value and i.kind != "state")

    assert formula("gru_reset_after", "n") == ("tanh(· + r ⊙ ·)",)
    assert formula("peephole_lstm", "o") == ("σ(· + p_o ⊙ c′)",)
    assert formula("time_skip", "h′") == ("tanh(· + fed)",)
    assert formula("lstm", "f") == ("σ",)
    assert formula("linear", "y′") == ()
