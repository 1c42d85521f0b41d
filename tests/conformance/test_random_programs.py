"""Cells drawn at random from the whole language give the same in C as in eager: this finds compiler bugs."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from fuzz import numbered
from laws import THOROUGH, needs_c
from ostinato.ir import OPS, STATE, levels, simplify
from programs import draw

CHUNKS, PROGRAMS = 5, 27 if THOROUGH else 7  # of which all but two in each chunk are different ones that C takes


@needs_c
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_c_agrees_with_eager(chunk: int) -> None:
    """Values, final states and every gradient, in float64; each fourth program in float32 too."""
    passed: set[str] = set()
    refused: list[str] = []

    # no shrinking here: every program has a number, and scripts/fuzz --only shrinks it
    @seed(chunk)
    @settings(
        max_examples=PROGRAMS,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 10**6))
    def agrees(number: int) -> None:
        outcome = numbered("0", number, "c", ("float64", "float32") if number % 4 == 0 else ("float64",))
        assume(outcome.source not in passed)
        assert not outcome.wrong, "\n".join([outcome.source, *outcome.wrong, outcome.replay("0", "c")])
        if outcome.refused:
            refused.append(outcome.refused)
        else:
            passed.add(outcome.source)

    agrees()
    assert len(passed) >= PROGRAMS - 2, refused


def test_the_generator_reaches_the_whole_language() -> None:
    """Every operation of the table, every kind of operand, from none to three states."""
    found: set[str] = set()
    for k in range(400):
        cell = draw(random.Random(k).randrange).cell()
        program = simplify(cell.program())
        level = levels(program)
        found.update(node.op for node in program.nodes)
        found.add(f"{len(cell.states)} states")
        found.update("matrix " + program.nodes[n.args[0]].op for n in program.nodes if n.op == "matmul")
        for place, state in enumerate(program.next_states):
            node = program.nodes[state]
            if node.op == "state":
                found.add("unchanged" if node.attr == program.states[place] else "swapped")
            if level[state] < STATE:
                found.add("a state that forgets")
        if program.output not in program.next_states:
            found.add("another output")
        operands = {
            program.nodes[n.args[1]].op for n in program.nodes if n.op == "matmul" and level[n.args[1]] == STATE
        }
        found.update("a stage more" for op in operands if op != "state")
    # matmul_t, total, grad and the like belong to the adjoint
    written = {op for op, row in OPS.items() if row.kind in ("pointwise", "compare")} | {
        "matmul",
        "concat",
        "cols",
        "rows",
    }
    assert written <= found
    assert {
        "0 states",
        "1 states",
        "2 states",
        "3 states",
        "unchanged",
        "swapped",
        "a state that forgets",
    } <= found
    assert {
        "another output",
        "a stage more",
        "matrix param",
        "matrix mul",
        "matrix tanh",
        "matrix cols",
    } <= found
