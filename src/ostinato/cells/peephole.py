"""The long short-term memories whose gates see the memory, and the ablations of "LSTM: A Search Space Odyssey"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lang import cell, sigmoid, tanh
from .choices import FORGET_BIAS, activation, check_gates, choose, forget_rules, switch
from .presets import preset

__all__ = [
    "full_peephole_lstm",
    "goodfellow_peephole_lstm",
    "lstm_cifg",
    "lstm_fgr",
    "lstm_nfg",
    "lstm_niaf",
    "lstm_nig",
    "lstm_noaf",
    "lstm_nog",
    "peephole_cifg",
    "peephole_lstm",
]


def _sizes(options: Mapping[str, Any]) -> dict[str, str]:
    return {"h": "P"} if switch("peephole_lstm", "projection", options["projection"]) else {}


def _init(options: Mapping[str, Any]) -> dict[str, float | str]:
    gates = options["input_gate"], options["forget_gate"]
    check_gates("peephole_lstm", *gates, options["output_gate"])
    choose("peephole_lstm", "peepholes", options["peepholes"], ("diagonal", "full"))
    for option in ("input_activation", "output_activation"):
        activation("peephole_lstm", option, options[option])
    return forget_rules("peephole_lstm", options["forget_bias"], *gates)


@cell(sizes=_sizes, init=_init)
def peephole_lstm(
    p: Any,
    x: Any,
    h: Any,
    c: Any,
    *,
    peepholes: str = "diagonal",
    input_gate: bool | str = True,
    forget_gate: bool | str = True,
    output_gate: bool = True,
    forget_bias: float | str = FORGET_BIAS,
    input_activation: str = "tanh",
    output_activation: str = "tanh",
    projection: bool = False,
) -> Any:
    """LSTM whose gates see the memory through diagonal weights (Gers et al. 2002).

        i = sigmoid(W_i x + U_i h + p_i * c + b_i)
        f = sigmoid(W_f x + U_f h + p_f * c + b_f)
        g = tanh(W_g x + U_g h + b_g)
        c' = f * c + i * g
        o = sigmoid(W_o x + U_o h + p_o * c' + b_o)
        h' = o * tanh(c')

    The input and forget gates see the old memory, the output gate the new one. The "vanilla LSTM" of Greff et al.
    (2017). Not `lstm`, whose gates see h alone.

    Args:
        x: [D]; h: [H], the output; c: [H], the memory. W_*: [H, D], U_*: [H, H], p_*, b_*: [H].
        peepholes: "diagonal", or "full": matrices, V_i @ c in the place of p_i * c, each [H, H].
        input_gate, forget_gate, output_gate, forget_bias, input_activation, output_activation, projection: as in
            `lstm`.

    Raises:
        CellError: an option is none of these.

    >>> from ostinato import cells
    >>> sorted(cells.peephole_lstm(forget_gate=False).program().params)[-2:]
    ['p_i', 'p_o']
    """
    check_gates("peephole_lstm", input_gate, forget_gate, output_gate)
    squash = activation("peephole_lstm", "input_activation", input_activation)
    show = activation("peephole_lstm", "output_activation", output_activation)
    full = choose("peephole_lstm", "peepholes", peepholes, ("diagonal", "full")) == "full"

    def peep(gate: str, c: Any) -> Any:
        return p["V_" + gate] @ c if full else p["p_" + gate] * c

    i = sigmoid(p.W_i @ x + p.U_i @ h + peep("i", c) + p.b_i) if input_gate is True else 1
    f = sigmoid(p.W_f @ x + p.U_f @ h + peep("f", c) + p.b_f) if forget_gate is True else 1
    if input_gate == "coupled":
        i = 1 - f
    if forget_gate == "coupled":
        f = 1 - i
    g = squash(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    o = sigmoid(p.W_o @ x + p.U_o @ h + peep("o", c) + p.b_o) if output_gate else 1
    h = p.W_p @ (o * show(c)) if projection else o * show(c)
    return h, c


full_peephole_lstm = preset(
    peephole_lstm,
    "full_peephole_lstm",
    """LSTM whose gates see all of the memory through full matrices (after Gers et al. 2002).

        i = sigmoid(W_i x + U_i h + V_i c + b_i)
        f = sigmoid(W_f x + U_f h + V_f c + b_f)
        o = sigmoid(W_o x + U_o h + V_o c' + b_o)

    x: [D]; h, c: [H]; V_*: [H, H]. What is meant where gates are written as W [c, h, x]. Not `peephole_lstm`, whose
    peepholes are diagonal, as in the paper: V_o c' is a second recurrent product in the step.
    """,
    peepholes="full",
)

peephole_cifg = preset(
    peephole_lstm,
    "peephole_cifg",
    """LSTM with coupled gates that see the memory (after Greff et al. 2017).

        f = sigmoid(W_f x + U_f h + p_f * c + b_f)
        i = 1 - f

    x: [D]; h, c: [H]. Not `cifg`, whose gates see h alone, nor `lstm_cifg`, the paper's, which has the weights of the
    input gate, f = 1 - i. b_f starts from 1. peepholes="full" for matrices.
    """,
    input_gate="coupled",
)

goodfellow_peephole_lstm = preset(
    peephole_lstm,
    "goodfellow_peephole_lstm",
    """LSTM block of the book "Deep Learning" whose gates see the state (Goodfellow et al. 2016).

        f = sigmoid(W_f x + U_f h + p_f * c + b_f)
        i = sigmoid(W_i x + U_i h + p_i * c + b_i)       the external input gate
        g = sigmoid(W_g x + U_g h + b_g)                 the input unit
        c' = f * c + i * g                               the state unit, s in the book

    x: [D]; h, c: [H]. The dashed lines of figure 10.16: three more weights for each unit. Without them it is
    `goodfellow_lstm`; with input_activation="tanh" it is `peephole_lstm`.
    """,
    input_activation="sigmoid",
)

lstm_nig = preset(
    peephole_lstm,
    "lstm_nig",
    """LSTM with peepholes and no input gate, NIG (Greff et al. 2017).

        i = 1

    x: [D]; h, c: [H]. `peephole_lstm` with i = 1. Not `lstm_i`, which has no peepholes.
    """,
    input_gate=False,
)

lstm_nfg = preset(
    peephole_lstm,
    "lstm_nfg",
    """LSTM with peepholes and no forget gate, NFG (Greff et al. 2017).

        f = 1

    x: [D]; h, c: [H]. `peephole_lstm` with f = 1. Not `lstm_1997` and `lstm_f`, which have no peepholes.
    """,
    forget_gate=False,
)

lstm_nog = preset(
    peephole_lstm,
    "lstm_nog",
    """LSTM with peepholes and no output gate, NOG (Greff et al. 2017).

        o = 1

    x: [D]; h, c: [H]. `peephole_lstm` with o = 1. Not `lstm_o`, which has no peepholes.
    """,
    output_gate=False,
)

lstm_niaf = preset(
    peephole_lstm,
    "lstm_niaf",
    """LSTM with peepholes and no input activation function, NIAF (Greff et al. 2017).

        g = W_g x + U_g h + b_g

    x: [D]; h, c: [H]. Not `lstm_noaf`, which has no output activation function.
    """,
    input_activation="identity",
)

lstm_noaf = preset(
    peephole_lstm,
    "lstm_noaf",
    """LSTM with peepholes and no output activation function, NOAF (Greff et al. 2017).

        h' = o * c'

    x: [D]; h, c: [H]. Not `lstm_niaf`, which has no input activation function.
    """,
    output_activation="identity",
)

lstm_cifg = preset(
    peephole_lstm,
    "lstm_cifg",
    """LSTM with peepholes and coupled input and forget gates, CIFG (Greff et al. 2017).

        f = 1 - i

    x: [D]; h, c: [H]. `peephole_cifg` is the same with the weights' signs turned, i = 1 - f; `cifg` has no peepholes.
    b_i starts from -1, so that the memory keeps what it has.
    """,
    forget_gate="coupled",
)


@cell(init={"b_f": 1.0})
def lstm_fgr(p: Any, x: Any, h: Any, c: Any, i: Any, f: Any, o: Any) -> Any:
    """LSTM with peepholes and full gate recurrence: each gate sees all gates of the step before (Greff et al. 2017).

        i' = sigmoid(W_i x + U_i h + p_i * c + R_ii i + R_fi f + R_oi o + b_i)
        f' = sigmoid(W_f x + U_f h + p_f * c + R_if i + R_ff f + R_of o + b_f)
        g = tanh(W_g x + U_g h + b_g)
        c' = f' * c + i' * g
        o' = sigmoid(W_o x + U_o h + p_o * c' + R_io i + R_fo f + R_oo o + b_o)
        h' = o' * tanh(c')

    x: [D]; h, c, i, f, o: [H], of which h is the output; R_*: [H, H], from the first letter's gate to the second's.
    The gates are states, and start from 0. Not `full_peephole_lstm`, where the gates see all of the memory.
    """
    i_old, f_old, o_old = i, f, o
    i = sigmoid(p.W_i @ x + p.U_i @ h + p.p_i * c + p.R_ii @ i_old + p.R_fi @ f_old + p.R_oi @ o_old + p.b_i)
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.p_f * c + p.R_if @ i_old + p.R_ff @ f_old + p.R_of @ o_old + p.b_f)
    g = tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.p_o * c + p.R_io @ i_old + p.R_fo @ f_old + p.R_oo @ o_old + p.b_o)
    h = o * tanh(c)
    return h, c, i, f, o
