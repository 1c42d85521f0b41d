"""`ostinato show`: what each floor makes of a cell."""

from __future__ import annotations

import ast
import re

import pytest

from ostinato.cells import catalogue
from tiny_commands import ostinato

VIEWS = {
    "--latex": r"\begin{aligned}",
    "--program": "program gru(x, h)",
    "--adjoint": "sums of products",
    "--plan": "plan gru: 2 stages a step",
    "--source=c": "/* gru: rendered by Ostinato */",
    "--source=triton": '"""Rendered from a Plan."""',
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_printed(view):
    code, out, err = ostinato("show", "gru", view)
    assert code == 0 and VIEWS[view] in out and not err


def test_equations_are_what_is_shown_unasked():
    code, out, _ = ostinato("show", "gru")
    assert code == 0 and out.startswith("gru: ") and "z[t] ⊙ h[t-1]" in out


@pytest.mark.parametrize("hidden", [None, 7, 600])
@pytest.mark.parametrize("name", ["lstm", "gru", "lmu", "projected_lstm"])
def test_the_source_for_a_gpu_is_python_that_nothing_else_names(name, hidden):
    """A module for each of the three kernels, with all that it calls; of any size, and without triton."""
    _, out, _ = ostinato("show", name, "--source", "triton", *(() if hidden is None else ("--hidden-size", hidden)))
    modules = re.split(r"^# (?=infer: |train: |backward: )", out, flags=re.MULTILINE)[1:]
    assert [module.partition(":")[0] for module in modules] == ["infer", "train", "backward"]
    for module in modules:
        tree = ast.parse(f"# {module}")
        kernels = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert kernels and all("triton.jit" in ast.unparse(each.decorator_list[0]) for each in kernels)
        assert len({each.name for each in kernels}) == len(kernels)
    assert str(hidden or 64) in out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--plan", "--latex"], "more than one view"),
        (["--source", "c", "--hidden-size", "8"], "--hidden-size is of --source triton alone"),
        (["--option", "activation"], "is not NAME=VALUE"),
        (["--source", "cuda"], "--source: 'cuda' is none of c, triton"),
        (["--source", "triton", "--hidden-size", "0"], "--hidden-size"),
    ],
)
def test_what_cannot_be_shown_is_refused(given, words):
    code, out, err = ostinato("show", "lstm", *given)
    assert code == 2 and words in err and not out


@pytest.mark.parametrize("name", catalogue())
def test_every_cell_has_a_source_for_a_gpu(name):
    assert ostinato("show", name, "--source", "triton", "--hidden-size", 40)[0] == 0
