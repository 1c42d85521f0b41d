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
from ..runtime import Outputs, Step, extent_of
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


class Run(NamedTuple):
    """What a run gives: output [T, B, O], or [N, O] where x is packed, the last alone [B, O]; final states, each
    [1, B, S]; all, each [T, B, S] or [N, S].
    """

    output: Tensor
    finals: tuple[Tensor, ...]
    states: dict[str, Tensor]


class Variant:
    """A cell's step in the form that gives what is wanted, no more.

    What a caller wants is not always what a step puts out. Where all states are wanted, they lie side by side in the
    step's output. Where the last output alone is wanted, the step puts out nothing: the output is found among the final
    states, and one that is no state is carried as one more.

    Attributes:
        step: what runs.
        params: the parameters it takes, by their names in the equations: some may have vanished with a mask.
        takes_statistics: its masks are statistics that the layer keeps.
        carries: the output is carried as one more state.
    """

    def __init__(self, program: Program, sizes: Mapping[str, int], wanted: Wanted) -> None:
        if not wanted.training:
            program = simplify(evaluation(program))
        self.takes_statistics = not wanted.training and bool(program.statistics)
        self._names = program.states
        self._place = _place(program)
        self.carries = self._place is None and not wanted.sequence
        if self.carries:
            program = output_as_state(program, _unused("y", program.states))
            self._place = len(program.states) - 1
        elif self._place is not None and (wanted.states or not wanted.sequence):
            program = without_output(program)  # it is a state, and comes out as one
        widths = [*([program.output_size] if program.output >= 0 else []), *program.state_sizes.values()]
        self._widths = [size_value(s, dict(sizes)) for s in widths]
        self._wanted = wanted
        self.step = Step(simplify(with_states_out(program) if wanted.states else program), sizes)
        self.params = list(self.step.program.params)
        self._masks = list(zip(self.step.program.masks, self.step.mask_shapes, strict=True))

    def masks(self, x: Tensor, lengths: Tensor | None, generator: torch.Generator | None) -> Sequence[Tensor]:
        """Its masks for an input x: [T, B, S], or packed [N, S]; [1, B, S] if locked; of a matrix its shape."""
        return [draw(mask, _extent(mask, shape, x, lengths), x, generator) for mask, shape in self._masks]

    def starts(self, states: Sequence[Tensor], x: Tensor, lengths: Tensor | None) -> Sequence[Tensor]:
        """The states that it begins with for those of the cell."""
        if not self.carries:
            return states
        return [*states, x.new_zeros(1, extent_of(x, lengths)[1], self.step.state_sizes[-1])]

    def run_of(self, outputs: Outputs) -> Run:
        """What the caller wants, from what the step gave."""
        raw, finals, _ = outputs
        if not self._wanted.states:
            parts: Sequence[Tensor] = ()
        else:
            parts = raw.split(self._widths, -1)
        if not self._wanted.sequence:  # one that is carried is none of the caller's states
            assert self._place is not None
            last = finals[self._place][0].clone()  # changed in place, it leaves the state what it is
            return Run(last, finals[: len(self._names)], self._named(parts))
        if not parts:
            return Run(raw, finals, {})
        states = parts[len(parts) - len(self._names) :]
        return Run(parts[0] if self._place is None else states[self._place], finals, self._named(states))

    def _named(self, states: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._names, states, strict=False))  # one that is carried stands last


def _place(program: Program) -> int | None:
    """Which state is the output, None if none is."""
    nexts = program.next_states
    return nexts.index(program.output) if program.output in nexts else None


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


def _extent(mask: Mask, shape: tuple[int, ...], x: Tensor, lengths: Tensor | None) -> tuple[int, ...]:
    if len(shape) == 2:
        return shape
    return (*((1, extent_of(x, lengths)[1]) if mask.locked else x.shape[:-1]), *shape)


def _unused(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
