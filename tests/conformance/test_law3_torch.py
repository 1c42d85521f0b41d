"""Law 3: LSTM, GRU and Elman are torch.nn's LSTM, GRU and RNN, the weights carried over both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ostinato
from laws import BACKENDS
from measured import fill, inputs, numbers
from tolerances import assert_agree

KINDS: list[tuple[str, type[nn.Module], type[nn.Module], dict[str, Any]]] = [
    ("lstm", ostinato.LSTM, nn.LSTM, {}),
    ("lstm-projected", ostinato.LSTM, nn.LSTM, {"proj_size": 3}),
    ("gru", ostinato.GRU, nn.GRU, {}),
    ("elman", ostinato.Elman, nn.RNN, {}),
    ("elman-relu", ostinato.Elman, nn.RNN, {"nonlinearity": "relu"}),
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
    {"bias": False, "bidirectional": True, "num_layers": 2},
]
GATES = {ostinato.LSTM: ("_i", "_f", "_g", "_o"), ostinato.GRU: ("_r", "_z", "_n"), ostinato.Elman: ("",)}


def packed(layer: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors stacked and named as torch.nn does; its second bias is zero but for GRU's candidate."""
    found: dict[str, Tensor] = {}
    gates = GATES[type(layer)]
    for index in range(layer.num_layers):
        for suffix in [f"_l{index}", f"_l{index}_reverse"][: layer.num_directions]:
            for theirs, ours in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
                if f"{ours}{gates[0]}{suffix}" in values:
                    found[theirs + suffix] = torch.cat([values[ours + gate + suffix] for gate in gates])
            if f"bias_ih{suffix}" in found:
                found[f"bias_hh{suffix}"] = torch.zeros_like(found[f"bias_ih{suffix}"])
                if f"b_hn{suffix}" in values:
                    found[f"bias_hh{suffix}"][-layer.hidden_size :] = values[f"b_hn{suffix}"]
            if f"W_p{suffix}" in values:
                found[f"weight_hr{suffix}"] = values[f"W_p{suffix}"]
    return found


def flat(state: Any) -> tuple[Tensor, ...]:
    """The states as a tuple, one or several."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def run(module: Any, x: Any, state: Any) -> dict[str, Tensor | None]:
    """Values and gradients by torch.nn's names."""
    x = x.detach().requires_grad_()
    state = None if state is None else tuple(s.detach().requires_grad_() for s in flat(state))
    output, final = module(x, state[0] if state is not None and len(state) == 1 else state)
    found: dict[str, Tensor | None] = {"output": output}
    found.update({f"state {k}": s for k, s in enumerate(flat(final))})
    loss = sum((v * numbers(f"loss {n}", *v.shape, dtype=v.dtype)).sum() for n, v in found.items() if v is not None)
    module.zero_grad()
    loss.backward()  # type: ignore[union-attr]
    found["grad x"] = x.grad
    found.update({f"grad state {k}": s.grad for k, s in enumerate(state or ())})
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    if isinstance(module, ostinato.RNN):
        gradients = packed(module, gradients)
    # where we keep one bias, torch.nn keeps two of equal gradient
    found.update({f"grad {n}": g for n, g in gradients.items() if not n.startswith("bias_hh")})
    return {n: None if v is None else v.detach() for n, v in found.items()}


def states(kind: dict[str, Any], settings: dict[str, Any], module: Any, batch: int) -> Any:
    """States in torch.nn's shapes."""
    count = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    widths = [kind.get("proj_size") or module.hidden_size] + [module.hidden_size] * isinstance(module, nn.LSTM)
    found = tuple(numbers(f"s{k}", count, batch, w) for k, w in enumerate(widths))
    return found[0] if len(found) == 1 else found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("name", "ours", "theirs", "kind"), KINDS, ids=[k[0] for k in KINDS])
