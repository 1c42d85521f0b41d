"""The steps a layer may need: in training or evaluation, with its outputs or the last alone, with states or without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ir import (
    Mask,
    Program,
    evaluation,
    output_as_state,
    simplify,
    size_value,
    with_states_out,
    without_output,
    without_params,
)
from ..runtime import Step
from .masks import draw


class Wanted(NamedTuple):
    """What a run is to give.

    Args:
        training: with random masks; else each stands at its expectation.
        sequence: the output at every step; else the last alone, and no stack of outputs is built.
        states: every state at every step.
    """

    training: bool
    sequence: bool
    states: bool


class Variant:
    """A cell's step in the form that gives what is wanted, no more.

    Attributes:
        step: what runs.
        params: the parameters it takes, by their names in the equations: some may have vanished with a mask.
        masks: the random numbers it takes, with their shapes in numbers.
        place: position of the state that is the output, None if no state is.
        carries: the size of the output if it is carried as one more state, the last; else 0.
        parts: the widths of what lies side by side in what the step puts out; empty if that is the output.
        given: its masks are statistics that the layer keeps.
    """

    def __init__(self, program: Program, sizes: Mapping[str, int], wanted: Wanted) -> None:
        if not wanted.training:
            program = simplify(evaluation(program))
        names, nexts = program.states, program.next_states
        self.place = nexts.index(program.output) if program.output in nexts else None
        self.carries = 0
        if self.place is None and not wanted.sequence:
            self.carries = size_value(program.output_size, dict(sizes))
            program = output_as_state(program, _unused("y", names))
            self.place = len(names)
        elif self.place is not None and (wanted.states or not wanted.sequence):
            program = without_output(program)  # it is a state, and comes out as one
        self.parts: list[int] = []
        if wanted.states:
            outputs = [program.output_size] if program.output >= 0 else []
            self.parts = [size_value(s, dict(sizes)) for s in (*outputs, *program.state_sizes.values())]
            program = with_states_out(program)
        self.given = not wanted.training and bool(program.statistics)
        self.states = names
        self.wanted = wanted
        self.step = Step(simplify(program), sizes)
        self.params = list(self.step.program.params)
        self.masks = list(zip(self.step.program.masks, self.step.mask_shapes, strict=True))

    def draw(self, x: Tensor, generator: torch.Generator | None) -> Sequence[Tensor]:
        """Its masks for an input x [T, B, D]: of a vector [T, B, S], [1, B, S] if locked, of a matrix its shape."""
        return [draw(mask, _extent(mask, shape, x), x, generator) for mask, shape in self.masks]

    def split(self, raw: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The output at every step, and every state, from what the step put out at every step."""
        if not self.parts:
            return raw, {}
        found = list(raw.split(self.parts, -1))
        output = found.pop(0) if self.place is None else found[self.place]
        return output, dict(zip(self.states, found, strict=False))  # an output that is carried stands last


class Family:
    """The variants of a cell's step at given sizes, made when they are first asked for.

    Args:
        program: simplified.
        sizes: a number for each size symbol.
    """

    def __init__(self, program: Program, sizes: Mapping[str, int]) -> None:
        self.program = program
        self.sizes = dict(sizes)
        self._made: dict[Wanted, Variant] = {}

    @classmethod
    def of(cls, program: Program, bias: bool, sizes: Mapping[str, int]) -> Family:
        """The family of a Program as it is written; without `bias`, the vectors ``b`` and ``b_*`` are left out."""
        if not bias:
            program = without_params(program, frozenset(n for n in program.params if n == "b" or n.startswith("b_")))
        return cls(simplify(program), sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        return Family, (self.program, self.sizes)

    def variant(self, wanted: Wanted) -> Variant:
        """The step for what is wanted; one without masks and statistics is the same in training."""
        if not self.program.masks and not self.program.statistics:
            wanted = wanted._replace(training=True)
        if wanted not in self._made:
            self._made[wanted] = Variant(self.program, self.sizes, wanted)
        return self._made[wanted]


def _extent(mask: Mask, shape: tuple[int, ...], x: Tensor) -> tuple[int, ...]:
    return shape if len(shape) == 2 else (1 if mask.locked else x.shape[0], x.shape[1], *shape)


def _unused(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
