"""Weights of Keras's LSTM, GRU and SimpleRNN as a layer: `from_keras`. Keras itself is not needed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError
from .rnn import RNN
from .vendor import GRU, LSTM, Elman

__all__ = ["from_keras"]

# Keras's blocks from left to right, by how many there are; a GRU's candidate is ours by another name.
_GATES = {1: ("",), 3: ("_z", "_r", "_n"), 4: ("_i", "_f", "_g", "_o")}
_NAMES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
_LEAVES = ("kernel", "recurrent_kernel", "bias")
_BACKWARD = re.compile(r"(^|[/_.])backward([/_.]|$)")

Arrays = list[Any]  # kernel, recurrent kernel and, if there is one, bias


def from_keras(
    *layers: Any,
    reset_after: bool | None = None,
    activation: str = "tanh",
    batch_first: bool = True,
    backend: str = "auto",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> RNN:
    """The layer with the weights of a Keras LSTM, GRU or SimpleRNN, or of several on top of one another.

    Which of them it is, the shapes say: kernel [D, n H], recurrent kernel [H, n H], bias [n H] with n = 4, 3, 1. A
    GRU with a bias [2, 3 H] resets after the product (Keras's default), one with a bias [3 H] before it, which is our
    `gru`. Activations are Keras's defaults: tanh, and sigmoid for the gates (not the hard_sigmoid of Keras 1).

    Args:
        layers: the weights of each Keras layer, the first below: what ``layer.get_weights()`` returns; or a mapping
            of names to arrays, such as an opened .npz, what safetensors reads, or a group of an opened HDF5 file; or
            the path of a .npz or .safetensors file. A Bidirectional layer: its own ``get_weights()``, or a pair of
            lists, forward and backward. It must merge by concatenation.
        reset_after: of a GRU without a bias, whose shapes do not say it; None: True.
        activation: of a SimpleRNN, "tanh" or "relu".
        batch_first: x and output are [B, T, ...], as in Keras.
        backend: as of `RNN`.
        device, dtype: of the layer; None: the CPU, and the arrays' own dtype.

    Returns:
        `LSTM`, `GRU` or `Elman`; ``RNN("gru")`` for a GRU that resets before the product.

    Raises:
        DataError: arrays that are no such weights, or do not fit one another.

    >>> import numpy as np
    >>> weights = [np.zeros((3, 16), "float32"), np.zeros((4, 16), "float32"), np.zeros(16, "float32")]
    >>> from_keras(weights)
    LSTM(3, 4, batch_first=True)
    """
    if not layers:
        raise DataError("from_keras got no weights; give what layer.get_weights() returns for each layer")
    stack = [_directions(_arrays(given)) for given in layers]
    widths = [_checked(arrays) for directions in stack for arrays in directions]
    bias = len(stack[0][0]) == 3
    kinds = {(len(d), len(arrays), _bias_rows(arrays)) for d in stack for arrays in d}
    hidden_size, blocks = widths[0][1:]
    if len(kinds) > 1 or any(w[1:] != widths[0][1:] for w in widths):
        raise DataError(
            "the Keras layers differ in kind, units, bias or directions; read each on its own with from_keras"
        )
    directions = len(stack[0])
    for k, (reads, *_) in enumerate(widths):
        wants = widths[0][0] if k < directions else hidden_size * directions
        if reads != wants:
            raise DataError(
                f"layer {k // directions} reads {reads} values, but it is given {wants}; pass the layers in order"
            )
    after = blocks == 3 and (_bias_rows(stack[0][0]) == 2 if bias else reset_after is not False)
    if reset_after is not None and (blocks != 3 or reset_after != after):
        what = f"a GRU with reset_after={after}" if blocks == 3 else f"a {_NAMES[blocks]}"
        raise DataError(f"reset_after is {reset_after}, but the shapes are those of {what}; leave it out")
    options: dict[str, Any] = {
        "num_layers": len(stack),
        "bias": bias,
        "batch_first": batch_first,
        "bidirectional": directions == 2,
        "backend": backend,
        "device": "meta",  # so that no numbers are drawn only to be written over
        "dtype": dtype or _tensor(stack[0][0][0]).dtype,
    }
    layer: RNN
    if blocks == 4:
        layer = LSTM(widths[0][0], hidden_size, **options)
    elif blocks == 1:
        layer = Elman(widths[0][0], hidden_size, nonlinearity=activation, **options)
    elif after:
        layer = GRU(widths[0][0], hidden_size, **options)
    else:
        layer = RNN("gru", widths[0][0], hidden_size, **options)
    layer.to_empty(device=device or "cpu")
    for place, both in enumerate(stack):
        for reverse, arrays in enumerate(both):
            _fill(layer.cell_parameters(place, bool(reverse)), arrays, blocks)
    return layer


def _fill(own: Mapping[str, nn.Parameter], arrays: Arrays, blocks: int) -> None:
    """Keras multiplies rows by its kernels, x K; we multiply columns, W x: each block is turned over."""
    gates = _GATES[blocks]
    with torch.no_grad():
        for letter, array in zip("WU", arrays, strict=False):
            for gate, part in zip(gates, _tensor(array).chunk(blocks, 1), strict=True):
                own[letter + gate].copy_(part.T)
        if len(arrays) == 3:
            bias = _tensor(arrays[2])
            rows = bias.reshape(-1, bias.shape[-1]).chunk(blocks, 1)  # [1 or 2, H] for each gate
            for gate, part in zip(gates, rows, strict=True):
                if len(part) == 2 and gate == "_n":
                    own["b_n"].copy_(part[0])
                    own["b_hn"].copy_(part[1])
                else:
                    own["b" + gate].copy_(part.sum(0))


def _tensor(array: Any) -> Tensor:
    """An array of numpy, a tensor, or what numpy can read, such as a dataset of HDF5."""
    found = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
    if not found.is_floating_point():
        raise DataError(f"an array of weights is {found.dtype}; give floating numbers")
    return found


def _bias_rows(arrays: Arrays) -> int:
    return len(arrays) > 2 and len(arrays[2].shape)


def _checked(arrays: Arrays) -> tuple[int, int, int]:
    """D, H and the number of blocks of one layer and direction."""
    shapes: list[tuple[int, ...]] = [tuple(getattr(array, "shape", ())) for array in arrays]
    kernel, recurrent, *bias = shapes
    fits = len(kernel) == len(recurrent) == 2 and recurrent[0] > 0 and kernel[1] == recurrent[1]
    blocks = recurrent[1] // recurrent[0] if fits else 0
    wide = (blocks * recurrent[0],) if fits else ()
    biases = [[], [wide], [(2, *wide)]] if blocks == 3 else [[], [wide]]
    if blocks not in _GATES or wide != recurrent[1:] or bias not in biases:
        raise DataError(
            f"arrays of shapes {', '.join(map(str, map(list, shapes)))} are no recurrent layer of Keras; give kernel "
            "[D, n H], recurrent kernel [H, n H] and bias [n H] with n = 4 (LSTM), 3 (GRU; bias also [2, 3 H]) or 1"
        )
    return kernel[0], recurrent[0], blocks


def _directions(arrays: Sequence[Any]) -> list[Arrays]:
    """One direction's arrays, or two: flat, as Bidirectional gives them, or a pair of lists."""
    if len(arrays) == 2 and all(isinstance(part, list | tuple) for part in arrays):
        found = [list(part) for part in arrays]
    elif len(arrays) in (4, 6):
        half = len(arrays) // 2
        found = [list(arrays[:half]), list(arrays[half:])]
    else:
        found = [list(arrays)]
    if any(len(part) not in (2, 3) for part in found):
        raise DataError(
            f"a Keras layer has kernel, recurrent kernel and perhaps bias, got {len(arrays)} arrays; give what "
            "get_weights() returns for one layer, and several layers as several arguments"
        )
    return found


def _arrays(given: Any) -> Sequence[Any]:
    """The arrays of one Keras layer in the order of get_weights()."""
    if isinstance(given, str | Path):
        return _arrays(_read(Path(given)))
    if isinstance(given, list | tuple):
        return given
    if not hasattr(given, "items"):
        raise DataError(
            f"from_keras got {type(given).__name__}; give a list of arrays, a mapping of names to arrays, or a path"
        )
    flat = _flat(given)
    if flat and all(re.fullmatch(r"arr_\d+", name) for name in flat):  # numpy.savez of the bare list
        return [flat[f"arr_{k}"] for k in range(len(flat))]
    sides: dict[str, dict[str, Any]] = {}
    for name, array in flat.items():
        folder, _, leaf = name.rpartition("/")
        leaf = leaf.partition(":")[0]  # "kernel:0"
        leaf = _LEAVES[int(leaf)] if leaf in ("0", "1", "2") else leaf  # "vars/0" of a .keras archive
        if leaf in _LEAVES:
            sides.setdefault(folder, {})[leaf] = array
    order = sorted(sides, key=lambda folder: bool(_BACKWARD.search(folder)))
    turned = [bool(_BACKWARD.search(folder)) for folder in order]
    if turned not in ([False], [False, True]) or any(set(_LEAVES[:2]) - set(s) for s in sides.values()):
        raise DataError(
            f"the weights of one Keras layer were expected, but there are {', '.join(flat) or 'none'}; pass the "
            "mapping of one layer, with kernel, recurrent_kernel and bias"
        )
    found = [[sides[folder][leaf] for leaf in _LEAVES if leaf in sides[folder]] for folder in order]
    return found if len(found) == 2 else found[0]


def _flat(group: Any, prefix: str = "") -> dict[str, Any]:
    """The arrays of a mapping of mappings by their paths, "lstm_cell/kernel:0"."""
    found: dict[str, Any] = {}
    for name, value in group.items():
        found.update(_flat(value, f"{prefix}{name}/") if hasattr(value, "items") else {f"{prefix}{name}": value})
    return found


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix not in (".npz", ".safetensors"):
        raise DataError(
            f"from_keras reads .npz and .safetensors, got {path}; open another file yourself and pass its group"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file) as archive:
                return {name: archive[name] for name in archive.files}
        return load_file(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise DataError(f"the weights in {path} cannot be read ({error}); write the file again") from error
