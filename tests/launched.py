"""What calls of a layer launch, taken by Triton's own launcher for an H200 that is not there: it compiles, and runs
nothing. A script, for a process without the interpreter: `python launched.py CELL FACTORS`.

It prints, for each form, how often a kernel was compiled in calls of several lengths and sizes of batch.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from ostinato import RNN
from ostinato.backends.base import Inputs, OutputGradients, Wanted
from ostinato.backends.triton import Form, TritonKernel, staged, whole
from ostinato.backends.triton.choosing import Chooser
from ostinato.named import named
from ostinato.runtime.step import Step

# pyright: basic, reportMissingImports=false

EXTENTS = ((5, 6), (16, 16), (1, 1), (33, 3))  # T, B


class Nowhere:
    """What the launcher asks a driver before it compiles."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class Only(Chooser):
    """One form, which is not to be refused."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forms(self, *_):
        return [self.form]

    def refuse(self, name, form):
        raise AssertionError(f"{name} was not launched in {form}")


def main(cell: str, factors: str) -> dict[str, dict[str, int]]:
    """By form, how often each kernel was compiled."""
    driver.set_active(Nowhere())
    compiled: dict[str, set[Any]] = {}

    def launch(function, grid, given, constants, form):
        options = form.options | ({"launch_cooperative_grid": True} if form.meeting else {})
        made = function.warmup(*given, grid=grid, **constants, **options)
        assert made.metadata.maxnreg == form.options["maxnreg"] and made.metadata.num_warps == form.warps
        assert made.metadata.launch_cooperative_grid == form.meeting
        compiled.setdefault(f"{function.fn.__module__}.{function.__name__}", set()).add(made.hash)

    whole.launch = staged.launch = launch
    step = Step.of(named(cell).program(), True, {"D": 24, "H": 40})
    layer = RNN(cell, 24, 40)
    params = list(layer.parameters()) if step.direct else step.derived(list(layer.parameters()))
    found = {}
    for form in (Form(4, factors=factors), Form(4, 2, 4, factors=factors), Form(4, factors=factors, stages=True)):
        kernel = TritonKernel(step.plan.anonymous(), step.plan_sizes, factors, Only(form))
        bound = kernel.bind(params)
        for steps, batch in EXTENTS:
            inputs = Inputs(torch.randn(steps, batch, 24), None, torch.full((batch,), steps), False, [])
            bound.forward(inputs, False)
            outputs, tape = bound.forward(inputs, True)
            grads = OutputGradients(torch.randn_like(outputs.output), [None] * len(outputs.finals))
            bound.backward(tape, inputs, outputs.output, grads, Wanted(True, False, [True] * len(params)))
        found[str(form)] = {name: len(kinds) for name, kinds in compiled.items()}
        compiled.clear()
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
