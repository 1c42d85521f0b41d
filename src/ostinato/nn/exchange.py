"""Weights carried over to torch.nn's recurrent modules and back: `from_torch` and `to_torch`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import cells
from ..errors import CellError
from ..ir import Program
from ..lang import Cell
from .rnn import RNN
from .vendor import GRU, KINDS, LSTM, Blocks, Elman

__all__ = ["from_torch", "to_torch"]

# What a layer may be told that torch.nn's modules know, or that changes no number.
_SHARED = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_SILENT = ("self", "cell", "backend", "sizes", "init", "device", "dtype")


@dataclass(frozen=True)
class _Pair:
    """A cell of ours and the module of torch.nn with its equations."""

    cell: Cell
    module: type[nn.RNNBase]
    blocks: Blocks
    options: dict[str, str] = field(default_factory=dict[str, str])


def _pairs() -> list[_Pair]:
    return [
        _Pair(cells.lstm, nn.LSTM, LSTM.BLOCKS),
        _Pair(cells.projected_lstm, nn.LSTM, LSTM.BLOCKS),
        _Pair(cells.gru_reset_after, nn.GRU, GRU.BLOCKS),
        _Pair(cells.elman(activation="tanh"), nn.RNN, Elman.BLOCKS),
        _Pair(cells.elman(activation="relu"), nn.RNN, Elman.BLOCKS, {"nonlinearity": "relu"}),
    ]


def from_torch(module: nn.Module, backend: str = "auto") -> LSTM | GRU | Elman:
    """The layer with the options, weights, device, dtype and mode of a module of torch.nn.

    Weights are copied, those of a parametrized module (weight norm, pruning) as they stand; the two biases of torch
    become one where only their sum is felt. What is frozen stays frozen.

    Args:
        module: torch.nn.LSTM, GRU, RNN, LSTMCell, GRUCell or RNNCell; a cell becomes a layer whose sequences are
            [T, B, D].
        backend: as of `RNN`.

    Raises:
        CellError: the module is another.

    >>> module = torch.nn.LSTM(3, 4, num_layers=2)
    >>> layer, x = from_torch(module), torch.randn(5, 1, 3)
    >>> torch.allclose(layer(x)[0], module(x)[0], atol=1e-6)
    True
    """
    kinds: dict[type[nn.Module], type[LSTM | GRU | Elman]] = {
        nn.LSTM: LSTM,
        nn.GRU: GRU,
        nn.RNN: Elman,
        nn.LSTMCell: LSTM,
        nn.GRUCell: GRU,
        nn.RNNCell: Elman,
    }
    base = next((kind for kind in kinds if isinstance(module, kind)), None)
    if base is None:
        raise CellError(
            f"from_torch reads {', '.join(kind.__name__ for kind in kinds)} of torch.nn, got {type(module).__name__}; "
            "build the layer and write its cell_parameters()"
        )
    if type(module).forward is not base.forward:
        raise CellError(
            f"{type(module).__name__} has a forward of its own and may not be torch.nn.{base.__name__} any more; "
            "write its equations as a @cell"
        )
    told: Any = module
    names = ["bias"]
    if isinstance(module, nn.RNNBase):
        names += ["num_layers", "batch_first", "dropout", "bidirectional"]
    options = {name: getattr(told, name) for name in names}
    if isinstance(module, nn.RNN | nn.RNNCell):
        options["nonlinearity"] = told.nonlinearity
    if getattr(told, "proj_size", 0):
        options["proj_size"] = told.proj_size
    first: Tensor = getattr(told, _torch_name(module, "weight_ih", "_l0"))
    kind: Any = kinds[base]
    layer: LSTM | GRU | Elman = kind(
        told.input_size, told.hidden_size, backend=backend, device="meta", dtype=first.dtype, **options
    )
    layer.to_empty(device=first.device)  # by way of meta, so that no numbers are drawn only to be written over
    for suffix, own in _places(layer):
        with torch.enable_grad():  # so that what is split from a frozen tensor is frozen
            named = {kind: getattr(told, _torch_name(module, kind, suffix), None) for kind in KINDS}
            packed = {kind: value for kind, value in named.items() if value is not None}
            found = layer.BLOCKS.split(packed, layer.hidden_size, type(layer).__name__)
        _fill(own, found)
    return layer.train(module.training)


def to_torch(layer: RNN) -> nn.RNNBase:
    """The module of torch.nn with the options, weights, device, dtype and mode of a layer, and equal numbers.

    Cells are known by their equations: "lstm", "projected_lstm", "gru_reset_after" and "elman", however they came
    about. Where torch has two biases and we have one, the second is 0.

    Raises:
        CellError: torch.nn has no such cell, or not one of the layer's options.

    >>> layer = RNN("gru_reset_after", 3, 4, bidirectional=True)
    >>> module, x = to_torch(layer), torch.randn(5, 1, 3)
    >>> module
    GRU(3, 4, bidirectional=True)
    >>> torch.allclose(layer(x)[0], module(x)[0], atol=1e-6)
    True
    """
    pair, told = _pair(layer), _options(layer)
    options: dict[str, Any] = dict(pair.options)
    if layer.sizes:
        options["proj_size"] = size = layer.sizes["P"]
        if size >= layer.hidden_size:
            raise CellError(f"torch.nn.LSTM projects to less than hidden_size={layer.hidden_size}, not to P={size}")
    if layer.num_layers == 1:
        told.pop("dropout")  # it has no place between layers, and torch warns of it
    first = next(iter(next(_places(layer))[1].values()))
    module = pair.module(device="meta", dtype=first.dtype, **told, **options).to_empty(device=first.device)
    for suffix, own in _places(layer):
        with torch.enable_grad():  # so that what is packed from frozen tensors is frozen
            packed = pair.blocks.pack(own)
        if "bias_hh" in packed:
            packed["bias_hh"].requires_grad_(packed["bias_ih"].requires_grad)
        _fill({kind: getattr(module, kind + suffix) for kind in packed}, packed)
    return module.train(layer.training)


def _torch_name(module: nn.Module, kind: str, suffix: str) -> str:
    """torch's cells have one layer and leave out its number."""
    return kind + suffix if isinstance(module, nn.RNNBase) else kind


