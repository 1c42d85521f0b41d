"""Keras's weights give Keras's numbers: its equations as they are printed, in numpy, beside the layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ostinato
from ostinato import DataError
from ostinato.nn.keras import from_keras

D, H, T, B = 3, 4, 6, 2
Weights = list[np.ndarray]


def sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def lstm_step(weights: Weights, x: np.ndarray, state: Weights, units: int) -> Weights:
    """Keras's LSTMCell: gates i, f, c, o."""
    kernel, recurrent, bias = weights
    h, c = state
    z = x @ kernel + h @ recurrent + bias
    i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def gru_step(weights: Weights, x: np.ndarray, state: Weights, units: int) -> Weights:
    """Keras's GRUCell: gates z, r, h; reset after the product if the bias has two rows."""
    kernel, recurrent, bias = weights
    (h,) = state
    after = bias.ndim == 2
    input_bias, recurrent_bias = bias if after else (bias, np.zeros_like(bias))
    xs = x @ kernel + input_bias
    x_z, x_r, x_h = (xs[:, k * units : (k + 1) * units] for k in range(3))
    u_z, u_r, u_h = (recurrent[:, k * units : (k + 1) * units] for k in range(3))
    b_z, b_r, b_h = (recurrent_bias[k * units : (k + 1) * units] for k in range(3))
    z = sigmoid(x_z + h @ u_z + b_z)
    r = sigmoid(x_r + h @ u_r + b_r)
    candidate = np.tanh(x_h + r * (h @ u_h + b_h)) if after else np.tanh(x_h + (r * h) @ u_h)
    return [z * h + (1 - z) * candidate]


def simple_step(weights: Weights, x: np.ndarray, state: Weights, units: int) -> Weights:
    """Keras's SimpleRNNCell."""
    kernel, recurrent, bias = weights
    return [np.tanh(x @ kernel + bias + state[0] @ recurrent)]


STEPS: dict[str, tuple[Any, int, int, str]] = {  # the step, its blocks, rows of its bias, our cell
    "LSTM": (lstm_step, 4, 1, "lstm"),
    "GRU": (gru_step, 3, 2, "gru_reset_after"),
    "GRU(reset_after=False)": (gru_step, 3, 1, "gru"),
    "SimpleRNN": (simple_step, 1, 1, "elman"),
}
kinds = pytest.mark.parametrize("kind", list(STEPS))


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape) * 0.7


def weights_of(kind: str, reads: int = D, seed: int = 0) -> Weights:
    """What layer.get_weights() returns."""
    _, blocks, rows, _ = STEPS[kind]
    bias = draw(2, blocks * H, seed=seed) if rows == 2 else draw(blocks * H, seed=seed)
    return [draw(reads, blocks * H, seed=seed), draw(H, blocks * H, seed=seed), bias]


def run(kind: str, weights: Weights, x: np.ndarray) -> tuple[np.ndarray, Weights]:
    """Keras's loop over x [B, T, D]; a Keras layer without a bias adds zeros."""
    step, blocks, rows, _ = STEPS[kind]
    if len(weights) == 2:
        weights = [*weights, np.zeros((2, blocks * H) if rows == 2 else blocks * H)]
    state = [np.zeros((x.shape[0], H)) for _ in range(2 if kind == "LSTM" else 1)]
    outputs = []
    for t in range(x.shape[1]):
        state = step(weights, x[:, t], state, H)
        outputs.append(state[0])
    return np.stack(outputs, 1), state


def assert_close(found: torch.Tensor, meant: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), meant, rtol=1e-12, atol=1e-13)


