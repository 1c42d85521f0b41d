"""`RNN`: any cell as a layer: stacked, in both directions, over ragged batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import CellError, ShapeError
from ..ir import Program
from ..lang import Cell
from ..runtime import check_choice
from .checks import Lengths, check_buffers, check_input, check_kept, check_statistics, lengths_tensor, why_whole
from .family import Wanted
from .initial import fill_initial, initial_option, initial_states
from .initialize import Rule, check_drawn, initialize_all, rules_for
from .options import Connections, InitialState, Merge, cell_of, check_call, check_options, each_layer, layer_count
from .packed import Packed, leaving, of_each
from .spec import arguments_of, shown, spec_of
from .stack import Stack
from .state import Place, detach_state


class RNN(nn.Module):
    """A recurrent layer of any cell.

    Args:
        cell: a `Cell`, or its name, as "zoneout(lstm, 0.1)" (see `ostinato.named`); a list gives each layer its own.
        input_size: D, the width of x.
        hidden_size: H; a list gives each layer its own.
        num_layers: layers on top of one another; each reads the outputs of the one below. None: as many as the lists
            have entries, else 1.
        bias: False leaves out the vectors named ``b`` or ``b_*``.
        batch_first: x and output are [B, T, ...] instead of [T, B, ...]; states never are.
        dropout: probability at which outputs between layers are zeroed in training, 0 <= dropout < 1; `locked`: by one
            mask for all steps of a sequence, drawn once a call (Gal & Ghahramani 2016).
        bidirectional: run a second set of weights from the end to the start.
        backend: "auto" (the fastest that can; `OSTINATO_BACKEND` decides), "c", "triton" (on a GPU), or "eager".
        merge: of the outputs of two directions: "concat", "sum", "mul" or "mean"; None gives the pair (forward,
            backward) at the last layer, and concatenates below it.
        connections: "plain": a layer reads the output below. "residual": it also adds that to its own output, as it was
            before dropout (He et al. 2016). "dense": it reads x and all outputs below (Huang et al. 2017).
        lookahead: steps k that each layer's output waits for the input (a list gives each layer its own): at step t its
            cell has seen what it reads up to t + k, and zeros past the sequence's end (to t - k, and before the start,
            in the reverse direction). A window of 2 k + 1 is then centred. Final states are those behind the zeros.
        initial_state: "zeros"; "learned": parameters such as ``h0_l0`` [S], the same for every sequence (a cell's
            bookkeeping, `@cell(auxiliary=...)`, and delay lines start at 0 all the same); or a tensor of your own, [S]
            or [num_layers * num_directions, 1, S], in a tuple if the cell has several states (nested as in the call):
            buffers of the same names that are not trained. `spec` calls that "fixed": buffers of zeros, whose numbers
            come with the state_dict.
        stateful: each call begins with the states that the last one ended with, without their history, until
            `reset_state`. They move with the module, and are not in its state_dict, nor kept by an exported graph.
            Random masks are not kept.
        detach: no gradient flows into the states given in the call.
        return_sequences: False: the output is the last one of each sequence at its own end, [B, O] (in the reverse
            direction at its start, where that direction ends), 0 for a sequence of length 0. The stack of the last
            layer's outputs is never built.
        return_states: a third result holds every state at every step. One that is also the output shares its memory.
        init: how parameters start, by name or pattern, as in ``{"U_*": "orthogonal(0.5)"}``; see `initialize`.
        sizes: numbers for size symbols of the cell other than D and H, such as ``{"P": 32}``.
        device, dtype: of the parameters.

    Call:
        ``output, state = layer(x, state=None, lengths=None)``

        x: [T, B, D], or [T, D] for one sequence, or a PackedSequence.
        state: one tensor [num_layers * num_directions, B, S] for each state of the cell (bare if it has one). Where
            layers have states of different names or sizes: a tuple with an entry for each layer, its states as
            [num_directions, B, S]. None: the states kept, else the initial ones.
        lengths: steps of each sequence, a list or a tensor [B] on any device, in any order. 0 leaves the state as it
            was. Outputs past a sequence's end are 0.
        generator: of torch, for the masks of dropout and of the cell, so that they repeat (torch.compile takes none:
            seed with torch.manual_seed there). Packed, they are drawn for the rows alone.
        return_sequences, return_states, detach: as above, for this call.
        Returns output [T, B, O] (a PackedSequence for one) and the states after the last step; with `return_states`
        also a list with a dict for each layer, ``{"h": [T, B, S], ...}``, the reverse direction's as ``"h_reverse"``.

    Raises:
        CellError: an unknown cell, or equations that cannot be read.
        ShapeError: sizes, options, dtypes, lengths or states that do not fit.
        BackendError: the backend that was asked for cannot run this.

    >>> layer = RNN("lstm", input_size=3, hidden_size=[8, 4], connections="dense", return_states=True)
    >>> output, (lower, (h, c)), states = layer(torch.zeros(5, 2, 3))
    >>> output.shape, h.shape, states[0]["c"].shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]), torch.Size([5, 2, 8]))
    """

    def __init__(
        self,
        cell: Cell | str | Sequence[Cell | str],
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
        *,
        locked: bool = False,
        merge: Merge = "concat",
        connections: Connections = "plain",
        lookahead: int | Sequence[int] = 0,
        initial_state: InitialState = "zeros",
        stateful: bool = False,
        detach: bool = False,
        return_sequences: bool = True,
        return_states: bool = False,
        init: Mapping[str, Rule] | None = None,
        sizes: Mapping[str, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        count = layer_count(num_layers, cell=cell, hidden_size=hidden_size, lookahead=lookahead)
        self.cells: tuple[Cell, ...] = tuple(map(cell_of, each_layer(cell, count)))
        self.hidden_sizes: tuple[int, ...] = each_layer(hidden_size, count)
        self.lookahead: tuple[int, ...] = each_layer(lookahead, count)
        check_choice(backend)
        check_options(
            input_size=input_size,
            hidden_sizes=self.hidden_sizes,
            num_layers=count,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            locked=locked,
            bidirectional=bidirectional,
            merge=merge,
            connections=connections,
            lookahead=self.lookahead,
            initial_state=initial_state,
            stateful=stateful,
            detach=detach,
            return_sequences=return_sequences,
            return_states=return_states,
            init=init,
            sizes=sizes,
        )
        self.input_size = input_size
        self.num_layers = count
        self.bias = bias
        self.batch_first = batch_first
        self.dropout, self.locked = float(dropout), locked
        self.bidirectional = bidirectional
        self.backend = backend
        self.merge: Merge = merge
        self.connections: Connections = connections
        self.initial_state, given = initial_option(initial_state)
        self.stateful = stateful
        self.detach = detach
        self.return_sequences = return_sequences
        self.return_states = return_states
        self.init = dict(init or {})
        self.sizes = dict(sizes or {})
        self._stack = Stack(
            self.cells,
            input_size,
            self.hidden_sizes,
            self.bias,
            self.num_directions,
            merge,
            connections,
            self.lookahead,
            self.sizes,
        )
        if not return_sequences:
            self._stack.check_last()
        if stateful:
            check_statistics(self, "stateful=True")
        self._whole = why_whole(self)
        self._kept: list[Place] | None = None
        self._register(device, dtype)
        self.reset_parameters()
        if given is not None:
            states = initial_states(given, self._stack.layout)
            fill_initial([self._weights(list(place.initial["fixed"].values())) for place in self._stack.places], states)

    def _register(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """Parameters under the names in the equations, each with the place of its layer; what is fixed as buffers."""
        for place, begins in zip(self._stack.places, self._stack.initial(self.initial_state), strict=True):
            step = place.step
            shapes = dict(zip(step.program.params, step.param_shapes, strict=True))
            for name, shape in (*((full, shapes[n]) for n, full in place.names.items()), *begins.items()):
                if hasattr(self, name):
                    raise CellError(f"cell {place.cell.name} needs the name {name!r}, which is taken; rename it there")
                tensor = (torch.zeros if name in begins else torch.empty)(shape, device=device, dtype=dtype)
                if name in place.fixed or (name in begins and self.initial_state == "fixed"):
                    self.register_buffer(name, tensor)
                else:
                    setattr(self, name, nn.Parameter(tensor))
            for name, tensor in place.running.buffers(device, dtype).items():
                self.register_buffer(name, tensor)

    @property
    def num_directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def cell(self) -> Cell:
        """The last layer's cell, which is that of all unless a list was given; `cells` has them all."""
        return self.cells[-1]

    @property
    def hidden_size(self) -> int:
        """The last layer's H, which is that of all unless a list was given; `hidden_sizes` has them all."""
        return self.hidden_sizes[-1]

    @property
    def programs(self) -> list[Program]:
        """The Program of each layer and direction, simplified."""
        return [place.program for place in self._stack.places]

    @property
    def output_size(self) -> int:
        """The width of the output; with ``merge=None`` that of each of the pair."""
        return self._stack.output_size

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights by the rules of ``init=`` and of the cell; learned initial states start at 0.

        Raises:
            CellError: a parametrization stands in the place of a parameter.
        """
        programs = self.programs
        check_drawn(self, [full for place in self._stack.places for full in place.names.values()])
        for index, place in enumerate(self._stack.places):
            named = dict(zip(place.names, self._weights(list(place.names.values())), strict=True))
            rules = rules_for(place.program, self.init, programs, self.bias)
            initialize_all(named, rules, self.hidden_sizes[index // self.num_directions], generator)
            if place.running.statistics:
                place.running.reset(self._weights(place.running.all_names))
            if self.initial_state == "learned":
                for state in self._weights(list(place.initial["learned"].values())):
                    nn.init.zeros_(state)

    def flatten_parameters(self) -> None:
        """Nothing to do: kernels pack the weights themselves. Here for programs written for torch.nn."""

    def reset_state(self) -> None:
        """Forget the states that a layer with ``stateful=True`` keeps: the next call begins with the initial ones."""
        self._kept = None

    def cell_parameters(self, layer: int = 0, reverse: bool = False) -> dict[str, nn.Parameter]:
        """A layer's weights under the names in the equations, to read and to write in place.

        >>> RNN("gru", 3, 4).cell_parameters()["W_r"].shape
        torch.Size([4, 3])
        """
        return {name: getattr(self, full) for name, full in self._named(layer, reverse, False)}

    def cell_buffers(self, layer: int = 0, reverse: bool = False) -> dict[str, Tensor]:
        """What a layer's equations name but training leaves alone (``@cell(fixed=...)``), under those names."""
        return {name: getattr(self, full) for name, full in self._named(layer, reverse, True)}

    def _named(self, layer: int, reverse: bool, fixed: bool) -> list[tuple[str, str]]:
        if not -self.num_layers <= layer < self.num_layers or (reverse and not self.bidirectional):
            raise ShapeError(
                f"there is no layer {layer}{' in reverse' if reverse else ''}; the layer has num_layers="
                f"{self.num_layers}, bidirectional={self.bidirectional}"
            )
        place = self._stack.places[(layer % self.num_layers) * self.num_directions + int(reverse)]
        return [(name, full) for name, full in place.names.items() if (name in place.program.fixed) == fixed]

    def forward(
        self,
        x: Any,
        state: Any = None,
        lengths: Lengths | None = None,
        *,
        generator: torch.Generator | None = None,
        return_sequences: bool | None = None,
        return_states: bool | None = None,
        detach: bool | None = None,
    ) -> tuple[Any, ...]:
        """Run over a sequence; see the class."""
        sequence = self.return_sequences if return_sequences is None else return_sequences
        every = self.return_states if return_states is None else return_states
        plain = lengths is generator is detach is None and sequence is True and every is False
        if plain and state is not None and not (self.stateful or self.batch_first):
            found = self._stack.again(self._weights, x, state, self.backend, self.training)
            if found is not None:
                return found
        if not (return_sequences is return_states is detach is generator is None):
            check_call(sequence, every, detach, generator)
            if not sequence:
                self._stack.check_last()
        packed = None
        if isinstance(x, PackedSequence):
            packed = Packed(x, lengths)
            x = packed.rows
        first = self._stack.first
        weight = self._weights(first)[0] if first else x
        check_input(x, self.input_size, weight, self.batch_first)
        if x.dtype != weight.dtype:  # under autocast: the recurrence runs in the weights' dtype
            x = x.to(weight.dtype)
        detached = self.detach if detach is None else detach
        if packed is None:
            batched = x.dim() == 3
            x = x if batched else x.unsqueeze(0 if self.batch_first else 1)
            if self.batch_first:
                x = x.transpose(0, 1)
            ends = None if lengths is None else lengths_tensor(lengths, x.shape[1], x.shape[0])
            starts = self._starts(state, x, batched, detached)
        else:
            batched, ends = True, packed.lengths
            held = state is not None or self._kept is not None or self.initial_state != "zeros"
            starts = packed.begin(self._starts(state, packed.like(x), batched, detached)) if held else None
        dropout = self.dropout if self.training else 0.0
        wanted = Wanted(self.training, sequence, every)
        if self.training and self._stack.statistics:
            check_buffers(self._weights(self._stack.statistics))
        output, finals, states = self._stack.run(
            self._weights, x, starts, ends, self.backend, wanted, dropout, self.locked, generator
        )
        if packed is not None:
            finals = packed.end(finals)
        if self.stateful:
            # copies: the caller may change his in place
            self._kept = [[state.detach().clone() for state in place] for place in finals]
        final = self._stack.layout.give(finals, batched)
        if packed is not None or self.batch_first or not batched:
            leave = leaving(self.batch_first, batched) if packed is None else packed.leave
            output = of_each(lambda t: leave(t, sequence), output)
            states = [{n: leave(t, True) for n, t in own.items()} for own in states]
        return (output, final, states) if every else (output, final)

    def step(self, x: Tensor, state: Any = None, generator: torch.Generator | None = None) -> tuple[Tensor, Any]:
        """One step, by hand: the same numbers and states as a call over a sequence of one step.

        Args:
            x: [B, D], or [D] for one sequence.
            state: as in the call.
            generator: of torch, for random masks. A mask that is locked in time is drawn anew at each step.

        Returns:
            output [B, O] and the states, to be passed to the next step.

        Raises:
            ShapeError: the layer is bidirectional, looks ahead or has a batch_norm, and needs the sequence whole.

        >>> layer = RNN("gru", 3, 4, num_layers=2)
        >>> output, state = layer.step(torch.ones(2, 3))
        >>> output, state = layer.step(torch.ones(2, 3), state)
        >>> torch.allclose(output, layer(torch.ones(2, 2, 3))[0][-1])
        True
        """
        if self._whole is not None:
            raise ShapeError(f"step {self._whole}")
        if not isinstance(x, Tensor) or x.dim() not in (1, 2):
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"a step takes x [B, D], or [D] for one sequence, got {got}; call the layer on sequences")
        whole = x.unsqueeze(1 if self.batch_first and x.dim() == 2 else 0)
        output, state = self(whole, state, generator=generator, return_sequences=True, return_states=False)
        return output.squeeze(1 if self.batch_first and x.dim() == 2 else 0), state

    def _weights(self, names: Sequence[str]) -> list[Tensor]:
        """Parameters, or what a parametrization (weight norm, pruning) puts in their place, or buffers."""
        own: dict[str, Any] = self._parameters
        try:
            return [own[name] for name in names]
        except KeyError:
            return [getattr(self, name) for name in names]

    def _starts(self, state: Any, x: Tensor, batched: bool, detach: bool) -> Sequence[Place] | None:
        """The states that each place begins with, None for zeros."""
        if state is not None:
            return self._stack.layout.take(detach_state(state) if detach else state, x, batched)
        if self._kept is not None:
            return check_kept(self._kept, x)
        if self.initial_state != "zeros":
            return [place.starts(self._weights, x, self.initial_state) for place in self._stack.places]
        return None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RNN:
        super()._apply(fn, recurse)
        if self._kept is not None:
            self._kept = [[fn(state) for state in place] for place in self._kept]
        return self

    def spec(self) -> dict[str, Any]:
        """What a checkpoint needs to build the layer again, in plain values: the arguments and the cells' Programs."""
        return spec_of(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> RNN:
        """The layer that `spec` describes, with new weights; runs no one's code.

        Raises:
            ProgramError: the Program is damaged or of another version.
        """
        return RNN(**arguments_of(spec))

    def extra_repr(self) -> str:
        return shown(self)
