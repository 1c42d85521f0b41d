"""`Step`: a Program with numbers for its sizes, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import eager
from ..backends.base import Inputs, Kernel, Outputs, extent_of
from ..errors import ShapeError
from ..ir import PARAMETERS, Program, levels, simplify, size_value, without_params
from ..schedule import Plan, Prologue, make_plan, split_prologue
from .dtypes import casting


@lru_cache(maxsize=512)
def _prepared(program: Program, bias: bool) -> Program:
    if not bias:
        names = frozenset(name for name in program.params if name == "b" or name.startswith("b_"))
        program = without_params(program, names)
    return simplify(program)


@lru_cache(maxsize=512)
def _prologue(program: Program) -> Prologue:
    return split_prologue(program)


class Step:
    """A simplified Program and the number each size symbol stands for.

    Attributes:
        program: the equations; sizes: a number for each symbol.
        param_shapes, mask_shapes, state_sizes, statistic_sizes, output_size: in numbers; of the statistics
            those that it measures.
        plan_sizes: the numbers in the order of the Plan's sizes.
        core_text, core_sizes: the step without what depends on parameters only, as the registered operator takes it.
        direct: the kernel takes the parameters as they are.
        kernels: the kernel chosen for a (backend, device type, dtype), None for eager; kept here since choosing costs
            more than a step.
        gave_up: a kernel failed and is taken no more; nor is what was bound to one before.
    """

    def __init__(self, program: Program, sizes: Mapping[str, int]) -> None:
        self.program = program
        self.sizes = dict(sizes)
        self.param_shapes = [torch.Size(size_value(s, self.sizes) for s in shape) for shape in program.params.values()]
        self.state_sizes = [size_value(s, self.sizes) for s in program.state_sizes.values()]
        self.output_size = size_value(program.output_size, self.sizes)
        self.kernels: dict[Any, Kernel | None] = {}
        self.gave_up = False
        core = self.prologue.core
        self.core_text = core.dumps()
        self.core_sizes = [self.sizes[s] for s in core.symbols]
        self.plan_sizes = [size_value(s, self.sizes) for s in self.plan.symbols]
        self._tape = self.plan.tape_size(self.plan_sizes)
        self.direct = self.prologue.trivial and list(core.params) == list(program.params)
        level = levels(program)
        wanted = [i for _, i in self.prologue.derived]
        self._wanted = wanted
        shapes = program.mask_shapes
        self.statistic_sizes = [size_value(program.nodes[i].shape[0], self.sizes) for i in program.measured.values()]
        self.mask_shapes = [torch.Size(size_value(s, self.sizes) for s in shapes[m.name]) for m in program.masks]
        inside = {mask.name for mask in core.masks}
        self._inside = [i for i, mask in enumerate(program.masks) if mask.name in inside]
        once = [(i, n) for i, n in enumerate(program.nodes[: max(wanted, default=-1) + 1]) if level[i] == PARAMETERS]
        place = {("param", name): k for k, name in enumerate(program.params)}
        place.update({("mask", mask.name): k for k, mask in enumerate(program.masks)})
        self._constants: dict[int, Any] = {i: n.attr for i, n in once if n.op == "const"}
        self._params = [(i, place["param", str(n.attr)]) for i, n in once if n.op == "param"]
        self._masks = [(i, place["mask", str(n.attr)]) for i, n in once if n.op == "mask"]
        self._once = [(i, n) for i, n in once if n.op not in ("const", "param", "mask")]

    @classmethod
    def of(cls, program: Program, bias: bool, sizes: Mapping[str, int]) -> Step:
        """Simplify `program`; without `bias`, leave out the vectors named ``b`` or ``b_*``."""
        return cls(_prepared(program, bias), sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        return Step, (self.program, self.sizes)

    @property
    def prologue(self) -> Prologue:
        """What depends on parameters only, and the step that is left."""
        return _prologue(self.program)

    @property
    def plan(self) -> Plan:
        """The schedule of the step."""
        return make_plan(self.prologue.core)

    def tape_values(self, steps: int, batch: int) -> int:
        """How many values the tape of so many steps and sequences has."""
        return self._tape.values(steps, steps * batch)

    def outputs(self, output: Tensor, rest: Sequence[Tensor]) -> Outputs:
        """What a run gives, from the output and, behind it, the final states and the statistics."""
        count = len(self.state_sizes)
        return Outputs(output, tuple(rest[:count]), tuple(rest[count:]))

    def inner_masks(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """The masks that the kernel takes; those of matrices are at work before it."""
        return [masks[i] for i in self._inside]

    def derived(self, params: Sequence[Tensor], masks: Sequence[Tensor] = ()) -> list[Tensor]:
        """What the kernel takes as parameters: values computed from the layer's own, differentiably.

        In the parameters' dtype, under autocast as well.
        """
        kind = params[0].device.type if params else "cpu"
        if casting(kind):
            with torch.autocast(kind, enabled=False):
                return self.derived(params, masks)
        values = dict(self._constants)
        for i, k in self._params:
            values[i] = params[k]
        for i, k in self._masks:
            values[i] = masks[k]
        for i, node in self._once:
            values[i] = eager.evaluate(node, [values[a] for a in node.args], self.sizes)
        found = [values[i] for i in self._wanted]
        if not params:
            return found
        like = params[0]
        dtype, device = like.dtype, like.device
        return [v if v.dtype == dtype and v.device == device else v.to(like) for v in found]


def check_masks(step: Step, inputs: Inputs) -> None:
    """A mask of a vector lies as x does or is [1, B, S], one of a matrix has its shape; a kernel takes them by address.

    Raises:
        ShapeError: one is missing, or has another shape, dtype or device.
    """
    x, masks = inputs.x, inputs.masks
    names = [mask.name for mask in step.program.masks]
    if len(masks) != len(names):
        raise ShapeError(f"the step takes {len(names)} masks ({', '.join(names) or 'none'}), got {len(masks)}")
    for mask, want, name in zip(masks, step.mask_shapes, names, strict=True):
        once = mask.dim() == 3 and mask.shape[0] == 1
        over = (1, extent_of(x, inputs.lengths)[1]) if once else x.shape[:-1]
        shape = tuple(want) if len(want) == 2 else (*over, *want)
        if tuple(mask.shape) != shape or mask.dtype != x.dtype or mask.device != x.device:
            raise ShapeError(
                f"the mask {name} is {mask.dtype} {list(mask.shape)} on {mask.device}; give {x.dtype} {list(shape)} on "
                f"{x.device}"
            )


def check_params(step: Step, x: Tensor, params: Sequence[Tensor]) -> None:
    """Parameters are what the step was made for: a kernel takes them by address.

    Raises:
        ShapeError: one was replaced by another shape, dtype or device.
    """
    dtype, device = x.dtype, x.device
    for k, (p, want) in enumerate(zip(params, step.param_shapes, strict=True)):
        if p.shape != want or p.dtype != dtype or p.device != device:
            raise ShapeError(
                f"the parameter {list(step.program.params)[k]} is {p.dtype} {list(p.shape)} on {p.device}, but the "
                f"cell takes {dtype} {list(want)} on {device}; put back one that fits"
            )
