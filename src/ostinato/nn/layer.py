"""One layer in one direction: the names of its parameters, the variants of its step, and how they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..ir import Program, activations
from ..lang import Cell
from ..runtime import Runner, Step
from .family import Family, Variant, Wanted
from .statistics import Running


class Run(NamedTuple):
    """What a run gives: output [T, B, O], the last alone [B, O]; final states, each [1, B, S]; all, each [T, B, S]."""

    output: Tensor
    finals: tuple[Tensor, ...]
    states: dict[str, Tensor]


class Ready(NamedTuple):
    """A variant of the step, what runs it, and the full names of its parameters."""

    variant: Variant
    runner: Runner
    names: list[str]


_READY = {(t, q, s): f"_ready_{t:d}{q:d}{s:d}" for t in (False, True) for q in (False, True) for s in (False, True)}


class Layer:
    """A cell at its place in a stack.

    Args:
        cell: the equations.
        family: their steps, shared by all places of the same sizes.
        suffix: what its parameters' names end in, such as ``_l0_reverse``.
        reverse: it runs from a sequence's end to its start.
        lookahead: steps by which the output waits for the input.

    Attributes:
        names: the full name of each parameter, by the name in the equations.
        running: the statistics of the batch that it keeps.
        initial: the full names of the initial states that the layer holds, by the state, for each kind of them: none
            of "zeros", all that are "fixed", and those of activations if they are "learned".
        fixed: the full names of the parameters that are not trained.
    """

    def __init__(self, cell: Cell, family: Family, suffix: str, reverse: bool, lookahead: int) -> None:
        self.cell = cell
        self.family = family
        self.suffix = suffix
        self.reverse = reverse
        self.lookahead = lookahead
        self.names = {name: f"{name}{suffix}" for name in family.program.params}
        full = {state: f"{state}0{suffix}" for state in family.program.states}
        learned = {state: full[state] for state in activations(family.program)}
        self.initial: dict[str, dict[str, str]] = {"zeros": {}, "fixed": full, "learned": learned}
        self.running = Running(self.step, suffix, reverse)
        self.fixed = [self.names[name] for name in family.program.fixed]

    @property
    def program(self) -> Program:
        """The equations, simplified, random masks and all."""
        return self.family.program

    @property
    def runner(self) -> Runner:
        """What runs it in training, with an output at every step."""
        return self.ready(True, True, False).runner

    @property
    def step(self) -> Step:
        """The step it runs in training, with an output at every step."""
        return self.runner.step

    def ready(self, training: bool, sequence: bool, states: bool) -> Ready:
        """The variant for what is wanted (see `Wanted`) with its runner."""
        # An attribute for each, not a dict of them: while torch.compile traces a call, it sees those that are added.
        name = _READY[training, sequence, states]
        if name not in self.__dict__:
            self._prepare(name, training, sequence, states)
        return getattr(self, name)

    @torch._dynamo.assume_constant_result  # a step is made while a graph is traced; how it is made is no part of it
    def _prepare(self, name: str, training: bool, sequence: bool, states: bool) -> None:
        if name in self.__dict__:
            return
        variant = self.family.variant(Wanted(training, sequence, states))
        # those that differ in nothing share a runner, which holds what its last call was bound to
        made: list[Ready] = [found for found in self.__dict__.values() if isinstance(found, Ready)]
        same = next((found for found in made if found.variant is variant), None)
        names = [self.names[own] for own in variant.params]
        self.__dict__[name] = same or Ready(variant, Runner(variant.step, self.reverse), names)

    def __call__(
        self,
        weights: Callable[[list[str]], list[Tensor]],
        x: Tensor,
        states: Sequence[Tensor] | None,
        lengths: Tensor | None,
        backend: str,
        wanted: Wanted,
        generator: torch.Generator | None,
    ) -> Run:
        """Run over x [T, B, D]; `weights` gives the parameters of these names."""
        variant, runner, names = self.ready(wanted.training, wanted.sequence, wanted.states)
        steps = x.shape[0]
        reads, ends = self._extended(x, lengths) if self.lookahead else (x, lengths)
        starts = states
        if variant.carries and states is not None:
            starts = [*states, x.new_zeros(1, x.shape[1], variant.carries)]
        masks: Sequence[Tensor] = ()
        if variant.given:
            masks = self.running.given(weights(self.running.all_names), reads, ends)
        elif variant.masks:
            masks = variant.draw(reads, generator)
        raw, found = runner(reads, starts, weights(names), ends, backend, masks)
        count = len(variant.step.state_sizes)
        finals, means = found[:count], found[count:]
        if means:
            self.running.update(weights(self.running.all_names), means, x.shape[1], ends)
        output, every = (raw, {}) if not variant.parts else variant.split(raw)
        if variant.place is not None and not wanted.sequence:
            output = finals[variant.place][0].clone()  # changed in place, it leaves the state what it is
            if variant.carries:
                finals = finals[:-1]
            elif states is not None:
                output = _if_any(output, steps, lengths)
        elif self.lookahead:
            output = self._aligned(output, steps, lengths)
        if self.lookahead and every:
            every = {name: self._aligned(value, steps, lengths) for name, value in every.items()}
        return Run(output, finals, every)

    def starts(self, weights: Callable[[list[str]], list[Tensor]], x: Tensor, kind: str) -> list[Tensor]:
        """The initial states for x [T, B, D]: those that the layer holds, and zeros for the others."""
        names = self.initial[kind]
        own = dict(zip(names, weights(list(names.values())), strict=True))
        sizes = zip(self.step.program.states, self.step.state_sizes, strict=True)
        batch = x.shape[1]
        return [own[s].expand(1, batch, -1) if s in own else x.new_zeros(1, batch, n) for s, n in sizes]

    def _extended(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x with zeros behind each sequence's end, as it is read, for the steps that the output waits."""
        ahead = self.lookahead if x.shape[0] else 0
        if self.reverse:
            x = functional.pad(x, (0, 0, 0, 0, ahead, 0))
        else:
            if lengths is not None:  # what lies past an end is read now
                x = torch.where(_inside(x, lengths), x, torch.zeros_like(x))
            x = functional.pad(x, (0, 0, 0, 0, 0, ahead))
        return x, None if lengths is None else torch.where(lengths > 0, lengths + ahead, lengths)

    def _aligned(self, output: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
        """The outputs that waited, at the steps they are for."""
        if not self.reverse:
            return output[output.shape[0] - steps :]
        output = output[:steps]
        return output if lengths is None else torch.where(_inside(output, lengths), output, torch.zeros_like(output))


def _inside(x: Tensor, lengths: Tensor) -> Tensor:
    """Which steps of x [T, B, S] are no padding, [T, B, 1]."""
    steps = torch.arange(x.shape[0], device=x.device)
    return (steps.unsqueeze(1) < lengths.to(x.device)).unsqueeze(2)


def _if_any(output: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
    """The last output, 0 where a sequence has no step: there the state is the one before, which is no output."""
    if not steps:
        return torch.zeros_like(output)
    if lengths is None:
        return output
    return torch.where((lengths > 0).to(output.device).unsqueeze(1), output, torch.zeros_like(output))
