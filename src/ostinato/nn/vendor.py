"""Layers with torch.nn's arguments, shapes and weights. Further keywords (`merge`, `init`, ...) are those of `RNN`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from .. import cells
from ..errors import CellError, ProgramError, ShapeError
from ..lang import Cell
from .checks import check_sizes
from .rnn import RNN
from .spec import arguments_of, shown

Own = TypeVar("Own", bound="_Vendor")

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")  # torch's names, without the layer


@dataclass(frozen=True)
class Blocks:
    """How torch.nn packs the weights of one layer and direction.

    Args:
        gates: the blocks of its matrices, from top to bottom, as the ends of our names.
        separate: the gates whose recurrent bias is not added to the input's but has a name of its own.
    """

    gates: tuple[str, ...]
    separate: Mapping[str, str] = field(default_factory=dict[str, str])

    def split(self, packed: Mapping[str, Tensor], hidden_size: int, owner: str) -> dict[str, Tensor]:
        """``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, ``weight_hr`` -> ours, gate by gate.

        Raises:
            ShapeError: they have the rows of another cell or size.
        """
        parts: dict[str, tuple[Tensor, ...]] = {}
        rows = len(self.gates) * hidden_size
        for kind, whole in packed.items():
            if kind == "weight_hr":
                continue
            if whole.shape[0] != rows:
                raise ShapeError(
                    f"{kind} has {whole.shape[0]} rows, but {owner} with hidden_size={hidden_size} has {rows}; load a "
                    "module of the same sizes"
                )
            parts[kind] = whole.chunk(len(self.gates))
        own: dict[str, Tensor] = {}
        for k, gate in enumerate(self.gates):
            for kind, letter in (("weight_ih", "W"), ("weight_hh", "U")):
                if kind in parts:
                    own[letter + gate] = parts[kind][k]
            if "bias_ih" in parts and "bias_hh" in parts:
                b_ih, b_hh = parts["bias_ih"][k], parts["bias_hh"][k]
                if gate in self.separate:
                    own["b" + gate], own[self.separate[gate]] = b_ih, b_hh
                else:
                    own["b" + gate] = b_ih + b_hh
        if "weight_hr" in packed:
            own["W_p"] = packed["weight_hr"]
        return own

    def pack(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ours -> torch's. Where we have one bias and torch two, the second is 0."""
        packed = {
            kind: torch.cat([own[letter + gate] for gate in self.gates])
            for kind, letter in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b"))
            if letter + self.gates[0] in own
        }
        if "bias_ih" in packed:
            seconds = [self.separate.get(gate, "") for gate in self.gates]
            firsts = [own["b" + gate] for gate in self.gates]
            packed["bias_hh"] = torch.cat(
                [own[name] if name else torch.zeros_like(b) for name, b in zip(seconds, firsts, strict=True)]
            )
        if "W_p" in own:
            packed["weight_hr"] = own["W_p"]
        return packed


