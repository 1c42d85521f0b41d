"""Programs: the table of operations, simplification, the adjoint, printing, JSON; values against torch's."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch

import ostinato
from ostinato import Program, ProgramError
from ostinato.backends.eager import evaluate
from ostinato.ir import OPS, Builder, Node, adjoint, equations, levels, prune, simplify, size_sum, size_value
from programs import draw

POINTWISE = [op for op, row in OPS.items() if row.kind == "pointwise"]
EXPONENTS = (0.0, 0.5, 1.5, 2.0, 3.0, -1.0, -0.5)
POINTS = (-2.5, -1.0, -0.3, 0.0, 0.2, 1.0, 3.0, 19.0, 25.0, -25.0)


def programs() -> list[Program]:
    """The catalogue's, and many drawn at random."""
    found = [c.program() for c in ostinato.cells.catalogue().values()]
    return found + [draw(random.Random(k).randrange).cell().program() for k in range(150)]


SIZES = {"D": 3, "H": 4, "N": 3, "P": 2}


def values(program: Program) -> list[torch.Tensor]:
    """Next states and output of a Program on numbers that depend on names alone."""

    def leaf(node: Node) -> torch.Tensor | float:
        if node.op == "const":
            return float(node.attr or 0.0)
        shape = [size_value(s, SIZES) for s in node.shape]
        generator = torch.Generator().manual_seed(sum(map(ord, f"{node.op}{node.attr}")))
        return torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5

    found: list[torch.Tensor | float] = []
    for node in program.nodes:
        kind = OPS[node.op].kind
        found.append(leaf(node) if kind == "leaf" else evaluate(node, [found[a] for a in node.args], SIZES))
    return [torch.as_tensor(found[i]) for i in (*program.next_states, program.output)]


def test_simplification_keeps_the_meaning() -> None:
    for program in programs():
        simple = simplify(program)
        for ours, meant in zip(values(simple), values(program), strict=True):
            torch.testing.assert_close(ours, meant, rtol=1e-13, atol=1e-13)
        assert simplify(simple) == simple
        assert prune(simple) == simple
        assert not [n for n in simple.nodes if n.op == "concat" and n is not simple.nodes[simple.output]] or all(
            i in (*simple.next_states, simple.output) for i, n in enumerate(simple.nodes) if n.op == "concat"
        )


def test_equal_values_are_one_node_and_constants_fold() -> None:
    @ostinato.cell
    def own(p, x, h):
        a = ostinato.tanh(p.W @ x) * 1.0 + 0.0
        b = ostinato.tanh(p.W @ x)
        unused = ostinato.exp(h)
        assert unused is not None
        return (a + b) * (2.0 * 3.0 - 5.0) - 0.0 * h

    ops = [n.op for n in simplify(own.program()).nodes]
    assert ops.count("tanh") == 1 and "exp" not in ops
    assert ops.count("const") == 1 and "sub" in ops  # 0 * h stays: h may be infinite


def test_folding_is_exact() -> None:
    """A constant expression is the number that the machine computes, or is left to it."""
    for op in POINTWISE:
        if op in ("pow", "where"):
            continue
        arity = OPS[op].arity
        for numbers in [(a, b)[:arity] for a in POINTS for b in POINTS]:
            builder = Builder()
            try:
                at = builder.op(op, *[builder.const(v) for v in numbers])
            except ProgramError:
                continue
            folded = builder.constant(at)
            meant = evaluate(Node(op, (), ()), [torch.tensor(v, dtype=torch.float64) for v in numbers], {})
            if folded is not None:
                assert math.isclose(folded, float(meant), rel_tol=1e-13, abs_tol=1e-15), (op, numbers)


