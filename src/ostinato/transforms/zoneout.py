"""Zoneout: states that keep their values at random."""

from __future__ import annotations

from collections.abc import Mapping

from ..lang import Cell
from .rewrite import Rewriter, call


def zoneout(cell: Cell, rate: float | Mapping[str, float]) -> Cell:
    """Zoneout: at each step each element of a state keeps its old value with probability `rate` (Krueger et al. 2017).

    s[t] = m[t] ⊙ s[t-1] + (1 - m[t]) ⊙ s~[t], m[t] ~ Bernoulli(rate), s~ what the cell computes

    In training m is drawn for each element, sequence and step. In evaluation it is its expectation, s = rate s[t-1] +
    (1 - rate) s~, so zoneout does not vanish there: the paper has it so. Within the step the values that the
    cell computes are read, not those zoned out: an LSTM has h~ = o ⊙ tanh(c~) as in the paper. An output that is a
    state is the state after zoneout.

    Not dropout, which would set elements to 0.

    Args:
        cell: any with a state.
        rate: for all activations, or by name: ``{"c": 0.5, "h": 0.05}``; 0 <= rate < 1. A state that is left out has
            0, as have a cell's bookkeeping (auxiliary: counters, normalisers) and its delay lines.

    Raises:
        CellError: a rate that is no probability, a name that is no state or no activation, a cell without states.

    >>> from ostinato import cells, transforms
    >>> transforms.zoneout(cells.lstm, {"c": 0.5, "h": 0.05}).program().masks[0]
    Mask(name='zone_c', probability=0.5, scale=1.0, locked=False)
    """
    r = Rewriter(cell, call("zoneout", cell, rate))
    if not r.old.states:
        r.refuse(f"cell {cell.name} has no states", "zoneout is for cells that carry one")
    rates = r.per_state("the rate", rate)
    r.copy()
    b = r.b
    for k, value in rates.items():
        name, new = r.old.states[k], r.next_states[k]
        shape = b.nodes[new].shape
        old = b.raw("state", (), shape, name)
        mask = r.mask(f"zone_{name}", shape, value)
        kept, taken = b.mul(mask, old), b.mul(b.sub(b.const(1.0), mask), new)
        r.replace_state(k, b.add(kept, taken))
    return r.finish()
