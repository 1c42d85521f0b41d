"""Kernels ahead of a call, as text and as Triton compiles them, for a card that need not be there."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from .device import H200
from .form import Form
from .forms import candidates
from .layout import Layout
from .load import load
from .render import KERNELS, given, render
from .stages import STAGE, render_stages
from .step import CONSTANTS, arguments

__all__ = ["compiled", "rendered", "sources"]


def rendered(layout: Layout, batch: int, factors: str = "float32") -> str:
    """The kernels of a Plan as text, a module for each, in the form that is taken first on an H200. Needs no triton.

    Args:
        layout: the Plan at its sizes.
        batch: sequences of a call.
        factors: of products, as `Form` has them.
    """
    found: list[str] = []
    for name in KERNELS:
        form = candidates(layout, name, batch, factors, H200)[0].form
        text = render_stages(layout, form, name).text if form.stages else render(layout, form, name)[0]
        found.append(f"# {name}: {form}\n\n{text}")
    return "\n\n".join(found)


def compiled(layout: Layout, form: Form, name: str, capability: int = 90) -> dict[str, Any]:
    """What Triton makes of a kernel's functions, by their names, for a card of this capability.

    Args:
        layout: the Plan at its sizes.
        form: how the work is dealt to programs.
        name: infer, train or backward.
        capability: ten times that of the card, 90 for an H100 or H200.
    """
    import triton  # pyright: ignore[reportMissingImports]
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]

    target = GPUTarget("cuda", capability, 32)
    return {
        function: triton.compile(source, target=target, options=form.options)
        for function, source in sources(layout, form, name).items()
    }


def sources(layout: Layout, form: Form, name: str) -> dict[str, Any]:
    """A kernel's functions with the types of their arguments, for calls with states and no lengths."""
    back = name == "backward"
    if not form.stages:
        whole = {f"ld{i}" for i, (*_, width) in enumerate(layout.plan.matrices) if not layout.of(width) % 16}
        return {name: _source(load(render(layout, form, name)[0]), name, given(layout.plan, back), form, whole)}
    made = render_stages(layout, form, name)
    module = load(made.text)
    numbers = [each for each in made.order if isinstance(each, int)]
    found = {"note": _source(module, "note", ["table", *arguments(layout.plan, back)], form, constants=())}
    return found | {f"stage_{i}": _source(module, f"stage_{i}", list(STAGE), form) for i in numbers}


def _source(
    module: Any,
    function: str,
    names: list[str],
    form: Form,
    sixteens: Collection[str] = (),
    constants: tuple[str, ...] = CONSTANTS,
) -> Any:
    """A function as the compiler takes it; `sixteens` are numbers that 16 divides."""
    from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]

    kinds = {name: kind(name, form) for name in names} | dict.fromkeys(constants, "constexpr")
    values = {(len(names) + i,): name == "HAS_START" for i, name in enumerate(constants)}
    whole = [i for i, name in enumerate(names) if kinds[name].startswith("*") or name in sixteens]
    attributes = {(i,): [["tt.divisibility", 16]] for i in whole}
    return ASTSource(fn=getattr(module, function), signature=kinds, constexprs=values, attrs=attributes)


def kind(name: str, form: Form) -> str:
    """The type of an argument, as Triton writes it."""
    if name in ("lengths", "begin", "table"):
        return "*i64"
    if name in ("counters", "failed"):
        return "*i32"
    if name in ("T", "B", "rows", "patience", "earlier", "ahead") or re.fullmatch(r"ld\d+|k\d+_steps", name):
        return "i32"
    factor = name in ("exchange", "source") or re.fullmatch(r"m\d+", name)
    return {"bfloat16": "*bf16", "float16": "*fp16"}.get(form.factors, "*fp32") if factor else "*fp32"