def derivative(op: str, numbers: tuple[float, ...], attr: float | None = None) -> tuple[list[float], list[float]]:
    """The adjoint's gradients of one operation at a point, and torch's."""
    builder = Builder()
    leaves = [builder.raw("state", (), ("H",), f"s{i}") for i in range(len(numbers))]
    if op == "where":
        comparison = builder.compare("gt", leaves[0], leaves[1])
        root = builder.op(op, comparison, leaves[0], leaves[1])
    else:
        root = builder.op(op, *leaves, attr=attr)
    seed = builder.raw("grad", (), ("H",), "g")
    found = adjoint(builder, range(len(builder.nodes)), {root: seed})
    points = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in numbers]
    known: list[object] = []
    for i, node in enumerate(builder.nodes):
        if i in leaves:
            known.append(points[leaves.index(i)])
        elif node.op == "grad":
            known.append(torch.tensor([0.7], dtype=torch.float64))
        elif node.op == "const":
            known.append(node.attr)
        else:
            known.append(evaluate(node, [known[a] for a in node.args], {}))
    meant = torch.autograd.grad(known[root], points, torch.tensor([0.7], dtype=torch.float64), allow_unused=True)  # type: ignore[arg-type]
    ours = [0.0 if leaf not in found else float(torch.as_tensor(known[found[leaf]]).detach()) for leaf in leaves]
    return ours, [0.0 if g is None else float(g) for g in meant]


CASES = [(op, None) for op in POINTWISE if op != "pow"] + [("pow", e) for e in EXPONENTS]


@pytest.mark.parametrize(("op", "attr"), CASES, ids=[f"{o}{'' if a is None else a}" for o, a in CASES])
def test_derivatives_are_those_of_torch(op: str, attr: float | None) -> None:
    """At every point where torch has one: at kinks and ties too."""
    arity = 2 if op == "where" else OPS[op].arity
    compared = 0
    for numbers in {(a, b)[:arity] for a in POINTS for b in POINTS}:
        ours, meant = derivative(op, numbers, attr)
        if all(map(math.isfinite, meant)):
            assert ours == pytest.approx(meant, rel=1e-12, abs=1e-14), (op, numbers)
            compared += 1
    assert compared >= 4


def test_the_adjoint_of_whole_programs() -> None:
    """Gradients of each next value with respect to states and x, against torch's autograd."""
    compared = 0
    for program in programs():
        program = simplify(program)
        builder = Builder(program.nodes)
        # a matrix gets no gradient here: that one leaves the time loop
        root = program.next_states[-1] if program.next_states else program.output
        if program.nodes[root].op in ("concat", "state", "input", "param"):
            continue
        level = levels(program)
        section = [i for i in range(len(program.nodes)) if level[i] > 0]
        if root not in section or any(program.nodes[i].op in ("rows", "cols", "concat") for i in section):
            continue
        seed = builder.raw("grad", (), program.nodes[root].shape, "g")
        found = adjoint(builder, section, {root: seed})
        leaves = [i for i, n in enumerate(program.nodes) if n.op in ("state", "input")]
        known: list[object] = []
        for i, node in enumerate(builder.nodes):
            shape = [size_value(s, SIZES) for s in node.shape]
            generator = torch.Generator().manual_seed(sum(map(ord, f"{node.op}{node.attr}")))
            if node.op == "const":
                known.append(node.attr)
            elif node.op == "size":
                known.append(float(size_value(str(node.attr), SIZES)))
            elif node.op == "broadcast":
                known.append(known[node.args[0]] * torch.ones(shape, dtype=torch.float64))  # type: ignore[operator]
            elif OPS[node.op].kind == "leaf":
                value = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5
                known.append(value.requires_grad_(i in leaves))
            elif node.op == "matmul_t":
                matrix, vector = (known[a] for a in node.args)
                known.append(vector @ matrix)  # type: ignore[operator]
            elif node.op == "total":
                known.append(known[node.args[0]].sum())  # type: ignore[attr-defined]
            else:
                known.append(evaluate(node, [known[a] for a in node.args], SIZES))
        if not known[root].requires_grad:  # type: ignore[attr-defined] # a choice between numbers
            continue
        compared += 1
        meant = torch.autograd.grad(known[root], [known[i] for i in leaves], known[seed], allow_unused=True)  # type: ignore[arg-type]
        for leaf, gradient in zip(leaves, meant, strict=True):
            if gradient is None:
                assert leaf not in found or not torch.as_tensor(known[found[leaf]]).any()
            else:
                assert leaf in found
                ours = torch.as_tensor(known[found[leaf]], dtype=torch.float64).expand(gradient.shape)
                torch.testing.assert_close(ours.detach(), gradient, rtol=1e-11, atol=1e-12)
    assert compared > 50


