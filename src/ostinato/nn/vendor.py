"""Layers with torch.nn's arguments, shapes and weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import cells
from ..errors import ShapeError
from ..lang import Cell
from .checks import check_sizes
from .rnn import RNN


class _Vendor(RNN):
    """Reads the state_dict of the torch.nn module it stands for.

    ``GATES`` are the blocks of torch's weights, from top to bottom; ``SEPARATE`` the gates whose recurrent bias is not
    added to the input's but has a name of its own.
    """

    GATES: ClassVar[tuple[str, ...]]
    SEPARATE: ClassVar[dict[str, str]] = {}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                self._translate(state_dict, prefix, suffix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _translate(self, found: dict[str, Any], prefix: str, suffix: str) -> None:
        """Replace torch's packed tensors by ours, gate by gate."""
        if f"{prefix}weight_ih{suffix}" not in found:
            return

        def blocks(kind: str) -> list[Tensor] | None:
            whole = found.pop(f"{prefix}{kind}{suffix}", None)
            if whole is None:
                return None
            if whole.shape[0] != len(self.GATES) * self.hidden_size:
                raise ShapeError(
                    f"{kind}{suffix} has {whole.shape[0]} rows, but {type(self).__name__} with hidden_size="
                    f"{self.hidden_size} has {len(self.GATES) * self.hidden_size}; load a module of the same sizes"
                )
            return list(whole.chunk(len(self.GATES)))

        columns = {"W": blocks("weight_ih"), "U": blocks("weight_hh")}
        b_ih, b_hh = blocks("bias_ih"), blocks("bias_hh")
        for k, gate in enumerate(self.GATES):
            for letter, parts in columns.items():
                if parts is not None:
                    found[f"{prefix}{letter}{gate}{suffix}"] = parts[k]
            if b_ih is not None and b_hh is not None:
                own = self.SEPARATE.get(gate)
                found[f"{prefix}b{gate}{suffix}"] = b_ih[k] if own else b_ih[k] + b_hh[k]
                if own:
                    found[f"{prefix}{own}{suffix}"] = b_hh[k]
        projection = found.pop(f"{prefix}weight_hr{suffix}", None)
        if projection is not None:
            found[f"{prefix}W_p{suffix}"] = projection


class LSTM(_Vendor):
    """torch.nn.LSTM with our kernels: the same arguments, shapes and numbers.

    ``load_state_dict`` takes the torch module's weights. Returns ``output, (h, c)``; states are given and returned as
    [num_layers * num_directions, B, H]. `proj_size` > 0 projects the output to that size (Sak et al. 2014).

    >>> layer = LSTM(3, 4, proj_size=2)
    >>> output, (h, c) = layer(torch.zeros(5, 1, 3))
    >>> output.shape, h.shape, c.shape
    (torch.Size([5, 1, 2]), torch.Size([1, 1, 2]), torch.Size([1, 1, 4]))
    """

    GATES = ("_i", "_f", "_g", "_o")

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
    ) -> None:
        check_sizes(hidden_size=hidden_size)
        if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < hidden_size:
            raise ShapeError(f"proj_size is {proj_size!r}; give 0 (none) or less than hidden_size = {hidden_size}")
        self_sizes = {"P": proj_size} if proj_size else {}
        super().__init__(
            cells.projected_lstm if proj_size else cells.lstm,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            backend,
            sizes=self_sizes,
            device=device,
            dtype=dtype,
        )
        self.proj_size = proj_size


class GRU(_Vendor):
    """torch.nn.GRU with our kernels: the same arguments, shapes and numbers (the reset gate acts after the product).

    >>> output, h = GRU(3, 4, bidirectional=True)(torch.zeros(5, 1, 3))
    >>> output.shape, h.shape
    (torch.Size([5, 1, 8]), torch.Size([2, 1, 4]))
    """

    GATES = ("_r", "_z", "_n")
    SEPARATE: ClassVar[dict[str, str]] = {"_n": "b_hn"}

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
    ) -> None:
        super().__init__(
            cells.gru_reset_after,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            backend,
            device=device,
            dtype=dtype,
        )


class Elman(_Vendor):
    """torch.nn.RNN with our kernels: the same arguments, shapes and numbers; `nonlinearity` is "tanh" or "relu".

    >>> Elman(3, 4, nonlinearity="relu")(torch.zeros(5, 1, 3))[0].shape
    torch.Size([5, 1, 4])
    """

    GATES = ("",)

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
    ) -> None:
        cell: Cell = cells.elman(activation=nonlinearity)
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            backend,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity
