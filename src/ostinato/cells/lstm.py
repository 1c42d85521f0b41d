"""The long short-term memory family: `lstm` with its options, and the names the literature has for them.

Those whose gates see the memory are in `peephole`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lang import cell, sigmoid
from .choices import FORGET_BIAS, activation, check_gates, forget_rules, switch
from .presets import preset

__all__ = [
    "cifg",
    "goodfellow_lstm",
    "lstm",
    "lstm_1997",
    "lstm_b",
    "lstm_f",
    "lstm_i",
    "lstm_np",
    "lstm_o",
    "projected_lstm",
    "squashed_lstm",
]


def _sizes(options: Mapping[str, Any]) -> dict[str, str]:
    return {"h": "P"} if switch("lstm", "projection", options["projection"]) else {}


def _init(options: Mapping[str, Any]) -> dict[str, float | str]:
    gates = options["input_gate"], options["forget_gate"]
    check_gates("lstm", *gates, options["output_gate"])
    for option in ("input_activation", "memory_activation", "output_activation"):
        activation("lstm", option, options[option])
    return forget_rules("lstm", options["forget_bias"], *gates)


@cell(sizes=_sizes, init=_init)
def lstm(
    p: Any,
    x: Any,
    h: Any,
    c: Any,
    *,
    input_gate: bool | str = True,
    forget_gate: bool | str = True,
    output_gate: bool = True,
    forget_bias: float | str = FORGET_BIAS,
    input_activation: str = "tanh",
    memory_activation: str = "identity",
    output_activation: str = "tanh",
    projection: bool = False,
) -> Any:
    """Long short-term memory with a forget gate, the same as torch.nn.LSTM (Gers et al. 2000).

        i = sigmoid(W_i x + U_i h + b_i)
        f = sigmoid(W_f x + U_f h + b_f)
        g = tanh(W_g x + U_g h + b_g)
        o = sigmoid(W_o x + U_o h + b_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    Not the block of Hochreiter & Schmidhuber (1997), which had no forget gate: that is `lstm_1997`. Not
    `peephole_lstm`, whose gates see the memory.

    Args:
        x: [D]; h: [H], the output; c: [H], the memory. W_*: [H, D], U_*: [H, H], b_*: [H].
        input_gate: True; False: the gate is 1 and its parameters are gone; "coupled": one minus the forget gate, so
            that what is written replaces what is forgotten.
        forget_gate: True; False: the gate is 1 and its parameters are gone; "coupled": one minus the input gate.
        output_gate: True, or False: the gate is 1.
        forget_bias: what b_f starts from, 1, so that the memory keeps what it has (Jozefowicz et al. 2015); or a rule
            such as "chrono(100)", which also sets b_i. With forget_gate="coupled" b_i starts from its negative.
        input_activation: in the place of tanh in g: "tanh", "sigmoid", "relu", "identity", "logistic(-1, 1)" or
            "logistic(-2, 2)", the logistic function over this range.
        memory_activation: one of these around all of c'.
        output_activation: one of these in the place of tanh in h'.
        projection: h' = W_p (o * tanh(c')) of size P, as in `projected_lstm`.

    Raises:
        CellError: an option is none of these.

    >>> from ostinato import cells
    >>> cells.lstm(output_gate=False, output_activation="identity").program().params["b_g"]
    ('H',)
    """
    check_gates("lstm", input_gate, forget_gate, output_gate)
    squash = activation("lstm", "input_activation", input_activation)
    hold = activation("lstm", "memory_activation", memory_activation)
    show = activation("lstm", "output_activation", output_activation)

    i = sigmoid(p.W_i @ x + p.U_i @ h + p.b_i) if input_gate is True else 1
    f = sigmoid(p.W_f @ x + p.U_f @ h + p.b_f) if forget_gate is True else 1
    if input_gate == "coupled":
        i = 1 - f
    if forget_gate == "coupled":
        f = 1 - i
    g = squash(p.W_g @ x + p.U_g @ h + p.b_g)
    o = sigmoid(p.W_o @ x + p.U_o @ h + p.b_o) if output_gate else 1
    c = hold(f * c + i * g)
    h = p.W_p @ (o * show(c)) if projection else o * show(c)
    return h, c


projected_lstm = preset(
    lstm,
    "projected_lstm",
    """Long short-term memory whose output is projected to P values, torch's proj_size (Sak et al. 2014).

        h' = W_p (o * tanh(c'))

    x: [D]; h: [P]; c: [H]. W_*: [H, D], U_*: [H, P], b_*: [H], W_p: [P, H]. The paper's block also has peepholes:
    that is `peephole_lstm(projection=True)`.
    """,
    projection=True,
)

lstm_1997 = preset(
    lstm,
    "lstm_1997",
    """Long short-term memory as it was first, without a forget gate (Hochreiter & Schmidhuber 1997).

        f = 1

    x: [D]; h, c: [H]. Not `lstm`, which can forget, nor `lstm_nfg`, which has peepholes. The paper squashes by
    4 sigmoid(a) - 2 and 2 sigmoid(a) - 1 where tanh stands: input_activation="logistic(-2, 2)",
    output_activation="logistic(-1, 1)". It also cuts the gradient short, which is not done here.
    """,
    forget_gate=False,
)

cifg = preset(
    lstm,
    "cifg",
    """LSTM with coupled gates: what is forgotten makes room for what is written (Greff et al. 2017).

        f = sigmoid(W_f x + U_f h + b_f)
        i = 1 - f

    x: [D]; h, c: [H]. The gates do not see the memory: `peephole_cifg` is where they do, and `lstm_cifg` is the
    paper's own, which has the input gate's weights, f = 1 - i. b_f starts from 1.
    """,
    input_gate="coupled",
)

squashed_lstm = preset(
    lstm,
    "squashed_lstm",
    """LSTM with a squashed memory, as some lectures print the block (after Gers et al. 2000).

        c' = sigmoid(f * c + i * g)

    x: [D]; h, c: [H]. Not `lstm`: the sigmoid around the memory lets its gradient vanish, which the block was made
    to prevent, and no memory is negative.
    """,
    memory_activation="sigmoid",
)

goodfellow_lstm = preset(
    lstm,
    "goodfellow_lstm",
    """LSTM block of the book "Deep Learning", with a sigmoid input unit (Goodfellow et al. 2016).

        f = sigmoid(W_f x + U_f h + b_f)
        i = sigmoid(W_i x + U_i h + b_i)                 the external input gate
        g = sigmoid(W_g x + U_g h + b_g)                 the input unit
        c' = f * c + i * g                               the state unit, s in the book

    x: [D]; h, c: [H]. The figure (10.16) allows any squashing function in the input unit: input_activation="tanh"
    makes it `lstm`. Where the gates see the state it is `goodfellow_peephole_lstm`.
    """,
    input_activation="sigmoid",
)

lstm_i = preset(
    lstm,
    "lstm_i",
    """LSTM without an input gate, LSTM-i (Jozefowicz et al. 2015).

        i = 1

    x: [D]; h, c: [H]. Not `lstm_nig`, which has peepholes. b_f starts from 0, as in the paper, where only LSTM-b
    starts from 1.
    """,
    input_gate=False,
    forget_bias=0.0,
)

lstm_f = preset(
    lstm,
    "lstm_f",
    """LSTM without a forget gate, LSTM-f (Jozefowicz et al. 2015).

        f = 1

    x: [D]; h, c: [H]. The equations of `lstm_1997`. Not `lstm_nfg`, which has peepholes.
    """,
    forget_gate=False,
)

lstm_o = preset(
    lstm,
    "lstm_o",
    """LSTM without an output gate, LSTM-o (Jozefowicz et al. 2015).

        o = 1

    x: [D]; h, c: [H]. Not `lstm_nog`, which has peepholes. b_f starts from 0, as in the paper.
    """,
    output_gate=False,
    forget_bias=0.0,
)

lstm_b = preset(
    lstm,
    "lstm_b",
    """LSTM whose forget gate's bias starts from 1, LSTM-b (Jozefowicz et al. 2015).

    x: [D]; h, c: [H]. The same as `lstm`, whose forget_bias is 1 too.
    """,
)

lstm_np = preset(
    lstm,
    "lstm_np",
    """LSTM without peepholes, NP (Greff et al. 2017).

    x: [D]; h, c: [H]. The same as `lstm`; the paper's "vanilla LSTM" is `peephole_lstm`.
    """,
)
