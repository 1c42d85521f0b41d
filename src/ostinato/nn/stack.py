"""Layers on top of one another, built from a cell and numbers, and run over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CellError, ShapeError
from ..ir import Program, size_value
from ..lang import Cell
from ..runtime import together
from .checks import check_sizes
from .family import Family, Wanted
from .layer import Layer
from .options import Connections, Merge
from .state import Place, StateLayout
from .wiring import at_the_end, check_residual, drop, merged, merged_size, next_reading

Names = Callable[[list[str]], list[Tensor]]


class Stack:
    """The places of a layer, and how they hang together; parameters belong to the module and are given in the call.

    Args:
        cells, hidden_sizes, lookahead: of each layer.
        input_size: D.
        sizes: numbers for the cells' other size symbols.
        See `RNN` for the rest.

    Attributes:
        places: each layer in each direction: layer by layer, forwards before backwards.
        layout: how a caller holds the states.
        output_size: the width of the output, with ``merge=None`` that of each of the pair.
        first: the name of one parameter, by which dtype and device are known; empty if there are none.
        statistics: the names of the buffers that hold statistics of the batch.

    Raises:
        ShapeError: sizes that are missing, that no cell has, or that do not fit together.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        input_size: int,
        hidden_sizes: Sequence[int],
        bias: bool,
        directions: int,
        merge: Merge,
        connections: Connections,
        lookahead: Sequence[int],
        sizes: Mapping[str, int],
    ) -> None:
        self.directions = directions
        self.merge: Merge = merge
        self.connections: Connections = connections
        self.places: list[Layer] = []
        self.output_size = 0
        programs = [cell.program() for cell in cells]
        _check_symbols(cells, programs, sizes)
        families: dict[Any, Family] = {}
        width = input_size
        for k, (cell, program) in enumerate(zip(cells, programs, strict=True)):
            own = {"D": width, "H": hidden_sizes[k], **{s: n for s, n in sizes.items() if s in program.symbols}}
            key = (program, *own.values())
            family = families.get(key) or Family.of(program, bias, own)
            families[key] = family
            reads = size_value(family.program.input_size, own)
            if reads != width:
                raise ShapeError(
                    f"cell {cell.name} uses x elementwise as a vector of size {reads}, but layer {k} reads "
                    f"vectors of size {width}; make input_size and the output's size equal"
                )
            for d in range(directions):
                suffix = f"_l{k}_reverse" if d else f"_l{k}"
                self.places.append(Layer(cell, family, suffix, d == 1, lookahead[k]))
            self.output_size = size_value(family.program.output_size, own)
            gives = merged_size(self.output_size, merge, directions)
            if connections == "residual" and k:
                check_residual(k, width, gives)
            width = width + gives if connections == "dense" else gives
            self.output_size = self.output_size if merge is None else gives
        # the one place, if it is the only one and reads x as it is
        self._alone = self.places[0] if len(self.places) == 1 and not any(lookahead) else None
        self.statistics = [name for place in self.places for name in place.running.all_names]
        self.first = [name for place in self.places for name in place.names.values()][:1]
        self.layout = StateLayout(
            [place.program.states for place in self.places[::directions]],
            [place.step.state_sizes for place in self.places[::directions]],
            directions,
        )

    def check_last(self) -> None:
        """The last outputs alone can be asked for.

        Raises:
            ShapeError: what a residual connection adds to them has no one step.
        """
        if self.directions == 2 and self.connections == "residual" and len(self.places) > 2:
            raise ShapeError(
                "return_sequences=False of a bidirectional layer has each direction's output at its own end, and what "
                "connections='residual' adds has no step of its own; use connections='plain' or 'dense', or take what "
                "you need of return_sequences=True"
            )

    def initial(self, kind: str) -> list[dict[str, int]]:
        """The widths of the initial states that each place holds ("zeros": none, "fixed", "learned"), by full names.

        Raises:
            CellError: they are to be learned, and all states are bookkeeping or delay lines.
        """
        found: list[dict[str, int]] = []
        for place in self.places:
            sizes = dict(zip(place.step.program.states, place.step.state_sizes, strict=True))
            found.append({name: sizes[state] for state, name in place.initial[kind].items()})
        states = [name for place in self.places for name in place.program.states]
        if kind == "learned" and states and not any(found):
            raise CellError(
                f"cell {self.places[0].cell.name} has no initial state to learn: {', '.join(dict.fromkeys(states))} "
                "only hold old values or count; leave out initial_state='learned'"
            )
        return found

    def run(
        self,
        weights: Names,
        x: Tensor,
        starts: Sequence[Place] | None,
        lengths: Tensor | None,
        backend: str,
        wanted: Wanted,
        dropout: float,
        locked: bool,
        generator: torch.Generator | None,
    ) -> tuple[Any, list[Place], list[dict[str, Tensor]]]:
        """The output (or pair of outputs), the final states of each place, and every state by layer, if wanted.

        Args:
            weights: gives the parameters of these names.
            x: [T, B, D], or packed rows [N, D] of sequences whose lengths fall.
            starts: the states each place begins with; None for zeros.
        """
        if len(self.places) == 1:
            own = None if starts is None else starts[0]
            run = self.places[0](weights, x, own, lengths, backend, wanted, generator)
            return run.output, [run.finals], [run.states]
        finals: list[Place] = []
        every: list[dict[str, Tensor]] = []
        layers = range(len(self.places) // self.directions)
        output: Any = x
        reading = stream = x  # what a layer reads; what a residual connection adds
        for k in layers:
            last = k == layers[-1]
            asked = wanted if last or wanted.sequence else wanted._replace(sequence=True)
            first = k * self.directions
            places = self.places[first : first + self.directions]
            given = [
                (weights, reading, None if starts is None else starts[first + d], lengths, backend, asked, generator)
                for d in range(self.directions)
            ]
            outputs: list[Tensor] = []
            seen: dict[str, Tensor] = {}
            for place, run in zip(places, together(places, given, x), strict=True):
                outputs.append(run.output)
                finals.append(run.finals)
                if run.states:
                    seen.update({name + ("_reverse" if place.reverse else ""): s for name, s in run.states.items()})
            every.append(seen)
            residual = k > 0 and self.connections == "residual"
            if last and self.merge is None and not residual:
                return tuple(outputs), finals, every
            output = merged(outputs, self.merge)
            if residual:
                output = output + (stream if asked.sequence else at_the_end(stream, lengths))
            if not last:
                stream = output
                below = drop(output, dropout, locked, generator, lengths) if dropout else output
                reading = next_reading(reading, below, self.connections)
        return (tuple(output.chunk(2, -1)) if self.merge is None else output), finals, every

    def again(self, weights: Names, x: Any, state: Any, backend: str, training: bool) -> tuple[Tensor, Any] | None:
        """The output and the final states of a call like the last one, as its caller has them: without gradients, from
        the states given; None if it is not like that. See `Runner.again`.
        """
        if self._alone is None or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return None
        states = (state,) if isinstance(state, Tensor) else state
        found = self._alone.again(weights, x, states, backend, training)
        return None if found is None else (found.output, self.layout.give([found.finals], True))


def _check_symbols(cells: Sequence[Cell], programs: Sequence[Program], sizes: Mapping[str, int]) -> None:
    known: set[str] = set()
    for cell, program in zip(cells, programs, strict=True):
        extra = [s for s in program.symbols if s not in ("D", "H")]
        missing = [s for s in extra if s not in sizes]
        if missing:
            raise ShapeError(
                f"cell {cell.name} has a size {missing[0]} that is not given; "
                f"pass sizes={{{missing[0]!r}: ...}} to the layer"
            )
        known.update(extra)
    stray = [s for s in sizes if s not in known]
    if stray:
        names = ", ".join(dict.fromkeys(cell.name for cell in cells))
        symbols = dict.fromkeys(s for program in programs for s in program.symbols)
        raise ShapeError(f"cell {names} has no size {stray[0]!r}; its sizes are {', '.join(symbols)}")
    check_sizes(**sizes)