def test_weights_of_torch_give_torch_numbers(
    name: str,
    ours: Any,
    theirs: Any,
    kind: dict[str, Any],
    settings: dict[str, Any],
    dtype: torch.dtype,
    backend: str,
) -> None:
    """torch.nn -> Ostinato: load_state_dict, then the same outputs, states and gradients."""
    module = fill(theirs(6, 7, dtype=dtype, **settings, **kind))
    layer = ours(6, 7, dtype=dtype, backend=backend, **settings, **kind)
    assert layer.load_state_dict(module.state_dict()).missing_keys == []
    meant = theirs(6, 7, dtype=torch.float64, **settings, **kind)
    meant.load_state_dict({n: v.double() for n, v in module.state_dict().items()})
    x = inputs(5, 4, 6, dtype)
    for state in (None, states(kind, settings, meant, 5 if settings.get("batch_first") else 4)):
        narrow = None if state is None else tuple(s.to(dtype) for s in flat(state))
        assert_agree(run(layer, x, narrow), run(meant, x.double(), state), dtype)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("name", "ours", "theirs", "kind"), KINDS, ids=[k[0] for k in KINDS])
def test_our_weights_give_torch_the_same_numbers(
    name: str, ours: Any, theirs: Any, kind: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Ostinato -> torch.nn: stack the gates as torch.nn does, and it gives the same numbers."""
    layer = fill(ours(6, 7, dtype=torch.float64, **settings, **kind))
    module = theirs(6, 7, dtype=torch.float64, **settings, **kind)
    weights = packed(layer, {n: p.detach() for n, p in layer.named_parameters()})
    module.load_state_dict(weights)
    x = inputs(5, 4, 6, torch.float64)
    assert_agree(run(layer, x, None), run(module, x, None), torch.float64)
    again = ours(6, 7, dtype=torch.float64, **settings, **kind)
    again.load_state_dict(module.state_dict())
    for name_, value in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name_], value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch_first", [False, True], ids=["TBD", "BTD"])
@pytest.mark.parametrize(("name", "ours", "theirs", "kind"), KINDS, ids=[k[0] for k in KINDS])
def test_packed_sequences(
    name: str, ours: Any, theirs: Any, kind: dict[str, Any], batch_first: bool, backend: str
) -> None:
    """A PackedSequence goes in and comes out, sorted or not, as torch.nn does it."""
    module = fill(theirs(6, 7, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64, **kind))
    layer = ours(6, 7, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64, backend=backend, **kind)
    layer.load_state_dict(module.state_dict())
    x = numbers("packed", 4, 5, 6) if batch_first else numbers("packed", 5, 4, 6)
    for lengths in ([2, 5, 1, 4], [5, 3, 3, 1], [5, 5, 5, 5]):
        value = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
        (ours_out, ours_state), (out, state) = layer(value), module(value)
        assert torch.equal(ours_out.batch_sizes, out.batch_sizes)
        assert_agree({"output": ours_out.data}, {"output": out.data}, torch.float64)
        for ours_one, one in zip(flat(ours_state), flat(state), strict=True):
            assert_agree({"state": ours_one}, {"state": one}, torch.float64)
        assert torch.equal(ours_out.sorted_indices, out.sorted_indices)
        assert torch.equal(ours_out.unsorted_indices, out.unsorted_indices)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "ours", "theirs", "kind"), KINDS, ids=[k[0] for k in KINDS])
def test_one_sequence_without_batch(name: str, ours: Any, theirs: Any, kind: dict[str, Any], backend: str) -> None:
    """x [T, D] gives output [T, H] and states [num_layers * num_directions, H], as torch.nn does."""
    module = fill(theirs(6, 7, 2, bidirectional=True, dtype=torch.float64, **kind))
    layer = ours(6, 7, 2, bidirectional=True, dtype=torch.float64, backend=backend, **kind)
    layer.load_state_dict(module.state_dict())
    state = states(kind, {"num_layers": 2, "bidirectional": True}, module, 1)
    state = state.squeeze(1) if isinstance(state, Tensor) else tuple(s.squeeze(1) for s in state)
    assert_agree(run(layer, numbers("one", 5, 6), state), run(module, numbers("one", 5, 6), state), torch.float64)
