"""A call like the last one, as a step of a stream is, checks little; whatever else changes is seen all the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ostinato
from laws import BACKENDS, EVERY
from measured import build, flat, inputs, numbers, states_for
from ostinato import RNN, BackendError, ShapeError
from tolerances import assert_agree

DOUBLE = torch.float64
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Seen(TorchDispatchMode):
    """Counts the operations that are dispatched."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def streaming(backend: str, cell: Any = ostinato.cells.lstm, **options: Any) -> tuple[Any, Tensor, Any]:
    """A layer behind some steps without gradients, the next x and the state."""
    layer = build(cell, 4, 4, backend, **options)
    state = states_for(layer, 1, DOUBLE)
    state = state[0] if len(state) == 1 else tuple(state)
    x = inputs(1, 1, 4, DOUBLE)
    with torch.no_grad():
        for _ in range(3):
            _, state = layer(x, state)
    return layer, x, state


def fresh(layer: RNN) -> RNN:
    """The same layer before its first call."""
    return copy.deepcopy(layer)


def said(call: Callable[[], Any]) -> str:
    with pytest.raises((ShapeError, BackendError, RuntimeError, TypeError)) as caught:
        call()
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", EVERY)
def test_steps_of_a_stream_are_the_sequence(cell: Any, backend: str) -> None:
    """Without gradients, in evaluation, for every cell, by both calls; what was returned before stays what it was."""
    layer = build(cell, 3, 4, backend).eval()
    x = inputs(5, 2, 3, DOUBLE)
    with torch.inference_mode():
        meant, ended = layer(x)
        _, state = layer(x[:1])
        other = state
        outputs, kept = [meant[:1]], [meant[0]]
        for t in range(1, 5):
            output, state = layer(x[t : t + 1], state)
            one, other = layer.step(x[t], other)
            outputs.append(output)
            kept.append(one)
    found = {"output": torch.cat(outputs), **{f"state {k}": s for k, s in enumerate(flat(state))}}
    by_hand = {"output": torch.stack(kept), **{f"state {k}": s for k, s in enumerate(flat(other))}}
    wanted = {"output": meant, **{f"state {k}": s for k, s in enumerate(flat(ended))}}
    assert_agree(found, wanted, DOUBLE)
    assert_agree(by_hand, wanted, DOUBLE)


def moved(layer: Any) -> None:
    layer.W_i_l0.data = layer.W_i_l0.data * 0.5


def turned(layer: Any) -> None:
    layer.U_o_l0.data = layer.U_o_l0.data.t()


def replaced(layer: Any) -> None:
    layer.U_f_l0 = nn.Parameter(numbers("other", 4, 4))


def in_place(layer: Any) -> None:
    with torch.no_grad():
        layer.b_g_l0.add_(1.0)


def negated(layer: Any) -> None:
    z = numbers("imaginary", 4)
    layer.b_o_l0 = nn.Parameter(torch.complex(z, z).conj().imag)


def parametrized(layer: RNN) -> None:
    nn.utils.parametrizations.orthogonal(layer, "U_g_l0")


def with_kept_states(layer: RNN) -> None:
    layer.stateful = True


def training(layer: RNN) -> None:
    layer.train()


def on_another_backend(layer: RNN) -> None:
    layer.backend = "eager"


CHANGES = [moved, turned, replaced, in_place, negated, parametrized, with_kept_states, training, on_another_backend]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_stream_sees_a_change_of_its_layer(change: Callable[[RNN], None], backend: str) -> None:
    layer, x, state = streaming(backend)
    layer.eval()
    with torch.no_grad():
        before, _ = layer(x, state)
        change(layer)
        for _ in range(2):
            output, final = layer(x, state)
            meant, ended = fresh(layer)(x, state)
            assert torch.equal(output, meant)
            assert all(map(torch.equal, final, ended))
    if change in CHANGES[:6]:
        assert not torch.equal(output, before)


def derivative(layer: RNN, x: Tensor, state: Any) -> Any:
    with torch.enable_grad():
        return torch.autograd.grad(layer(x, state)[0].sum(), list(layer.parameters()))


def unlike(x: Tensor, state: Sequence[Tensor]) -> dict[str, Callable[[Any], Any]]:
    """Calls that are unlike the one before."""
    h, c = state
    graph: Any = make_fx
    trace: Any = torch.jit.trace
    minus = torch.complex(h, h).conj().imag
    return {
        "batch": lambda layer: layer(x.expand(1, 3, 4), tuple(s.expand(1, 3, 4) for s in state)),
        "steps": lambda layer: layer(x.expand(6, 1, 4), state),
        "lengths": lambda layer: layer(x.expand(6, 1, 4), state, [2]),
        "one sequence": lambda layer: layer(x[:, 0], [s[:, 0] for s in state]),
        "a list": lambda layer: layer(x, list(state)),
        "no state": lambda layer: layer(x),
        "negation": lambda layer: layer(-x, (minus, c)),
        "stride": lambda layer: layer(x, (h, torch.stack((c, h), -1)[..., 0])),
        "all states": lambda layer: layer(x, state, return_states=True)[2],
        "the last": lambda layer: layer(x, state, return_sequences=False),
        "gradients": lambda layer: torch.func.grad(lambda v: layer(v, state)[0].sum())(x),
        "backward": lambda layer: derivative(layer, x, state),
        "vmap": lambda layer: torch.vmap(lambda v: layer(v, state)[0])(torch.stack((x, 2 * x))),
        "vmap over weights": lambda layer: torch.vmap(
            lambda w: torch.func.functional_call(layer, {"W_i_l0": w}, (x, tuple(state)))[0]
        )(torch.stack((layer.W_i_l0, 2 * layer.W_i_l0))),
        "derivative": lambda layer: torch.func.jvp(lambda v: layer(v, state)[0], (x,), (x,)),
        "trace": lambda layer: trace(layer, (x, tuple(state)))(2 * x, tuple(state)),
        "graph": lambda layer: graph(lambda v: layer(v, state)[0])(x)(2 * x),
        "compiled": lambda layer: torch.compile(layer, backend="aot_eager", fullgraph=True)(x, state),
        "autocast": lambda layer: torch.autocast("cpu", dtype=torch.bfloat16)(lambda: layer(x, state))(),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_sees_another_call(backend: str) -> None:
    layer, x, state = streaming(backend)
    for name, call in unlike(x, state).items():
        with torch.no_grad():
            layer(x, state)
            for ours, meant in zip(tree_leaves(call(layer)), tree_leaves(call(fresh(layer))), strict=True):
                torch.testing.assert_close(ours, meant, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_stream_refuses_what_any_call_refuses(backend: str) -> None:
    layer, x, state = streaming(backend)
    h, c = state
    wrong: list[Callable[[Any], Any]] = [
        lambda layer: layer(x[..., :3], state),
        lambda layer: layer(x.float(), state),
        lambda layer: layer(x.to_sparse(), state),
        lambda layer: layer(torch.nested.as_nested_tensor(list(x)), state),
        lambda layer: layer(x.numpy(), state),
        lambda layer: layer(x, h),
        lambda layer: layer(x, (h, c, c)),
        lambda layer: layer(x, (h, c[..., :3])),
        lambda layer: layer(x, (h, c.float())),
        lambda layer: layer(x, (h, c.to_sparse())),
        lambda layer: layer(x, (h, c.numpy())),
        lambda layer: layer(x, (h, None)),
        lambda layer: layer(x, 3),
        lambda layer: layer(x, {"h": h, "c": c}),
        lambda layer: layer(x, state, generator=3),
        lambda layer: layer(x, state, detach=3),
        lambda layer: layer(x, state, return_sequences=1),
    ]
    with torch.no_grad():
        for call in wrong:
            layer(x, state)
            assert said(lambda call=call: call(layer)) == said(lambda call=call: call(fresh(layer)))
        layer.U_i_l0.data = torch.zeros(3, 4, dtype=DOUBLE)
        assert "parameter U_i" in said(lambda: layer(x, state))
        layer.U_i_l0.data = torch.zeros(4, 4)
        assert "parameter U_i" in said(lambda: layer(x, state))


@pytest.mark.parametrize("backend", BACKENDS)
def test_modes_see_the_operations_of_a_stream(backend: str) -> None:
    layer, x, state = streaming(backend)
    with torch.no_grad(), Seen() as seen:
        layer(x, state)
    assert seen.count


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_masks_are_drawn_for_each_step_of_a_stream(backend: str) -> None:
    layer, x, state = streaming(backend, ostinato.transforms.recurrent_dropout(ostinato.cells.lstm, 0.5))
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = [layer(x, state)[0] for _ in range(8)]
    assert len({tuple(o.flatten().tolist()) for o in outputs}) > 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "options", [{"lookahead": 1}, {"batch_first": True}, {"bidirectional": True}, {"num_layers": 2}]
)
def test_other_layers_have_the_numbers_of_a_first_call(options: dict[str, Any], backend: str) -> None:
    """x is extended by what a layer looks ahead: there is a call with an x as long as the one that was extended."""
    layer = build(ostinato.cells.gru, 4, 4, backend, **options)
    _, state = layer(inputs(1, 1, 4, DOUBLE))
    with torch.no_grad():
        for steps in (1, 2, 1):
            x = inputs(1, steps, 4, DOUBLE) if options.get("batch_first") else inputs(steps, 1, 4, DOUBLE)
            layer(x, state)
            assert torch.equal(layer(2 * x, state)[0], fresh(layer)(2 * x, state)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rows_of_a_packed_sequence_are_no_steps(backend: str) -> None:
    """[N, D] is one sequence without a batch in the next call, which a state of several does not fit."""
    layer, x, _ = streaming(backend)
    state = states_for(layer, 3, DOUBLE)
    packed = pack_padded_sequence(x.expand(2, 3, 4), torch.tensor([2, 2, 1]))
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(layer(packed, state)[0].data, fresh(layer)(packed, state)[0].data)
        assert "state h" in said(lambda: layer(packed.data, state))
