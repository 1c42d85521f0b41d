"""What `scan` is given, in one form whatever it is: with a batch, and with the carry flat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ShapeError
from ..lang.symbol import Symbol
from .checks import Lengths, lengths_tensor


class Call(NamedTuple):
    """What `scan` is given, with a batch: xs [T, B, D], states [B, S]."""

    xs: Tensor
    states: list[Tensor]
    carry: pytree.TreeSpec
    lengths: Tensor | None
    batched: bool

    @classmethod
    def of(cls, init: Any, xs: Any, lengths: Lengths | None) -> Call:
        if not isinstance(xs, Tensor) or xs.dim() not in (2, 3):
            got = f"shape {list(xs.shape)}" if isinstance(xs, Tensor) else type(xs).__name__
            raise ShapeError(f"scan got xs of {got}; give a tensor [T, D], or [T, B, D] for a batch")
        batched = xs.dim() == 3
        if not batched and lengths is not None:
            raise ShapeError("lengths were given with one sequence [T, D]; cut it, or give a batch [T, B, D]")
        whole = xs if batched else xs.unsqueeze(1)
        leaves, carry = pytree.tree_flatten(init)
        states: list[Tensor] = []
        for leaf in leaves:
            most = 2 if batched else 1
            if not isinstance(leaf, Tensor) or not 1 <= leaf.dim() <= most:
                got = list(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ShapeError(f"scan got {got} in init; a carry is [S]{', or [B, S]' if batched else ''}")
            if leaf.dim() == 2 and leaf.shape[0] != whole.shape[1]:
                raise ShapeError(
                    f"init has {list(leaf.shape)} for a batch of {whole.shape[1]}; give [S] or [{whole.shape[1]}, S]"
                )
            if leaf.dtype != xs.dtype or leaf.device != xs.device:
                raise ShapeError(
                    f"init is {leaf.dtype} on {leaf.device}, but xs is {xs.dtype} on {xs.device}; use init.to(xs)"
                )
            states.append(leaf if leaf.dim() == 2 else leaf.expand(whole.shape[1], -1))
        ends = None if lengths is None else lengths_tensor(lengths, whole.shape[1], whole.shape[0])
        return cls(whole, states, carry, ends, batched)

    def give(self, values: Sequence[Tensor], spec: pytree.TreeSpec, axis: int) -> Any:
        """Values with a batch, which is this axis, in the caller's form."""
        return pytree.tree_unflatten([v if self.batched else v.squeeze(axis) for v in values], spec)


def pair(result: Any) -> tuple[Any, Any]:
    """What a step returned: the new carry, and y."""
    if not isinstance(result, tuple) or len(result) != 2:
        got = "one value" if isinstance(result, Tensor | Symbol) else type(result).__name__
        raise ShapeError(f"the step returned {got}; return (new carry, y), with y None for no output")
    return result
