"""One layer in one direction: the names of its parameters, the variants of its step, and how they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from ..ir import Program, activations
from ..lang import Cell
from ..runtime import Inputs, Outputs, Runner, Step, extent_of, on_device, packed, unpacked
from .family import Family, Run, Variant, Wanted
from .statistics import Running


class Ready:
    """The step in the form that gives what is wanted, ready to run; it is made when it is first asked for.

    Attributes:
        variant: the step.
        runner: what runs it; forms that differ in nothing share one, which holds what its last call was bound to.
        names: the full names of its parameters.
        repeats: it takes nothing that changes from call to call beside x and the states.
    """

    variant: Variant
    runner: Runner
    names: list[str]
    repeats = False

    def __init__(self, family: Family, wanted: Wanted, suffix: str, runners: dict[Variant, Runner]) -> None:
        self._family = family
        self._wanted = wanted
        self._suffix = suffix
        self._runners = runners
        self._made = False

    def make(self) -> None:
        """Make the step, once."""
        if not self._made:
            self.variant = self._family.variant(self._wanted)
            self.runner = self._runners.setdefault(self.variant, Runner(self.variant.step))
            self.names = [f"{name}{self._suffix}" for name in self.variant.params]
            self.repeats = not self.variant.step.program.masks and not self.variant.step.statistic_sizes
            self._made = True

    # A step is made while a graph is traced; how it is made is no part of it. This is what
    # torch.compiler.assume_constant_result does, which loads all of torch.compile first: a second of every start.
    make._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


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
        runners: dict[Variant, Runner] = {}
        # all there are, since a graph that is traced does not see what a dict is given meanwhile
        self._forms = {w: Ready(family, Wanted(*w), suffix, runners) for w in product((False, True), repeat=3)}
        self.running = Running(self.step, suffix, reverse)
        self.fixed = [self.names[name] for name in family.program.fixed]

    @property
    def program(self) -> Program:
        """The equations, simplified, random masks and all."""
        return self.family.program

    @property
    def step(self) -> Step:
        """The step it runs in training, with an output at every step."""
        return self.ready(True, True, False).variant.step

    def ready(self, training: bool, sequence: bool, states: bool) -> Ready:
        """The step for what is wanted; see `Wanted`."""
        found = self._forms[training, sequence, states]
        found.make()
        return found

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
        """Run over x [T, B, D], or packed [N, D]; `weights` gives the parameters of these names."""
        if self.lookahead and x.dim() == 2 and lengths is not None:  # the zeros that it reads have no row
            run = self(weights, unpacked(x, lengths), states, lengths, backend, wanted, generator)
            every = {name: packed(value, lengths) for name, value in run.states.items()}
            return Run(packed(run.output, lengths) if wanted.sequence else run.output, run.finals, every)
        ready = self.ready(*wanted)
        variant = ready.variant
        reads, ends = self._extended(x, lengths) if self.lookahead else (x, lengths)
        starts = None if states is None else variant.starts(states, x, lengths)
        if variant.takes_statistics:
            masks = self.running.given(weights(self.running.all_names), reads, ends)
        else:
            masks = variant.masks(reads, ends, generator)
        outputs = ready.runner(Inputs(reads, starts, ends, self.reverse, masks), weights(ready.names), backend)
        if outputs.statistics:
            self.running.update(weights(self.running.all_names), outputs.statistics, extent_of(x, lengths)[1], ends)
        run = variant.run_of(outputs)
        if self.lookahead:
            output = self._aligned(run.output, x.shape[0], lengths) if wanted.sequence else run.output
            every = {name: self._aligned(value, x.shape[0], lengths) for name, value in run.states.items()}
            run = Run(output, run.finals, every)
        if states is not None and not wanted.sequence and not variant.carries:
            run = Run(_if_any(run.output, x.shape[0], lengths), run.finals, run.states)
        return run

    def again(
        self,
        weights: Callable[[list[str]], list[Tensor]],
        x: Tensor,
        states: Sequence[Tensor],
        backend: str,
        training: bool,
    ) -> Outputs | None:
        """An output at every step and the final states, for a call like the last one; see `Runner.again`."""
        ready = self._forms[training, True, False]
        return ready.runner.again(x, states, weights(ready.names), backend) if ready.repeats else None

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
    return (steps.unsqueeze(1) < on_device(lengths, x.device)).unsqueeze(2)


def _if_any(output: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
    """The last output, 0 where a sequence has no step: there the state is the one before, which is no output."""
    if not steps:
        return torch.zeros_like(output)
    if lengths is None:
        return output
    return torch.where((on_device(lengths, output.device) > 0).unsqueeze(1), output, torch.zeros_like(output))
