"""Normalisation inside the step: over a layer's units, or over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir import INPUT, OPS, STATE
from ..lang import Cell
from .rewrite import Rewriter, call, check_count, check_positive

PLACES = ("recurrent", "input", "state")

# (value, name of what it is made of, whether it is shifted as well) -> the value normalised
Normalise = Callable[[int, str, bool], int]


def layer_norm(cell: Cell, on: str | Sequence[str] = "recurrent", eps: float = 1e-5) -> Cell:
    """Layer normalisation inside the step (Ba et al. 2016).

    LN(a; g) = g ⊙ (a - mean(a)) / √(var(a) + eps), mean and variance over the elements of a: of one gate of one
    sequence at one step, so that nothing is shared between gates, sequences or steps.

    on = "recurrent": every product of a matrix with a value that depends on a state (U h, U (r ⊙ h), a projection
    W_p h) becomes LN(U h; g_U). The biases stay outside, where the cell has them; LN adds none, since it would be
    one more of the same.

    on = "input": every product of a matrix with a value of x alone, W x, becomes LN(W x; g_W), likewise.

    on = "state": where the step reads a new state on, it reads LN(c; g_c) + beta_c, while the state that is carried
    stays as it is: an LSTM has h = o ⊙ tanh(LN(c; g_c) + beta_c), as in the paper. In a cell with one state (GRU,
    Elman) the new state itself becomes LN(h; g_h) + beta_h, carried and put out. States that are a cell's bookkeeping
    (auxiliary: counters, normalisers) or delay lines stay as they are, and do not count here.

    All three, ``on=("input", "recurrent", "state")``, make the LSTM of the paper's supplement.

    In evaluation it is the same; nothing is drawn.

    Args:
        cell: any with such a value.
        on: one of the places, or several.
        eps: added to the variance.

    New parameters: gains ``g_U_i`` [size of the product], which start at 1, named after the product's matrix; ``g_c``,
    1, and ``beta_c``, 0, named after the state.

    Raises:
        CellError: the cell has no such product or state, or `on` is no place.

    >>> from ostinato import cells, transforms
    >>> normed = transforms.layer_norm(cells.lstm, on=("recurrent", "state"))
    >>> normed
    <cell layer_norm(lstm, on=('recurrent', 'state'))(x, h, c)>
    >>> [name for name in normed.program().params if name.startswith(("g_", "beta_"))]
    ['g_U_i', 'g_U_f', 'g_U_g', 'g_U_o', 'g_c', 'beta_c']
    """
    several = isinstance(on, Sequence) and not isinstance(on, str)  # pyright: ignore[reportUnnecessaryIsInstance]
    places = tuple(on) if several else (on,)
    shown = {} if places == ("recurrent",) else {"on": places[0] if len(places) == 1 else places}
    r = Rewriter(cell, call("layer_norm", cell, **shown))
    wrong = [place for place in places if place not in PLACES]
    if wrong or not places:
        got = f"on= names {wrong[0]!r}" if wrong else "on= names no place"
        r.refuse(got, f"choose of {', '.join(PLACES)}")
    eps = check_positive("eps of layer_norm", eps, "1e-5")
    b = r.b

    def normalise(value: int, name: str, shifted: bool) -> int:
        shape = b.nodes[value].shape
        count = b.raw("size", (), (), shape[0])
        centred = b.sub(value, b.div(b.total(value), count))
        variance = b.div(b.total(b.mul(centred, centred)), count)
        scaled = b.div(centred, b.op("sqrt", b.add(variance, b.const(eps))))
        gained = b.mul(r.param(f"g_{name}", shape, 1.0), scaled)
        return b.add(gained, r.param(f"beta_{name}", shape, 0.0)) if shifted else gained

    products: list[int] = []
    if "recurrent" in places:
        products += r.recurrent()
    if "input" in places:
        products += r.products(INPUT)
        if not r.products(INPUT):
            r.refuse(
                f"cell {cell.name} has no product of a matrix with x", "leave out on='input', or take another cell"
            )
    states: dict[int, int] = {}
    carried = True
    if "state" in places:
        states = _read_on(r)
        carried = bool(states) and not _one_state(r)
        states = states if carried else _one_state(r)
        if not states:
            other = [place for place, level in (("recurrent", STATE), ("input", INPUT)) if r.products(level)]
            r.refuse(
                f"on='state' normalises a new state where the step reads it on, and cell {cell.name} reads none on",
                f"choose {' or '.join(f'on={place!r}' for place in other) or 'another cell'}; if a transform changed "
                "the states, normalise before it, as in zoneout(layer_norm(cell, on='state'), 0.1)",
            )
    return _normalised(r, products, states, carried, normalise)


def batch_norm(cell: Cell, max_length: int, momentum: float = 0.1, eps: float = 1e-5) -> Cell:
    """Recurrent batch normalisation, with statistics for each time step (Cooijmans et al. 2017).

    BN(a; gamma) = gamma ⊙ (a - mean_B(a)) / √(var_B(a) + eps), mean and variance (the biased one) over the sequences of
    the batch that are running at the step. Every product U h becomes BN(U h; gamma_U) and every product W x becomes
    BN(W x; gamma_W), each with statistics of its own; the cell's biases stay outside. Where the step of a cell
    with several states reads a new state on, it reads BN(c; gamma_c) + beta_c: h = o ⊙ tanh(BN(c; gamma_c) + beta_c).
    The state that is carried stays as it is; so do auxiliary states (counters, normalisers).

    In training the statistics are those of the batch, and the layer keeps a running mean of each for each step t,
    running[t] = (1 - momentum) running[t] + momentum batch[t], from mean 0 and variance 1. In evaluation step t takes
    running[t]; a step past the longest sequence that was trained on takes the last statistics there are. Steps
    count from where a call begins (in the reverse direction from the sequence's end): give a sequence whole. `step`,
    `truncate` and stateful=True refuse a layer of such a cell, for each piece would be taken for the beginning. Nothing
    is drawn.

    A batch of one sequence has variance 0, and gives 0 for each normalised value; toward the end of ragged
    batches, where few sequences run, statistics are poor.

    Args:
        cell: one with a product of a matrix and a state.
        max_length: steps for which statistics are kept, T at most; a longer sequence in training is an error.
        momentum: the share of a new statistic in the running one, 0 < momentum <= 1.
        eps: added to the variance.

    New parameters: ``gamma_U_i`` [size of the product], which start at 0.1, as the paper has it, and ``gamma_c``, 0.1,
    with ``beta_c``, 0. New statistics: ``mean_U_i``, ``var_U_i``, ``mean_c``, ...

    Raises:
        CellError: the cell has no recurrent product; max_length, momentum or eps that are none.

    >>> from ostinato import cells, transforms
    >>> normed = transforms.batch_norm(cells.elman, max_length=100)
    >>> print(normed.program().statistics[0])
    Statistic(name='mean_W', momentum=0.1, length=100, start=0.0)
    """
    r = Rewriter(cell, call("batch_norm", cell, max_length))
    check_count("max_length of batch_norm", max_length, 1, "batch_norm(lstm, max_length=784)")
    eps = check_positive("eps of batch_norm", eps, "1e-5")
    momentum = check_positive("momentum of batch_norm", momentum, "0.1")
    if momentum > 1:
        r.refuse(f"momentum is {momentum}", "give a share of at most 1, as 0.1")
    b = r.b

    def normalise(value: int, name: str, shifted: bool) -> int:
        shape = b.nodes[value].shape
        centred = b.sub(value, r.statistic(f"mean_{name}", value, momentum, max_length, 0.0))
        variance = r.statistic(f"var_{name}", b.mul(centred, centred), momentum, max_length, 1.0)
        # all of the gain is the same for every sequence: a kernel computes it once for the step
        gain = b.mul(r.param(f"gamma_{name}", shape, 0.1), b.pow(b.add(variance, b.const(eps)), -0.5))
        gained = b.mul(gain, centred)
        return b.add(gained, r.param(f"beta_{name}", shape, 0.0)) if shifted else gained

    products = r.recurrent() + r.products(INPUT)
    return _normalised(r, products, {} if _one_state(r) else _read_on(r), True, normalise)


def _normalised(r: Rewriter, products: list[int], states: dict[int, int], carried: bool, normalise: Normalise) -> Cell:
    """Copy, with these products and new states normalised; `carried`: the states carried stay as they are."""
    chosen = set(products)
    names = {position: r.old.states[k] for k, position in states.items()}
    plain: dict[int, int] = {}

    def change(i: int, new: int) -> int:
        if i in chosen:
            new = normalise(new, r.matrix(i), False)
        if i in names:
            plain[i] = new
            new = normalise(new, names[i], True)
        return new

    r.copy(change)
    if carried:
        for k, position in enumerate(r.old.next_states):
            r.next_states[k] = plain.get(position, r.next_states[k])
    return r.finish()


def _computed(r: Rewriter) -> dict[int, int]:
    """The position of each new activation that is computed, by the state's number."""
    found = {k: r.old.next_states[k] for k in r.activations()}
    return {k: i for k, i in found.items() if OPS[r.old.nodes[i].op].kind != "leaf"}


def _one_state(r: Rewriter) -> dict[int, int]:
    """The new state of a cell that computes one."""
    found = _computed(r)
    return found if len(found) == 1 else {}


def _read_on(r: Rewriter) -> dict[int, int]:
    """The new states that the same step reads, as an LSTM's memory."""
    operands = {a for node in r.old.nodes for a in node.args}
    return {k: i for k, i in _computed(r).items() if i in operands and r.level[i] == STATE}