def _places(layer: RNN) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each layer and direction: the end of its parameters' names, and the parameters as they stand."""
    suffixes = [
        f"_l{k}{'_reverse' if reverse else ''}"
        for k in range(layer.num_layers)
        for reverse in range(layer.num_directions)
    ]
    for suffix, program in zip(suffixes, layer.programs, strict=True):
        yield suffix, {name: getattr(layer, name + suffix) for name in program.params}


def _fill(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name]).requires_grad_(values[name].requires_grad)


def _pair(layer: RNN) -> _Pair:
    """The module that has the cell's equations."""
    cell: Cell = _one("cell", layer.cells)
    meant = _equations(cell.program())
    for pair in _pairs():
        if _equations(pair.cell.program()) == meant:
            return pair
    why = {
        "gru": "torch.nn.GRU resets after the product, that is 'gru_reset_after'",
        "peephole_lstm": "torch.nn.LSTM has no peepholes, that is 'lstm'",
    }.get(cell.name, f"it has {', '.join(dict.fromkeys(pair.cell.name for pair in _pairs()))}")
    raise CellError(f"torch.nn has no cell with the equations of {cell.name}; {why}")


def _equations(program: Program) -> Program:
    """The Program without what changes no number: the words it is told in, and how its parameters start."""
    names = {name: f"{k}" for k, name in enumerate(program.states)}
    nodes = [replace(n, name="", attr=names[str(n.attr)] if n.op == "state" else n.attr) for n in program.nodes]
    return replace(program, name="", nodes=tuple(nodes), states=tuple(names.values()), init=(), fixed=(), auxiliary=())


def _options(layer: RNN) -> dict[str, Any]:
    """The layer's options that torch.nn shares.

    Raises:
        CellError: one that torch.nn has not differs from its default.
    """
    for name, parameter in inspect.signature(RNN.__init__).parameters.items():
        if name in _SHARED or name in _SILENT:
            continue
        value = _one(name, getattr(layer, name))
        if value != parameter.default:
            raise CellError(
                f"torch.nn has no option {name}, and the layer has {name}={value!r}; only {parameter.default!r} can be "
                "carried over"
            )
    return {name: getattr(layer, name) for name in _SHARED} | {"hidden_size": _one("hidden_size", layer.hidden_sizes)}


def _one(name: str, value: Any) -> Any:
    """An option's value, which may be kept layer by layer if it is the same for all."""
    values: list[Any] = list(value) if isinstance(value, tuple) else [value]
    if any(other != values[0] for other in values):
        raise CellError(f"torch.nn has one {name} for all layers, and the layer has {values}; give each its own module")
    return values[0]
