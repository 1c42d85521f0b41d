"""A stack of layers, wired by hand from single ones: the meaning of every merge and connection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from measured import fill, flat
from ostinato import RNN

MIXED = ["gru", "lstm", "elman"]


def stack(hidden_size: Any, backend: str = "eager", **arguments: Any) -> RNN:
    """Three layers of different cells with numbers of their own."""
    return fill(RNN(MIXED, 3, hidden_size, backend=backend, dtype=torch.float64, **arguments))


def outputs(found: Any) -> dict[str, Tensor]:
    """An output, or a pair of them, by name."""
    return dict(zip(("output", "backward"), flat(found), strict=False))


def alone(layer: RNN, k: int, reverse: bool, width: int) -> RNN:
    """The single layer with the weights of one place in a stack; it runs forwards, whatever the place's direction."""
    cell = layer.cells[k]
    sizes = {s: n for s, n in layer.sizes.items() if s in cell.program().symbols}
    first = next(layer.parameters())
    single = RNN(cell, width, layer.hidden_sizes[k], bias=layer.bias, backend="eager", sizes=sizes, dtype=first.dtype)
    own = {**layer.cell_parameters(k, reverse), **layer.cell_buffers(k, reverse)}
    single.load_state_dict({f"{name}_l0": value.detach() for name, value in own.items()})
    return single.train(layer.training)


def turned(x: Tensor, lengths: list[int]) -> Tensor:
    """Each sequence of x [T, B, D] from its end to its start; what lies past it stays."""
    return torch.stack([torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate(lengths)], 1)


def by_hand(layer: RNN, x: Tensor, lengths: list[int]) -> dict[str, Any]:
    """The output, or pair of outputs, and the final states [B, S] of each layer and direction, each a tuple.

    Each layer reads what `connections` says, runs over it (turned around for the reverse direction), and is merged.
    """
    finals: list[tuple[Tensor, ...]] = []
    outputs: list[Tensor] = []
    pair: list[Tensor] = []
    for k in range(layer.num_layers):
        below = outputs[-1] if outputs else x
        reading = torch.cat([x, *outputs], -1) if layer.connections == "dense" else below
        pair = []
        for reverse in (False, True)[: layer.num_directions]:
            single = alone(layer, k, reverse, reading.shape[-1])
            output, state = single(turned(reading, lengths) if reverse else reading, lengths=lengths)
            pair.append(turned(output, lengths) if reverse else output)
            finals.append(tuple(s[0] for s in flat(state)))
        whole = _merge(pair, layer.merge)
        if layer.connections == "residual" and k:
            whole = whole + below
            pair = list(whole.chunk(len(pair), -1))
        outputs.append(whole)
    return {"output": tuple(pair) if layer.merge is None else outputs[-1], "finals": finals}


def _merge(pair: list[Tensor], merge: str | None) -> Tensor:
    if len(pair) == 1 or merge in ("concat", None):
        return torch.cat(pair, -1)
    stacked = torch.stack(pair)
    return {"sum": stacked.sum(0), "mul": stacked.prod(0), "mean": stacked.mean(0)}[str(merge)]


def same(found: Any, meant: Any) -> None:
    """Nested states or outputs are equal, number by number, within rounding."""
    if isinstance(meant, Tensor):
        torch.testing.assert_close(found, meant)
        return
    assert len(found) == len(meant)
    for a, b in zip(found, meant, strict=True):
        same(a, b)
