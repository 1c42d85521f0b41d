"""Dropout inside the step: on what comes in, goes out and is carried, on what is written, on the matrices."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir import OPS, PARAMETERS, STATE
from ..lang import Cell
from .rewrite import Rewriter, call, count_uses, multiple_of_state, sum_terms

ARITHMETIC = ("add", "sub", "mul", "div", "neg", "minimum", "maximum")


def variational_dropout(
    cell: Cell, input: float = 0.0, output: float = 0.0, state: float | Mapping[str, float] = 0.0
) -> Cell:
    """Variational dropout: one mask for all steps of a sequence (Gal & Ghahramani 2016).

    x -> m_x ⊙ x wherever the step reads x; y -> m_y ⊙ y for what it puts out; and U h -> U (m_h ⊙ h) for a state that
    a matrix multiplies, itself or a multiple of it (U (r ⊙ h) -> U (r ⊙ (m_h ⊙ h))). All gates share the mask of a
    value. The state that is carried and what else reads it stay whole, so that memory is not lost; so does the
    state when the output that is dropped is one.

    In training the masks, Bernoulli(1 - rate) / (1 - rate), are drawn for each sequence at each call, and are the same
    at all its steps. In evaluation they are 1 and the cell is the one that was given.

    Args:
        cell: any.
        input, output: rates on x and on the output, 0 <= rate < 1.
        state: for all states that a matrix multiplies, or by name: ``{"h": 0.3}``.

    Raises:
        CellError: a rate that is no probability, a name that is no state, no product of a matrix and the state.

    >>> from ostinato import cells, transforms
    >>> locked = transforms.variational_dropout(cells.lstm, input=0.2, state=0.3)
    >>> [(mask.name, mask.locked) for mask in locked.program().masks]
    [('drop_x', True), ('drop_h', True)]
    """
    given = {"input": input, "output": output, "state": state}
    r = Rewriter(cell, call("variational_dropout", cell, **{k: v for k, v in given.items() if v}))
    rate_in, rate_out = r.rate("the rate on input", input), r.rate("the rate on output", output)
    rates = {r.old.states[k]: rate for k, rate in r.per_state("the rate on state", state).items()}
    if rate_in and not any(n.op == "input" for n in r.old.nodes):
        r.refuse(f"cell {cell.name} does not read x", "leave out input=")
    if rate_out and r.old.output < 0:
        r.refuse(f"cell {cell.name} puts out nothing", "leave out output=")
    b = r.b
    masked: dict[str, int] = {}

    def change(i: int, new: int) -> int:
        node = b.nodes[new]
        if node.op == "input" and rate_in:
            return r.dropped(new, "drop_x", rate_in, locked=True)
        if node.op == "matmul" and r.level[r.old.nodes[i].args[1]] == STATE:
            operand = multiple_of_state(b, node.args[1], lambda leaf: dropped(str(leaf.attr)))
            return new if operand is None else b.op("matmul", node.args[0], operand)
        return new

    def dropped(name: str) -> int | None:
        if name in rates and name not in masked:
            leaf = b.raw("state", (), (r.old.state_sizes[name],), name)
            masked[name] = r.dropped(leaf, f"drop_{name}", rates[name], locked=True)
        return masked.get(name)

    r.copy(change)
    missed = [name for name in rates if name not in masked]
    if missed and (isinstance(state, Mapping) or not masked):
        r.refuse(
            f"no matrix of cell {cell.name} multiplies the state {missed[0]}, or a multiple of it",
            "leave it out, or use recurrent_dropout or zoneout, which need no product",
        )
    if rate_out:
        r.output = r.dropped(r.output, "drop_y", rate_out, locked=True)
    return r.finish()


def recurrent_dropout(cell: Cell, rate: float, value: str | None = None) -> Cell:
    """Recurrent dropout without memory loss: on what is written into a state (Semeniuta et al. 2016).

    c[t] = f ⊙ c[t-1] + i ⊙ d(g), d(g) = m[t] ⊙ g, where what is retained of the old state is never dropped.

    Which value that is, the equations say: in a new state that is a sum with a multiple of the old one, f ⊙ c, every
    other term that is a product of gates (logistic functions and arithmetic of them, as 1 - z) and one other factor
    has that factor dropped, the candidate. A term that is no product is dropped whole. In a GRU, (1 - z) ⊙ n + z ⊙ h,
    it is n.

    In training m = Bernoulli(1 - rate) / (1 - rate) is drawn for each element, sequence and step. In evaluation it is 1
    and the cell is the one that was given.

    Args:
        cell: one whose state is retained in a sum, or any with `value`.
        rate: 0 <= rate < 1.
        value: the name of the value to be dropped, as the equations have it (``"g"`` in lstm), wherever it is read.

    Raises:
        CellError: a rate that is no probability; no such value can be found.

    >>> from ostinato import cells, transforms
    >>> print(transforms.recurrent_dropout(cells.lstm, 0.25).program().masks)
    (Mask(name='drop_g', probability=0.75, scale=1.3333333333333333, locked=False),)
    """
    r = Rewriter(cell, call("recurrent_dropout", cell, rate, **({} if value is None else {"value": value})))
    rate = r.rate("the rate", rate)
    chosen = _candidates(r) if value is None else _named(r, value)

    def change(i: int, new: int) -> int:
        if i not in chosen or not rate:
            return new
        return r.dropped(new, f"drop_{r.old.nodes[i].name or chosen[i]}", rate)

    r.copy(change)
    return r.finish()


def weight_drop(cell: Cell, rate: float) -> Cell:
    """Weight drop: DropConnect on the recurrent matrices (Merity et al. 2018; Wan et al. 2013).

    U v -> (M ⊙ U) v for every product of a matrix with a value v that depends on a state.

    In training M = Bernoulli(1 - rate) / (1 - rate) is drawn once a call, for each element of each matrix: the same for
    all sequences and steps. In evaluation it is 1 and the cell is the one that was given.

    Args:
        cell: one with such a product.
        rate: 0 <= rate < 1.

    Raises:
        CellError: a rate that is no probability; the cell has no recurrent product.

    >>> from ostinato import cells, transforms
    >>> transforms.weight_drop(cells.gru, 0.5).program().mask_shapes["drop_U_z"]
    ('H', 'H')
    """
    r = Rewriter(cell, call("weight_drop", cell, rate))
    rate = r.rate("the rate", rate)
    products = set(r.recurrent())
    masked: dict[int, int] = {}
    b = r.b

    def change(i: int, new: int) -> int:
        if i not in products or not rate:
            return new
        matrix, operand = b.nodes[new].args
        if matrix not in masked:
            masked[matrix] = r.dropped(matrix, f"drop_{r.matrix(i)}", rate)
        return b.op("matmul", masked[matrix], operand)

    r.copy(change)
    return r.finish()


def _named(r: Rewriter, value: str) -> dict[int, str]:
    """The values of that name in the equations."""
    found = {i: value for i, n in enumerate(r.old.nodes) if n.name == value and OPS[n.op].kind != "leaf"}
    if not found:
        r.refuse(f"cell {r.cell.name} has no value {value!r}", _choice(r))
    wrong = [i for i in found if len(r.old.nodes[i].shape) != 1]
    if wrong:
        r.refuse(f"{value} is no vector", "name a vector of the step")
    return found


def _candidates(r: Rewriter) -> dict[int, str]:
    """What is written into a state that is retained, with the name of the state."""
    uses = count_uses(r.old)
    found: dict[int, str] = {}
    unsure: list[str] = []
    for state, position in zip(r.old.states, r.old.next_states, strict=True):
        terms = sum_terms(r.old, position, uses)
        retained = [t for t in terms if any(_is_state(r, f, state) for f in _factors(r, t))]
        written = [t for t in terms if t not in retained and r.level[t] > PARAMETERS]
        if not retained:
            continue
        for term in written:
            factors = [f for f in _factors(r, term) if not _is_gate(r, f)]
            if len(factors) == 1 and not _holds(r, factors[0], state):
                found[factors[0]] = state
            elif len(_factors(r, term)) == 1:
                found[term] = state
            else:
                unsure.append(state)
    if unsure or not found:
        why = (
            f"what cell {r.cell.name} writes into its state {unsure[0]} is not a gate times one value"
            if unsure
            else f"no new state of cell {r.cell.name} is a sum with a multiple of its old value"
        )
        r.refuse(why, _choice(r))
    return found


def _choice(r: Rewriter) -> str:
    """What can be asked for instead: the values that the equations name."""
    values = dict.fromkeys(
        node.name
        for i, node in enumerate(r.old.nodes)
        if node.name and OPS[node.op].kind != "leaf" and len(node.shape) == 1 and r.level[i] > PARAMETERS
    )
    if not values:
        return "its equations name no value of the step: name one there, or take variational_dropout or zoneout"
    return f"pass value= one of {', '.join(values)}, the values that its equations name"


def _factors(r: Rewriter, position: int) -> list[int]:
    """The factors of a product of several."""
    node = r.old.nodes[position]
    return [f for a in node.args for f in _factors(r, a)] if node.op == "mul" else [position]


def _is_state(r: Rewriter, position: int, state: str) -> bool:
    node = r.old.nodes[position]
    return node.op == "state" and node.attr == state


def _is_gate(r: Rewriter, position: int) -> bool:
    """What says how much is written: a logistic function, a parameter or number, arithmetic of such (1 - z)."""
    node = r.old.nodes[position]
    if node.op in ARITHMETIC:
        return all(_is_gate(r, a) for a in node.args)
    return node.op == "sigmoid" or r.level[position] == PARAMETERS


def _holds(r: Rewriter, position: int, state: str) -> bool:
    """Whether arithmetic alone leads from the old state to a value, as in ``n - h``."""
    node = r.old.nodes[position]
    return _is_state(r, position, state) or (node.op in ARITHMETIC and any(_holds(r, a, state) for a in node.args))