def test_json_gives_the_same_program_back() -> None:
    for program in programs():
        text = json.dumps(program.to_json())
        again = Program.from_json(json.loads(text))
        assert again == program and hash(again) == hash(program)
        assert again.dumps() == program.dumps()
        assert simplify(again) == simplify(program)


def test_infinite_constants_survive_json() -> None:
    @ostinato.cell
    def own(p, x, h):
        return ostinato.minimum(p.W @ x, math.inf) + ostinato.maximum(h, -math.inf)

    text = json.dumps(own.program().to_json(), allow_nan=False)
    assert Program.from_json(json.loads(text)) == own.program()


DAMAGE = [
    ("format", lambda d: d.update(format=99), "format 99"),
    ("no format", lambda d: d.pop("format"), "not a Program"),
    ("no nodes", lambda d: d.pop("nodes"), "not a Program"),
    ("unknown operation", lambda d: d["nodes"][-1].__setitem__(0, "quux"), "unknown operation 'quux'"),
    ("too many operands", lambda d: d["nodes"][-1].__setitem__(1, [0, 0, 0, 0]), "operands"),
    (
        "operand ahead",
        lambda d: d["nodes"][3].__setitem__(1, [40] * len(d["nodes"][3][1]) or [40]),
        "operands",
    ),
    (
        "operand below 0",
        lambda d: d["nodes"][-1].__setitem__(1, [-1] * len(d["nodes"][-1][1])),
        "do not come before",
    ),
    ("state beyond the end", lambda d: d.update(next_states=[999]), "999"),
    ("output is a matrix", lambda d: d.update(output=2), "not a vector"),
    ("states lost", lambda d: d.update(states=[]), "states"),
    ("shape", lambda d: d["nodes"][-1].__setitem__(2, ["D"]), "cannot give"),
    ("text for a number", lambda d: d.update(output="none"), "not a Program"),
    ("a list", lambda d: d.update(nodes=[3]), "not a Program"),
]


@pytest.mark.parametrize(("what", "damage", "fact"), DAMAGE, ids=[d[0] for d in DAMAGE])
def test_damaged_json_is_refused(what: str, damage: object, fact: str) -> None:
    data = json.loads(json.dumps(ostinato.cells.gru.program().to_json()))
    damage(data)  # type: ignore[operator]
    with pytest.raises(ProgramError, match=fact):
        Program.from_json(data)


def test_levels() -> None:
    @ostinato.cell
    def own(p, x, h):
        once = ostinato.exp(p.a)
        ahead = p.W @ x
        step = p.U @ h
        return ostinato.tanh(once * ahead + step)

    program = own.program()
    named = {node.name: level for node, level in zip(program.nodes, levels(program), strict=True) if node.name}
    assert named == {"once": 0, "ahead": 1, "step": 2}


def test_sizes() -> None:
    assert size_sum("H", "D") == size_sum("D", "H") == "D+H"
    assert size_sum("D+H", "D") == "D+D+H"
    assert size_value("D+D+H", {"D": 3, "H": 4}) == 10
    assert size_value("", {}) == 0


def test_equations_are_printed() -> None:
    text = equations(ostinato.cells.gru.program())
    assert "r[t] = σ(W_r x[t] + U_r h[t-1] + b_r)" in text
    assert "h[t] = (1 − z[t]) ⊙ n[t] + z[t] ⊙ h[t-1]" in text
    latex = equations(ostinato.cells.gru.program(), latex=True)
    assert r"\sigma" in latex and latex.count("{") == latex.count("}")
    for program in programs():
        written = equations(simplify(program))
        for opening, closing in ("()", "{}", "[]"):
            assert written.count(opening) == written.count(closing), written
        assert "None" not in written
        assert str(program).startswith("program ")


def test_latex_of_every_program() -> None:
    for program in programs():
        written = equations(simplify(program), latex=True)
        for opening, closing in ("()", "{}", "[]"):
            assert written.count(opening) == written.count(closing), written
        assert "None" not in written
