"""Stacks: widths and cells by layer, merged directions, connections, what is looked ahead at, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ostinato
from laws import BACKENDS, CELLS
from measured import build, fill, fits, fitted, flat, inputs, numbers, sizes_for
from ostinato import RNN, ShapeError, cell, emit
from tolerances import assert_agree
from wired import by_hand, outputs, stack

CASES = [
    pytest.param({"hidden_size": [4, 6, 5], "connections": c, "bidirectional": b, "merge": m}, id=f"{c}-{b}-{m}")
    for c in ("plain", "dense")
    for b in (False, True)
    for m in (("concat", "sum", "mul", "mean", None) if b else ("concat",))
]
CASES += [
    # what a layer reads is as wide as what it puts out
    pytest.param({"hidden_size": 4, "connections": "residual", "bidirectional": b, "merge": m}, id=f"residual-{b}-{m}")
    for b, m in ((False, "concat"), (True, "concat"), (True, "sum"), (True, "mul"), (True, "mean"), (True, None))
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arguments", CASES)
def test_a_stack_is_its_layers_wired_by_hand(arguments: dict[str, Any], backend: str) -> None:
    """Outputs, final states of every layer and direction, and the gradient of x, over ragged lengths."""
    layer = stack(backend=backend, **arguments)
    x, lengths = inputs(5, 4, 3, torch.float64).requires_grad_(), [5, 0, 2, 4]
    output, state = layer(x, lengths=lengths)
    meant = by_hand(layer, x, lengths)
    found, expected = outputs(output), outputs(meant["output"])
    for k, entry in enumerate(state):
        for d in range(layer.num_directions):
            names = [f"state {name} {k} {d}" for name in layer.cells[k].states]
            found.update(zip(names, [s[d] for s in flat(entry)], strict=True))
            expected.update(zip(names, meant["finals"][k * layer.num_directions + d], strict=True))
    for results in (found, expected):
        loss = sum((v * numbers(n, *v.shape)).sum() for n, v in results.items())
        results["grad x"] = torch.autograd.grad(loss, x)[0]
    assert_agree(found, expected, torch.float64)
    assert all(v.shape[-1] == layer.output_size for v in flat(output))


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_stacks_densely_in_widths_of_its_own(cell: Any) -> None:
    if not fits(cell, 3, 5, 2):
        cell = fitted(cell)
    sizes = sizes_for(cell, 5)
    layer = fill(
        RNN(cell, 3, [5, 4], backend="eager", connections="dense", sizes=sizes, dtype=torch.float64, bidirectional=True)
    ).eval()
    x, lengths = inputs(4, 3, 3, torch.float64), [4, 1, 3]
    assert_agree(outputs(layer(x, lengths=lengths)[0]), outputs(by_hand(layer, x, lengths)["output"]), torch.float64)


def test_one_value_for_all_layers_is_a_list_of_it() -> None:
    one, listed = RNN("gru", 3, 4, 2, lookahead=1), RNN(["gru", "gru"], 3, [4, 4], lookahead=[1, 1])
    assert listed.num_layers == 2 and repr(one) == repr(listed) and one.spec() == listed.spec()
    assert one.cells == listed.cells and one.hidden_sizes == listed.hidden_sizes == (4, 4)
    assert one.state_dict().keys() == listed.state_dict().keys()


# ---- looking ahead


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_looking_ahead_is_waiting_for_zeros_behind_the_end(cell: Any, bidirectional: bool, backend: str) -> None:
    """Each sequence alone, k zeros appended in reading order, and the first k outputs left out; NaN in the padding."""
    layer = build(cell, 3, 4, backend, lookahead=2, bidirectional=bidirectional).eval()
    plain = build(cell, 3, 4, "eager", bidirectional=bidirectional).eval()
    x, lengths = inputs(5, 4, 3, torch.float64), [5, 0, 1, 3]
    padded = x.clone()
    for b, n in enumerate(lengths):
        padded[n:, b] = float("nan")
    output, state, every = layer(padded, lengths=lengths, return_states=True)
    width = output.shape[-1] // layer.num_directions
    for b, n in enumerate(lengths):
        nothing = torch.zeros(2 if n else 0, 3, dtype=torch.float64)
        after, ended, seen = plain(torch.cat([x[:n, b], nothing]), return_states=True)
        before, began, _ = plain(torch.cat([nothing, x[:n, b]]), return_states=True)
        meant = {"output": after[len(nothing) :, :width]}
        found = {"output": output[:n, b, :width]}
        for name in layer.cell.states:
            meant[name], found[name] = seen[0][name][len(nothing) :], every[0][name][:n, b]
        if bidirectional:
            meant["backward"], found["backward"] = before[:n, width:], output[:n, b, width:]
        for name, mine, theirs, other in zip(layer.cell.states, flat(state), flat(ended), flat(began), strict=True):
            meant[f"state {name}"], found[f"state {name}"] = theirs[0], mine[0, b]
            if bidirectional:
                meant[f"state {name} back"], found[f"state {name} back"] = other[1], mine[1, b]
        assert_agree(found, meant, torch.float64)
        assert not output[n:, b].any()


def test_a_window_that_looks_ahead_is_centred() -> None:
    """y_t = a x_{t+1} + b x_t + c x_{t-1}, x being 0 outside of the sequence."""

    @cell(sizes={"one": "D", "two": "D", "a": "D", "b": "D", "c": "D"})
    def window(p: Any, x: Any, one: Any, two: Any) -> Any:
        return emit(p.a * x + p.b * one + p.c * two, x, one)

    layer = fill(RNN(window, 3, 1, lookahead=1, backend="eager", dtype=torch.float64))
    p = layer.cell_parameters()
    x = inputs(6, 2, 3, torch.float64)
    zero = torch.zeros_like(x[:1])
    meant = p["a"] * torch.cat([x[1:], zero]) + p["b"] * x + p["c"] * torch.cat([zero, x[:-1]])
    torch.testing.assert_close(layer(x)[0], meant)
    doubled = fill(RNN(window, 3, 1, 2, lookahead=1, connections="residual", backend="eager", dtype=torch.float64))
    upper = RNN(window, 3, 1, lookahead=1, backend="eager", dtype=torch.float64)
    upper.load_state_dict({f"{n}_l0": v.detach() for n, v in doubled.cell_parameters(1).items()})
    torch.testing.assert_close(doubled(x)[0], upper(meant)[0] + meant)  # both are of step t


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": [4, 5], "num_layers": 3}, r"hidden_size has 2 entries, but num_layers is 3; give one entry"),
        ({"cell": ["gru", "lstm"], "hidden_size": [4]}, r"hidden_size has 1 entries, but cell has 2 entries"),
        ({"cell": []}, r"cell is an empty list; give one entry for each layer"),
        ({"hidden_size": [4, 0]}, r"hidden_size is 0; give a whole number"),
        ({"num_layers": 0}, r"num_layers is 0; give a whole number"),
        (
            {"merge": "max", "bidirectional": True},
            r"merge is 'max'; choose one of 'concat', 'sum', 'mul', 'mean', None",
        ),
        ({"merge": "sum"}, r"merge is 'sum', but there is one direction only; pass bidirectional=True"),
        ({"merge": None}, r"merge is None, but there is one direction only"),
        ({"locked": 1}, r"locked is 1; give True or False"),
        ({"connections": "skip"}, r"connections is 'skip'; choose one of 'plain', 'residual', 'dense'"),
        (
            {"connections": "residual", "hidden_size": [4, 5]},
            r"adds what layer 1 reads \(4 values\) to what it puts out \(5\); make the widths of the layers equal",
        ),
        ({"lookahead": -1}, r"lookahead is -1 at layer 0; give a number of steps, 0 or more"),
        ({"lookahead": [1, 2.5]}, r"lookahead is 2.5 at layer 1"),
        ({"lookahead": [1, 2], "num_layers": 3}, r"lookahead has 2 entries, but num_layers is 3"),
        ({"initial_state": "random"}, r"initial_state is 'random'; give 'zeros' or 'learned'"),
        ({"initial_state": 0}, r"initial_state is 0; .* a state as a tensor \[S\]"),
        ({"stateful": "yes"}, r"stateful is 'yes'; give True or False"),
        ({"return_states": 1}, r"return_states is 1; give True or False"),
        ({"stateful": True, "bidirectional": True}, r"reverse direction begins at that piece's end; use bidirectional"),
        ({"stateful": True, "lookahead": 1}, r"lookahead=1 sees zeros past a piece's end; use lookahead=0"),
        ({"dropout": 1.0}, r"dropout is 1.0; give a probability, 0 <= dropout < 1"),
        ({"sizes": {"P": 3}}, r"cell gru has no size 'P'; its sizes are D, H"),
    ],
)
def test_options_that_do_not_fit_are_refused_when_the_layer_is_built(arguments: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        RNN(**{"cell": "gru", "input_size": 3, "hidden_size": 4, **arguments})


def test_a_list_with_something_that_is_no_cell_is_refused() -> None:
    with pytest.raises(ostinato.CellError, match=r"cell is int 3; give a cell"):
        RNN(["gru", 3], 3, 4)  # type: ignore[list-item]


def test_a_call_is_refused_what_is_no_choice() -> None:
    layer, x = RNN("gru", 3, 4), torch.zeros(2, 1, 3)
    for name in ("return_sequences", "return_states", "detach"):
        with pytest.raises(ShapeError, match=rf"{name} is 'last'; give True or False"):
            layer(x, **{name: "last"})
    with pytest.raises(ShapeError, match=r"generator is int; give a torch.Generator"):
        layer(x, generator=0)