def finals(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_weights_of_keras_give_keras_numbers(kind: str, bias: bool) -> None:
    weights = weights_of(kind)[: 3 if bias else 2]
    told = {} if bias or kind != "GRU(reset_after=False)" else {"reset_after": False}
    layer = from_keras(weights, backend="eager", **told)
    assert layer.cell is ostinato.cells.get(STEPS[kind][3])
    assert layer.bias is bias
    x = draw(B, T, D, seed=1)
    outputs, state = run(kind, weights, x)
    output, final = layer(torch.from_numpy(x))
    assert_close(output, outputs)
    for found, meant in zip(finals(final), state, strict=True):
        assert_close(found[0], meant)


@kinds
def test_a_bidirectional_layer_concatenates_both_runs(kind: str) -> None:
    """Flat, as Bidirectional.get_weights() gives them, or as two lists."""
    forward, backward = weights_of(kind), weights_of(kind, seed=5)
    x = draw(B, T, D, seed=1)
    outputs = np.concatenate([run(kind, forward, x)[0], run(kind, backward, x[:, ::-1])[0][:, ::-1]], -1)
    for given in ([*forward, *backward], (forward, backward)):
        layer = from_keras(given, backend="eager")
        assert layer.bidirectional
        assert_close(layer(torch.from_numpy(x))[0], outputs)
    plain = from_keras([*forward[:2], *backward[:2]])
    assert plain.bidirectional and not plain.bias


@kinds
def test_layers_stand_on_top_of_one_another(kind: str) -> None:
    lower, upper = weights_of(kind), weights_of(kind, reads=H, seed=7)
    x = draw(B, T, D, seed=1)
    layer = from_keras(lower, upper, backend="eager")
    assert layer.num_layers == 2
    assert_close(layer(torch.from_numpy(x))[0], run(kind, upper, run(kind, lower, x)[0])[0])
    with pytest.raises(DataError, match="layer 1 reads 3 values, but it is given 4; pass the layers in order"):
        from_keras(upper, lower)


# ---------------------------------------------------------------- where weights come from


@kinds
def test_every_container_gives_the_same_layer(kind: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    weights = weights_of(kind)
    names = ("kernel", "recurrent_kernel", "bias")
    np.savez(tmp_path / "list.npz", *weights)
    np.savez(tmp_path / "names.npz", **dict(zip(names, weights, strict=True)))  # type: ignore[arg-type]
    save_file(dict(zip([f"rnn/cell/{n}:0" for n in names], weights, strict=True)), tmp_path / "names.safetensors")
    meant = from_keras(weights).state_dict()
    with np.load(tmp_path / "names.npz") as opened:
        containers = [
            tuple(weights),
            [torch.from_numpy(w) for w in weights],
            dict(zip(reversed(names), reversed(weights), strict=True)),
            {"rnn": {"cell": {f"{n}:0": w for n, w in zip(names, weights, strict=True)}}},  # as HDF5 groups nest
            {"cell": {"vars": {str(k): w for k, w in enumerate(weights)}, "seed": {}}},  # as a .keras archive does
            opened,
            tmp_path / "list.npz",
            str(tmp_path / "names.npz"),
            tmp_path / "names.safetensors",
        ]
        for given in containers:
            found = from_keras(given).state_dict()
            assert list(found) == list(meant)
            assert all(torch.equal(found[name], meant[name]) for name in meant), given


def test_a_group_of_two_directions_is_told_by_its_names() -> None:
    forward, backward = weights_of("LSTM"), weights_of("LSTM", seed=5)
    names = ("kernel:0", "recurrent_kernel:0", "bias:0")
    group = {
        "backward_lstm": {"lstm_cell_2": dict(zip(names, backward, strict=True))},
        "forward_lstm": {"lstm_cell_1": dict(zip(names, forward, strict=True))},
    }
    found, meant = from_keras({"bidirectional": group}).state_dict(), from_keras(forward + backward).state_dict()
    assert all(torch.equal(found[name], meant[name]) for name in meant)


def test_options_and_dtype() -> None:
    weights = [w.astype("float32") for w in weights_of("LSTM")]
    before = torch.get_rng_state()
    layer = from_keras(weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(layer, ostinato.LSTM) and layer.batch_first
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    layer = from_keras(weights, batch_first=False, backend="eager", dtype=torch.float64)
    assert (layer.batch_first, layer.backend) == (False, "eager")
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert layer(torch.zeros(T, B, D, dtype=torch.float64))[0].shape == (T, B, H)
    relu = from_keras(weights_of("SimpleRNN"), activation="relu")
    assert relu.cell.name == ostinato.cells.elman(activation="relu").name
    weights[0][:] = 0
    assert layer.cell_parameters()["W_i"].any()  # a copy


# ---------------------------------------------------------------- what is refused


def test_what_is_no_layer_of_keras_is_said(tmp_path: Path) -> None:
    lstm, gru = weights_of("LSTM"), weights_of("GRU")
    with pytest.raises(DataError, match="got no weights"):
        from_keras()
    with pytest.raises(DataError, match="got 1 arrays; give what"):
        from_keras(lstm[:1])
    with pytest.raises(DataError, match=r"arrays of shapes \[3, 20\], \[4, 20\] are no recurrent layer of Keras"):
        from_keras([draw(3, 20), draw(4, 20)])
    with pytest.raises(DataError, match="are no recurrent layer"):
        from_keras([lstm[0], lstm[1], gru[2]])
    with pytest.raises(DataError, match="are no recurrent layer"):
        from_keras([lstm[0].T, lstm[1].T, lstm[2]])
    with pytest.raises(DataError, match="are no recurrent layer"):
        from_keras([draw(3, 0), draw(0, 0)])
    with pytest.raises(DataError, match="differ in kind, units, bias or directions"):
        from_keras(lstm, gru)
    with pytest.raises(DataError, match="differ in kind"):
        from_keras(gru, weights_of("GRU(reset_after=False)", reads=H))
    with pytest.raises(DataError, match="an array of weights is torch.int64; give floating numbers"):
        from_keras([w.astype("int64") for w in lstm])
    with pytest.raises(
        DataError, match="reset_after is False, but the shapes are those of a GRU with reset_after=True"
    ):
        from_keras(gru, reset_after=False)
    with pytest.raises(DataError, match="but the shapes are those of a LSTM; leave it out"):
        from_keras(lstm, reset_after=True)
    with pytest.raises(DataError, match="from_keras got int; give a list of arrays"):
        from_keras(3)
    with pytest.raises(
        DataError, match="the weights of one Keras layer were expected, but there are a/kernel, b/kernel"
    ):
        from_keras({"a": {"kernel": lstm[0]}, "b": {"kernel": lstm[0]}})
    with pytest.raises(DataError, match="there are none"):
        from_keras({})
    with pytest.raises(DataError, match=r"reads .npz and .safetensors, got .*\.h5; open another file yourself"):
        from_keras(tmp_path / "model.h5")
    for name in ("broken.npz", "broken.safetensors", "missing.npz"):
        if name.startswith("broken"):
            (tmp_path / name).write_bytes(b"PK\x03\x04 not one")
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            from_keras(tmp_path / name)
