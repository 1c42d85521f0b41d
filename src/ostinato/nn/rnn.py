"""`RNN`: any cell as a layer: stacked, in both directions, over ragged batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import cells
from ..errors import CellError, ShapeError
from ..ir import Program
from ..lang import Cell
from ..runtime import Runner, Step, check_choice
from .checks import Lengths, check_input, check_sizes, check_states, lengths_tensor
from .initialize import default_rules, initialize

State = Tensor | tuple[Tensor, ...]


class RNN(nn.Module):
    """A recurrent layer of any cell.

    Args:
        cell: a `Cell`, or the name of one of the catalogue.
        input_size: D, the width of x.
        hidden_size: H.
        num_layers: layers on top of one another; each reads the outputs of the one below.
        bias: False leaves out the vectors named ``b`` or ``b_*``.
        batch_first: x and output are [B, T, ...] instead of [T, B, ...]; states never are.
        dropout: probability at which outputs between layers are zeroed in training, 0 <= dropout < 1.
        bidirectional: run a second set of weights from the end to the start and concatenate the outputs.
        backend: "auto" (the fastest that can), "c", or "eager". `OSTINATO_BACKEND` decides for "auto".
        sizes: numbers for size symbols of the cell other than D and H, such as ``{"P": 32}``.
        device, dtype: of the parameters.

    Call:
        ``output, state = layer(x, state=None, lengths=None)``

        x: [T, B, D], or [T, D] for one sequence, or a PackedSequence.
        state: one tensor [num_layers * num_directions, B, S] for each state of the cell (bare if it has one);
            None: zeros.
        lengths: steps of each sequence, a list or a tensor [B] on any device, unsorted as well; 0 leaves the state
            as it was. Outputs past a sequence's end are 0.
        Returns output [T, B, num_directions * O] (a PackedSequence for one) and the states after the last step.

    Raises:
        CellError: an unknown cell, or equations that cannot be read.
        ShapeError: sizes, dtypes, lengths or states that do not fit.
        BackendError: the backend that was asked for cannot run this.

    >>> layer = RNN("lstm", input_size=3, hidden_size=4)
    >>> output, (h, c) = layer(torch.zeros(5, 2, 3))
    >>> output.shape, h.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    def __init__(
        self,
        cell: Cell | str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
        *,
        sizes: Mapping[str, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if isinstance(cell, str):
            cell = cells.get(cell)
        if not isinstance(cell, Cell):
            raise CellError(f"cell is {type(cell).__name__} {cell!r}; give a cell (see @ostinato.cell) or a name")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ShapeError(f"dropout is {dropout!r}; give a probability, 0 <= dropout < 1")
        check_choice(backend)
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = float(dropout)
        self.bidirectional = bool(bidirectional)
        self.backend = backend
        self.sizes = dict(sizes or {})
        self._runners: list[Runner] = []  # layer by layer, forwards before backwards
        self._names: list[list[str]] = []
        self._make(device, dtype)
        self.reset_parameters()

    def _make(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """One step and one set of parameters for each layer and direction."""
        program = self.cell.program()
        extra = [s for s in program.symbols if s not in ("D", "H")]
        missing = [s for s in extra if s not in self.sizes]
        if missing:
            raise ShapeError(
                f"cell {self.cell.name} has a size {missing[0]} that is not given; "
                f"pass sizes={{{missing[0]!r}: ...}} to the layer"
            )
        stray = [s for s in self.sizes if s not in extra]
        if stray:
            raise ShapeError(
                f"cell {self.cell.name} has no size {stray[0]!r}; its sizes are {', '.join(program.symbols)}"
            )
        check_sizes(**self.sizes)
        width = self.input_size
        for layer in range(self.num_layers):
            step = Step.of(program, self.bias, {"D": width, "H": self.hidden_size, **self.sizes})
            reads = step.sizes[step.program.input_size]
            if reads != width:
                raise ShapeError(
                    f"cell {self.cell.name} uses x elementwise as a vector of size {reads}, but layer {layer} reads "
                    f"vectors of size {width}; make input_size and the output's size equal"
                )
            for suffix in self._suffixes(layer):
                self._runners.append(Runner(step, reverse=suffix.endswith("_reverse")))
                self._names.append([f"{name}{suffix}" for name in step.program.params])
                for name, shape in zip(self._names[-1], step.param_shapes, strict=True):
                    if hasattr(self, name):
                        raise CellError(
                            f"cell {self.cell.name} names a parameter {name!r}, which the layer needs; rename it"
                        )
                    setattr(self, name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
            width = step.output_size * (2 if self.bidirectional else 1)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """The width of the output: the cell's output size times the directions."""
        return self._runners[-1].step.output_size * self.num_directions

    @property
    def programs(self) -> list[Program]:
        """The Program of each layer and direction, simplified."""
        return [runner.step.program for runner in self._runners]

    def reset_parameters(self) -> None:
        """Draw new weights by the rules the cell declares (see `default_rules`)."""
        for program, names in zip(self.programs, self._names, strict=True):
            rules = default_rules(program)
            for name, full in zip(program.params, names, strict=True):
                initialize(getattr(self, full), rules[name], self.hidden_size)

    def flatten_parameters(self) -> None:
        """Nothing to do: kernels pack the weights themselves. Here for programs written for torch.nn."""

    def cell_parameters(self, layer: int = 0, reverse: bool = False) -> dict[str, nn.Parameter]:
        """A layer's weights under the names in the equations, to read and to write in place.

        >>> RNN("gru", 3, 4).cell_parameters()["W_r"].shape
        torch.Size([4, 3])
        """
        if not -self.num_layers <= layer < self.num_layers or (reverse and not self.bidirectional):
            raise ShapeError(
                f"there is no layer {layer}{' in reverse' if reverse else ''}; the layer has num_layers="
                f"{self.num_layers}, bidirectional={self.bidirectional}"
            )
        place = (layer % self.num_layers) * self.num_directions + int(reverse)
        return {
            name: getattr(self, full)
            for name, full in zip(self.programs[place].params, self._names[place], strict=True)
        }

    def forward(self, x: Any, state: Any = None, lengths: Lengths | None = None) -> tuple[Any, Any]:
        """Run over a sequence; see the class."""
        if isinstance(x, PackedSequence):
            return self._packed(x, state, lengths)
        weights = [self._weights(names) for names in self._names]
        first = weights[0][0] if weights[0] else x
        check_input(x, self.input_size, first, self.batch_first)
        if x.dtype != first.dtype:  # under autocast: the recurrence runs in the weights' dtype
            x = x.to(first.dtype)
        batched = x.dim() == 3
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
        if self.batch_first:
            x = x.transpose(0, 1)
        if lengths is not None:
            lengths = lengths_tensor(lengths, x.shape[1], x.shape[0])
        if state is not None:
            sizes = self._runners[0].step.state_sizes
            state = check_states(state, self.cell.states, sizes, len(self._runners), x, batched)
        output, finals = self._stack(x, state, lengths, weights)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = tuple(s.squeeze(1) for s in finals)
        return output, finals[0] if len(finals) == 1 else finals

    def _weights(self, names: list[str]) -> list[Tensor]:
        """Parameters, or what a parametrization (weight norm, pruning) puts in their place."""
        own: dict[str, Any] = self._parameters
        try:
            return [own[name] for name in names]
        except KeyError:
            return [getattr(self, name) for name in names]

    def _packed(self, packed: PackedSequence, state: Any, lengths: Any) -> tuple[PackedSequence, Any]:
        if lengths is not None:
            raise ShapeError("lengths were given with a PackedSequence, which has its own; leave them out")
        x, own = pad_packed_sequence(packed, batch_first=self.batch_first)
        output, state = self(x, state, own)
        order = packed.sorted_indices  # sorted once: another sort might order equal lengths otherwise
        if order is not None:
            output, own = output.index_select(0 if self.batch_first else 1, order), own[order.cpu()]
        again = pack_padded_sequence(output, own, batch_first=self.batch_first)
        return PackedSequence(again.data, packed.batch_sizes, order, packed.unsorted_indices), state

    def _stack(
        self,
        x: Tensor,
        states: Sequence[Tensor] | None,
        lengths: Tensor | None,
        weights: list[list[Tensor]],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Layer on layer. x is [T, B, D]."""
        if len(self._runners) == 1:
            return self._runners[0](x, states, weights[0], lengths, self.backend)
        finals: list[tuple[Tensor, ...]] = []
        forwards = x
        for place, runner in enumerate(self._runners):
            own = None if states is None else [s[place : place + 1] for s in states]
            output, final = runner(x, own, weights[place], lengths, self.backend)
            finals.append(final)
            if self.bidirectional and not runner.reverse:
                forwards = output
                continue
            x = torch.cat((forwards, output), -1) if self.bidirectional else output
            if self.dropout and self.training and place < len(self._runners) - 1:
                x = nn.functional.dropout(x, self.dropout)
        return x, tuple([torch.cat(column) for column in zip(*finals, strict=True)])

    def spec(self) -> dict[str, Any]:
        """What a checkpoint needs to build the layer again, in plain values: the arguments and the cell's Program."""
        return {
            "program": self.cell.program().to_json(),
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
            "backend": self.backend,
            "sizes": dict(self.sizes),
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> RNN:
        """The layer that `spec` describes, with new weights; runs no one's code.

        Raises:
            ProgramError: the Program is damaged or of another version.
        """
        arguments = dict(spec)
        program = Program.from_json(arguments.pop("program"))
        return RNN(Cell.from_program(program), **arguments)

    def extra_repr(self) -> str:
        parts = [self.cell.name, str(self.input_size), str(self.hidden_size)]
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("backend", "auto"),
            ("sizes", {}),
        ):
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value}")
        return ", ".join(parts)
