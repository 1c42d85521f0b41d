"""Multiplicative integration: what comes in times what is carried."""

from __future__ import annotations

from ..ir import INPUT, STATE
from ..lang import Cell
from .rewrite import Rewriter, call, count_uses, sum_terms


def multiplicative_integration(cell: Cell, alpha: float = 1.0, beta: float = 0.5) -> Cell:
    """Multiplicative integration: the two products of a gate are multiplied, not only added (Wu et al. 2016).

    W x + U h + b -> alpha ⊙ (W x) ⊙ (U h) + beta1 ⊙ (U h) + beta2 ⊙ (W x) + b, for every sum that has exactly one
    product of a matrix with a value of x alone and exactly one with a value that depends on a state; its other terms
    stay.
    Sums of another form stay as they are: the candidate of a GRU with the reset after the product is one.

    The same in evaluation; nothing is drawn.

    Args:
        cell: one with such a sum.
        alpha: where alpha starts.
        beta: where beta1 and beta2 start.

    New parameters for each sum, named after its recurrent matrix: ``alpha_U_i``, ``beta1_U_i``, ``beta2_U_i`` [H].

    Raises:
        CellError: the cell has no such sum, or one whose products were wrapped by another transform.

    >>> from ostinato import cells, transforms
    >>> from ostinato.ir import equations
    >>> print(equations(transforms.multiplicative_integration(cells.elman).program()))
    a1[t] = W x[t]
    a2[t] = U h[t-1]
    h[t]  = tanh(alpha_U ⊙ a1[t] ⊙ a2[t] + beta1_U ⊙ a2[t] + beta2_U ⊙ a1[t] + b)
    """
    starts = {name: v for name, v, usual in (("alpha", alpha, 1.0), ("beta", beta, 0.5)) if v != usual}
    r = Rewriter(cell, call("multiplicative_integration", cell, **starts))
    for name, value in (("alpha", alpha), ("beta", beta)):
        if isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            r.refuse(f"{name} is {value!r}", "give a number")
    inputs, recurrent = set(r.products(INPUT)), set(r.products(STATE))
    uses = count_uses(r.old)
    inner = {a for n in r.old.nodes if n.op == "add" for a in n.args if r.old.nodes[a].op == "add" and uses[a] == 1}
    pairs: dict[int, tuple[int, int, list[int]]] = {}
    for i, node in enumerate(r.old.nodes):
        if node.op == "add" and i not in inner:
            terms = sum_terms(r.old, i, uses)
            own, carried = ([t for t in terms if t in kind] for kind in (inputs, recurrent))
            if len(own) == len(carried) == 1:
                pairs[i] = own[0], carried[0], [t for t in terms if t not in (own[0], carried[0])]
    if not pairs:
        r.refuse(
            f"no sum of cell {cell.name} has one product with x and one with a state, as W x + U h + b has",
            "take a cell that has, and apply it before transforms that wrap products, as in "
            "layer_norm(multiplicative_integration(cell))",
        )
    b = r.b

    def change(i: int, new: int) -> int:
        if i not in pairs:
            return new
        own, carried, rest = pairs[i]
        name, wx, uh = r.matrix(carried), r.place[own], r.place[carried]
        shape = b.nodes[uh].shape
        total = b.mul(b.mul(r.param(f"alpha_{name}", shape, float(alpha)), wx), uh)
        total = b.add(total, b.mul(r.param(f"beta1_{name}", shape, float(beta)), uh))
        total = b.add(total, b.mul(r.param(f"beta2_{name}", shape, float(beta)), wx))
        for term in rest:
            total = b.add(total, r.place[term])
        return total

    r.copy(change)
    return r.finish()
