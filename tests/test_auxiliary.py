"""States that are bookkeeping, or hold old values, are no activations: nothing drops, normalises or learns them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from laws import BACKENDS, THOROUGH
from measured import numbers
from ostinato import RNN, Cell, CellError, ProgramError, cell, cells, tanh, transforms
from ostinato.ir import Program, activations, delayed, simplify
from transformed import TRANSFORMS, transformed

CATALOGUE = cells.catalogue()
WIDTH = 6
MADE = transformed()
BOOKKEEPING = {name: c.program().auxiliary for name, c in CATALOGUE.items() if c.program().auxiliary}
DELAYS = {name: delayed(simplify(c.program())) for name, c in CATALOGUE.items() if delayed(simplify(c.program()))}


def layer_of(c: Cell, **options: Any) -> RNN:
    """A layer of any cell, as wide as its input, with fresh weights of its own."""
    sizes = dict.fromkeys(set(c.program().symbols) - {"D", "H"}, WIDTH)
    torch.manual_seed(3)
    return RNN(c, WIDTH, WIDTH, sizes=sizes, **{"backend": "eager", **options})


def parts(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


def test_the_catalogue_declares_its_bookkeeping() -> None:
    assert BOOKKEEPING == {"slstm": ("c", "n", "m"), "clockwork": ("t",)}
    assert DELAYS == {
        "qrnn": ("x_1",),
        "time_skip": ("h_2", "h_3", "h_4"),
        "narx": ("y_2", "y_3", "x_1"),
        "fir": ("x_1", "x_2"),
    }
    assert activations(simplify(transforms.skip_in_time(cells.clockwork, 3).program())) == ("h",)


# ---- what a transform makes stays within the numbers


@pytest.mark.parametrize("which", TRANSFORMS)
def test_every_transform_of_every_cell_is_finite(which: str) -> None:
    """Outputs, states and gradients, in training and in evaluation, in turn."""
    seen = 0
    for (name, kind), c in MADE.items():
        if kind != which:
            continue
        layer = layer_of(c)
        x = numbers("x", 5, 4, WIDTH, dtype=torch.float32)
        seen += 1
        for training in (True, False) if THOROUGH else (seen % 2 == 0,):
            x = x.detach().requires_grad_()
            output, state = layer.train(training)(x)
            values = (output, *parts(state))
            weights = [x, *layer.parameters()]
            loss = sum((v.square().mean() for v in values if v.requires_grad), output.new_zeros(()))
            found = torch.autograd.grad(loss, weights, allow_unused=True)
            for value in (*values, *(g for g in found if g is not None)):
                assert value.isfinite().all(), (name, which, training)


@pytest.mark.parametrize(("name", "which"), [key for key in MADE if key[0] in BOOKKEEPING])
def test_a_transform_leaves_the_bookkeeping_to_the_cell(name: str, which: str) -> None:
    """The declaration stays, and what is carried as a counter counts on."""
    c = MADE[name, which]
    assert c.program().auxiliary == BOOKKEEPING[name]
    if name == "clockwork":
        for training in (True, False):
            layer = layer_of(c, return_states=True).train(training)
            *_, (states,) = layer(numbers("x", 9, 4, WIDTH, dtype=torch.float32))
            clock = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 0, 1])
            assert torch.equal(states["t"], clock[:, None, None].expand(9, 4, 1)), which


@pytest.mark.parametrize("name", [*BOOKKEEPING, *DELAYS])
def test_one_rate_for_all_is_for_activations(name: str) -> None:
    own = activations(simplify(CATALOGUE[name].program()))
    if not own:
        with pytest.raises(CellError, match="is an activation: .* only hold old values or count; take"):
            transforms.zoneout(CATALOGUE[name], 0.1)
        return
    masks = transforms.zoneout(CATALOGUE[name], 0.1).program().masks
    assert [mask.name for mask in masks] == [f"zone_{state}" for state in own]


def test_a_locked_mask_is_for_delayed_activations_too() -> None:
    masks = transforms.variational_dropout(cells.time_skip, state=0.2).program().masks
    assert [mask.name for mask in masks] == ["drop_h", "drop_h_4"]


@pytest.mark.parametrize("training", [True, False])
def test_an_exponential_memory_stays_a_mean_under_zoneout(training: bool) -> None:
    """|h| <= 1: a mean of tanh under weights that add up to 1, mixed with one before."""
    layer = layer_of(transforms.zoneout(cells.slstm, 0.5)).train(training)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(6)
    output, _ = layer(4 * numbers("x", 60, 8, WIDTH, dtype=torch.float32))
    assert 0.5 < output.abs().max() <= 1.0


def test_normalising_the_state_of_an_exponential_memory_is_of_h_alone() -> None:
    made = transforms.layer_norm(cells.slstm, on="state").program()
    assert set(made.params) - set(cells.slstm.program().params) == {"g_h", "beta_h"}
    made = transforms.batch_norm(cells.slstm, 30).program()
    assert not {f"gamma_{s}" for s in "cnm"} & set(made.params)


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("the state t of cell clockwork is a counter or norm", lambda: transforms.zoneout(cells.clockwork, {"t": 0.1})),
    ("the state n of cell slstm is a counter or normaliser", lambda: transforms.zoneout(cells.slstm, {"n": 0.1})),
    ("its activations are h", lambda: transforms.residual(cells.clockwork, "time", state="t")),
    ("not an activation", lambda: transforms.deep_transition(cells.slstm, 1, state="m")),
    ("not an activation", lambda: transforms.skip_in_time(cells.clockwork, 2, state="t", only=True)),
    ("not an activation", lambda: transforms.variational_dropout(cells.slstm, state={"n": 0.1})),
    ("the state h_2 of cell time_skip is a delay line", lambda: transforms.zoneout(cells.time_skip, {"h_2": 0.1})),
    ("take another cell", lambda: transforms.residual(cells.fir, "time", state="x_1")),
    ("take a cell that carries one", lambda: transforms.deep_transition(cells.fir, 2)),
]


@pytest.mark.parametrize(("message", "make"), REFUSED)
def test_what_is_no_activation_is_refused_by_name(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(CellError) as caught:
        make()
    assert message in str(caught.value) and ";" in str(caught.value)


# ---- learned initial states


@pytest.mark.parametrize("name", CATALOGUE)
def test_learned_initial_states_stay_finite_as_they_are_trained(name: str) -> None:
    """Activations alone are learned; a few large steps of an optimiser keep outputs and states finite."""
    c = CATALOGUE[name]
    own = activations(simplify(c.program()))
    if not own:
        with pytest.raises(CellError, match="no initial state to learn: .*; leave out initial_state='learned'"):
            layer_of(c, initial_state="learned")
        return
    layer = layer_of(c, initial_state="learned")
    learned = [f"{state}0_l0" for state in own]
    names = {f"{state}0_l0" for state in c.states} & {n for n, _ in layer.named_parameters()}
    assert names == set(learned)
    initial = [layer.get_parameter(n) for n in learned]
    optimiser = torch.optim.Adam(initial, lr=0.5)
    x = numbers("x", 4, 3, WIDTH, dtype=torch.float32)
    for sign in (1, 1, 1, 1, -1, -1, -1, -1, -1, -1):
        output, state = layer(x)
        optimiser.zero_grad()
        (sign * (output.sum() + sum(part.sum() for part in parts(state)))).backward()
        optimiser.step()
        assert all(v.isfinite().all() for v in (output, *parts(state), *initial))
    assert any(value.any() for value in initial)
    # where each state begins: after no step, the final states are the first
    _, state = layer(x, lengths=[0, 0, 0])
    for n, part in zip(c.states, parts(state), strict=True):
        meant = layer.get_parameter(f"{n}0_l0") if n in own else torch.zeros(part.shape[-1])
        assert torch.equal(part, meant.expand_as(part)), n


def test_a_state_of_ones_own_is_given_whole() -> None:
    """Also a counter, which is not learned."""
    layer = layer_of(cells.clockwork, initial_state=(torch.ones(WIDTH), torch.tensor([3.0])))
    assert {n: b.item() for n, b in layer.named_buffers() if n == "t0_l0"} == {"t0_l0": 3.0}
    _, (_, t) = layer(numbers("x", 2, 4, WIDTH, dtype=torch.float32))
    assert torch.equal(t, torch.full((1, 4, 1), 5.0))


# ---- the clock


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clock_is_exact_however_long_it_runs(backend: str, dtype: torch.dtype) -> None:
    periods = (1, 7, 12)
    layer = layer_of(cells.clockwork(periods=periods), backend=backend, dtype=dtype, return_states=True)
    *_, (states,) = layer(numbers("x", 700, 1, WIDTH, dtype=dtype))
    clock = [t % math.lcm(*periods) for t in range(1, 701)]
    assert states["t"].flatten().tolist() == clock
    slow = states["h"][:, 0].float()
    for unit, period in ((2, 7), (4, 12)):
        changed = {t for t in range(1, 700) if slow[t, unit] != slow[t - 1, unit]}
        times = set(range(period, 700, period))
        assert changed <= times and len(changed) > 0.7 * len(times)  # in bfloat16 a new value may be the old one


def test_a_clock_that_is_given_any_count_keeps_its_phase() -> None:
    layer = layer_of(cells.clockwork, dtype=torch.float64)
    x = numbers("x", 20, 2, WIDTH)
    h = numbers("h", 1, 2, WIDTH)
    far, near = (layer(x, (h, torch.full((1, 2, 1), t, dtype=torch.float64))) for t in (1003.0, 3.0))
    assert torch.equal(far[0], near[0])
    assert torch.equal(far[1][1] % 8, near[1][1])


def test_a_product_with_a_fixed_mask_is_called_after_the_matrix() -> None:
    assert "gamma_U" in transforms.batch_norm(cells.clockwork, 9).program().params
    assert "g_U" in transforms.layer_norm(cells.clockwork).program().params
    assert "drop_U" in transforms.weight_drop(cells.clockwork, 0.1).program().mask_shapes


# ---- the declaration


@cell(auxiliary=lambda o: ("k",) if o["counting"] else ())
def counted(p: Any, x: Any, h: Any, k: Any, *, counting: bool = True) -> Any:
    """What an option says is bookkeeping."""
    return tanh(p.W @ x + p.U @ h), k + 1


def test_the_declaration_travels_with_the_equations() -> None:
    program = counted.program()
    assert counted.auxiliary == program.auxiliary == ("k",)
    assert counted(counting=False).program().auxiliary == ()
    assert simplify(program).auxiliary == ("k",)
    assert Program.from_json(program.to_json()) == program
    assert Cell.from_program(program).auxiliary == ("k",)
    assert pickle.loads(pickle.dumps(cells.slstm)).program().auxiliary == ("c", "n", "m")
    assert copy.deepcopy(transforms.zoneout(counted, 0.1)).auxiliary == ("k",)
    assert RNN.from_spec(RNN("slstm", 2, 3).spec()).programs[0].auxiliary == ("c", "n", "m")
    data = program.to_json()
    del data["auxiliary"]  # as an earlier version wrote it
    assert Program.from_json(data).auxiliary == ()
    with pytest.raises(ProgramError, match="auxiliary names 'q', which is no state"):
        Program.from_json({**data, "auxiliary": ["q"]})


def test_a_declaration_of_what_is_no_state_is_refused() -> None:
    @cell(auxiliary=("n",))
    def wrong(p: Any, x: Any, h: Any) -> Any:
        return tanh(p.W @ x + p.U @ h)

    with pytest.raises(CellError, match="auxiliary names 'n', which is no state; its states are h"):
        wrong.program()
