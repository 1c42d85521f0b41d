"""`ostinato show`: a cell from its equations down to the source of its kernel."""

from __future__ import annotations

import ast
from typing import Annotated, Any

import typer

from .console import write

__all__ = ["show"]


def show(
    cell: Annotated[str, typer.Argument(help="A cell of the catalogue (ostinato cells), or FILE.py:NAME.")],
    latex: Annotated[bool, typer.Option("--latex", help="The equations in LaTeX.")] = False,
    program: Annotated[bool, typer.Option("--program", help="The Program: every value of a step, simplified.")] = False,
    adjoint: Annotated[
        bool, typer.Option("--adjoint", help="Values and gradients, with products gathered into sums.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="The schedule: tape, products, loops, backward.")] = False,
    source: Annotated[
        str | None, typer.Option("--source", help="The rendered source of a backend: c, triton.", metavar="NAME")
    ] = None,
    hidden_size: Annotated[
        int | None,
        typer.Option(
            "--hidden-size", help="D and H of --source triton, whose kernels are of given sizes. Default: 64.", min=1
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the cell, such as activation=relu.", metavar="NAME=VALUE"),
    ] = None,
) -> None:
    """Print a cell's equations, its Program, its Plan, or its source."""
    from ..backends.c import render
    from ..errors import CellError
    from ..ir import equations, simplify
    from ..schedule import build_graph, describe, make_plan, split_prologue
    from ..tasks.cell_option import find_cell
    from .train import check_name

    asked = [latex, program, adjoint, plan, source is not None]
    if sum(asked) > 1:
        raise CellError("more than one view was asked for; give one of --latex, --program, --adjoint, --plan, --source")
    if source is not None:
        check_name("source", source, ("c", "triton"))
    if hidden_size is not None and source != "triton":
        raise CellError("--hidden-size is of --source triton alone: all else holds for every size")
    chosen = find_cell(cell)
    chosen = chosen(**dict(_pair(text) for text in option)) if option else chosen
    written = chosen.program()
    core = split_prologue(simplify(written))
    if program:
        text = str(simplify(written))
    elif adjoint:
        text = describe(build_graph(core.core))
    elif plan:
        text = _before(core) + str(make_plan(core.core))
    elif source == "c":
        text = render(make_plan(core.core))
    elif source == "triton":
        text = _triton(written, hidden_size or 64)
    else:
        text = equations(written, latex)
        if not latex:
            text = "\n".join([f"{chosen.name}: {chosen.summary}".rstrip(": "), "", text])
    write(text + "\n")


def _triton(program: Any, hidden: int) -> str:
    from ..backends.triton import Layout, rendered
    from ..bench.task.cells import extra_sizes
    from ..runtime.step import Step

    step = Step.of(program, True, {"D": hidden, "H": hidden, **extra_sizes(program, hidden)})
    return rendered(Layout(step.plan, step.plan_sizes), batch=16)


def _before(prologue: Any) -> str:
    """The line on what is computed once per call, before the kernel."""
    names = [name for name, i in prologue.derived if prologue.program.nodes[i].op != "param"]
    return f"before the kernel, once per call: {', '.join(names)}\n" if names else ""


def _pair(text: str) -> tuple[str, Any]:
    from ..errors import CellError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CellError(f"--option {text!r} is not NAME=VALUE; write for example --option activation=relu")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