class _Vendor(RNN):
    """Reads the state_dict of the torch.nn module it stands for.

    Attributes:
        CELLS: the cells it may have.
        OWN: its arguments that choose among them, with their defaults.
    """

    BLOCKS: ClassVar[Blocks]
    CELLS: ClassVar[Sequence[Cell]]
    OWN: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def _check(cls, options: Mapping[str, Any]) -> None:
        """The options are such as `RNN` has beside those of torch.nn."""
        known = [p.name for p in inspect.signature(RNN.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
        known.remove("sizes")
        for name in options:
            if name not in known:
                owners = [kind.__name__ for kind in (LSTM, GRU, Elman) if name in kind.OWN]
                near = difflib.get_close_matches(
                    name, inspect.signature(cls.__init__).parameters | dict.fromkeys(known)
                )
                hint = (
                    f"that is for {owners[0]}" if owners else f"did you mean {near[0]!r}?" if near else "leave it out"
                )
                raise CellError(f"{cls.__name__} has no argument {name!r}; {hint}")

    @classmethod
    def _own(cls, cell: Cell, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The arguments that choose this one of the cells."""
        return {}

    @classmethod
    def from_spec(cls: type[Own], spec: Mapping[str, Any]) -> Own:
        """The layer of this class that `spec` describes, with new weights; runs no one's code.

        Raises:
            ProgramError: the Program is damaged, of another version, or of another class.
        """
        arguments = arguments_of(spec)
        cell, sizes = arguments.pop("cell"), arguments.pop("sizes", {})
        for own in cls.CELLS:
            if isinstance(cell, Cell) and cell.program() == own.program():
                return cls(**arguments, **cls._own(own, sizes))
        name = cell.name if isinstance(cell, Cell) else "several cells"
        raise ProgramError(f"the spec is of a layer of {name}, which is no {cls.__name__}; use RNN.from_spec")

    def extra_repr(self) -> str:
        own = self._own(self.cell, self.sizes)
        return shown(self, {name: value for name, value in own.items() if value != self.OWN[name]})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for layer in range(self.num_layers):
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self.num_directions]:
                if f"{prefix}weight_ih{suffix}" in state_dict:
                    names = {kind: f"{prefix}{kind}{suffix}" for kind in KINDS}
                    packed = {kind: state_dict.pop(name) for kind, name in names.items() if name in state_dict}
                    own = self.BLOCKS.split(packed, self.hidden_sizes[layer], type(self).__name__)
                    state_dict.update({f"{prefix}{name}{suffix}": value for name, value in own.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


class LSTM(_Vendor):
    """torch.nn.LSTM with our kernels: the same arguments, shapes and numbers.

    ``load_state_dict`` takes the torch module's weights. Returns ``output, (h, c)``; states are given and returned as
    [num_layers * num_directions, B, H]. `proj_size` > 0 projects the output to that size (Sak et al. 2014).

    >>> layer = LSTM(3, 4, proj_size=2)
    >>> output, (h, c) = layer(torch.zeros(5, 1, 3))
    >>> output.shape, h.shape, c.shape
    (torch.Size([5, 1, 2]), torch.Size([1, 1, 2]), torch.Size([1, 1, 4]))
    """

    BLOCKS = Blocks(("_i", "_f", "_g", "_o"))
    CELLS = (cells.lstm, cells.projected_lstm)
    OWN: ClassVar[Mapping[str, Any]] = {"proj_size": 0}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        self._check(options)
        check_sizes(hidden_size=hidden_size)
        if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ShapeError(f"proj_size is {proj_size!r}; give 0 (none) or less than hidden_size = {hidden_size}")
        self_sizes = {"P": proj_size} if proj_size else {}
        super().__init__(
            cells.projected_lstm if proj_size else cells.lstm,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            backend=backend,
            sizes=self_sizes,
            device=device,
            dtype=dtype,
            **options,
        )
        self.proj_size = proj_size

    @classmethod
    def _own(cls, cell: Cell, sizes: Mapping[str, int]) -> dict[str, Any]:
        return {"proj_size": sizes.get("P", 0)}


class GRU(_Vendor):
    """torch.nn.GRU with our kernels: the same arguments, shapes and numbers (the reset gate acts after the product).

    >>> output, h = GRU(3, 4, bidirectional=True)(torch.zeros(5, 1, 3))
    >>> output.shape, h.shape
    (torch.Size([5, 1, 8]), torch.Size([2, 1, 4]))
    """

    BLOCKS = Blocks(("_r", "_z", "_n"), {"_n": "b_hn"})
    CELLS = (cells.gru_reset_after,)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        self._check(options)
        super().__init__(
            cells.gru_reset_after,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            backend=backend,
            device=device,
            dtype=dtype,
            **options,
        )


class Elman(_Vendor):
    """torch.nn.RNN with our kernels: the same arguments, shapes and numbers; `nonlinearity` is "tanh" or "relu".

    >>> Elman(3, 4, nonlinearity="relu")(torch.zeros(5, 1, 3))[0].shape
    torch.Size([5, 1, 4])
    """

    BLOCKS = Blocks(("",))
    CELLS = (cells.elman(activation="tanh"), cells.elman(activation="relu"))
    OWN: ClassVar[Mapping[str, Any]] = {"nonlinearity": "tanh"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        **options: Any,
    ) -> None:
        self._check(options)
        cell: Cell = cells.elman(activation=nonlinearity)
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            backend=backend,
            device=device,
            dtype=dtype,
            **options,
        )
        self.nonlinearity = nonlinearity

    @classmethod
    def _own(cls, cell: Cell, sizes: Mapping[str, int]) -> dict[str, Any]:
        return {"nonlinearity": "tanh" if cell.program() == cls.CELLS[0].program() else "relu"}
