"""Transforms of every cell: they run on the kernels, vanish in evaluation, repeat with a seed, and compose."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch

import ostinato
from laws import BACKENDS, THOROUGH, needs_c
from ostinato import RNN, Cell, Program, cells, transforms
from ostinato.ir import Mask, Statistic, equations, evaluation, simplify
from tolerances import assert_agree
from transformed import TRANSFORMS, run, sizes_of, transformed

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FOUND = transformed()
BASIC = ("elman", "lstm", "projected_lstm", "peephole_lstm", "gru", "gru_reset_after")
# each transform of half of them, in turn
ALL = [
    pytest.param(cell, id=f"{which} of {name}")
    for (name, which), cell in FOUND.items()
    if name in BASIC and (THOROUGH or (BASIC.index(name) + list(TRANSFORMS).index(which)) % 2 == 0)
]
STATED = [
    pytest.param(FOUND[name, which], id=f"{which} of {name}") for name in BASIC for which in ("batch_norm", "zoneout")
]
VANISH = ("variational_dropout", "recurrent_dropout", "weight_drop")
ORDER = (
    *("recurrent_dropout", "multiplicative_integration", "skip_in_time", "variational_dropout", "weight_drop"),
    *("layer_norm", "layer_norm input", "layer_norm state", "deep_transition", "zoneout", "residual time", "residual"),
)
DRAWN = (*VANISH, "zoneout")
LENGTHS = [2, 5, 3, 0]

CHAINS: dict[str, tuple[str, ...]] = {
    "zoneout of layer_norm": ("layer_norm", "zoneout"),
    "all dropouts": ("recurrent_dropout", "variational_dropout", "weight_drop", "zoneout"),
    "the other way around": ("weight_drop", "variational_dropout", "recurrent_dropout", "zoneout"),
    "layer_norm everywhere": ("layer_norm", "layer_norm input", "layer_norm state", "residual time"),
    "multiplied, normalised": ("multiplicative_integration", "layer_norm", "weight_drop", "residual"),
    "batch_norm, skips": ("skip_in_time", "batch_norm", "zoneout", "deep_transition"),
    "deep, dropped": ("deep_transition", "weight_drop", "variational_dropout", "residual"),
    "dropped, normalised over the batch": ("variational_dropout", "weight_drop", "batch_norm", "residual time"),
    "twice": ("zoneout", "zoneout", "weight_drop", "weight_drop", "layer_norm", "layer_norm"),
}
MANY = (cells.lstm, cells.gru, cells.gru_reset_after, cells.peephole_lstm, cells.elman)
# each chain of two of them, in turn
CHAINED = [
    pytest.param(cell, chain, id=f"{name} of {cell.name}")
    for k, (name, chain) in enumerate(CHAINS.items())
    for n, cell in enumerate(MANY)
    if cell is not cells.elman or "recurrent_dropout" not in chain
    if THOROUGH or (n - 2 * k) % 5 < 2
]


def chained(cell: Cell, chain: tuple[str, ...]) -> Cell:
    for which in chain:
        cell = TRANSFORMS[which](cell)
    return cell


def same_step(one: Program, other: Program) -> bool:
    """Equal but for the names of the cells, and for which of two values that need not each other comes first."""
    return in_order(one) == in_order(other)


def in_order(program: Program) -> Program:
    """The values in the order in which the roots ask for them."""
    place: dict[int, int] = {}

    def visit(position: int) -> None:
        if position not in place:
            for a in program.nodes[position].args:
                visit(a)
            place[position] = len(place)

    for root in program.roots:
        visit(root)
    nodes = tuple(replace(program.nodes[i], args=tuple(place[a] for a in program.nodes[i].args)) for i in place)
    roots = [place[root] for root in program.roots]
    masks = tuple(sorted(program.masks, key=lambda mask: mask.name))
    nexts = tuple(roots[: len(program.states)])
    return replace(program, name="", init=(), nodes=nodes, masks=masks, next_states=nexts, output=roots[-1])


def test_most_transforms_apply_to_most_cells() -> None:
    applied = {which for _, which in FOUND}
    assert applied == set(TRANSFORMS)
    for cell in ("lstm", "gru", "gru_reset_after", "peephole_lstm"):
        assert {which for name, which in FOUND if name == cell} == set(TRANSFORMS)


@needs_c
@pytest.mark.parametrize("cell", ALL)
def test_a_transformed_cell_gives_through_c_what_it_gives_in_eager(cell: Cell) -> None:
    program = cell.program()
    for reverse, lengths in ((False, None), (True, LENGTHS)):
        meant = run(program, "eager", reverse, lengths)
        assert all(bool(torch.isfinite(v).all()) for v in meant.values())
        assert_agree(run(program, "c", reverse, lengths), meant, torch.float64)


@needs_c
@pytest.mark.parametrize(("cell", "chain"), CHAINED)
def test_transforms_compose(cell: Cell, chain: tuple[str, ...]) -> None:
    program = chained(cell, chain).program()
    for lengths in (None, LENGTHS):
        assert_agree(run(program, "c", False, lengths), run(program, "eager", False, lengths), torch.float64)


@needs_c
@pytest.mark.parametrize(("k", "name"), list(enumerate(name for name in cells.catalogue() if name not in BASIC)))
def test_many_transforms_of_a_cell_at_once(k: int, name: str) -> None:
    """Every other one that it takes, in turn; layer norm in place of batch norm, and in an order in which each still
    finds what it looks for.
    """
    cell = cells.get(name)
    for which in ORDER if THOROUGH else ORDER[k % 2 :: 2]:
        if (name, which) in FOUND:
            cell = TRANSFORMS[which](cell)
    assert_agree(run(cell.program(), "c", True, LENGTHS), run(cell.program(), "eager", True, LENGTHS), torch.float64)


@needs_c
@pytest.mark.parametrize("cell", STATED)
def test_in_evaluation_too(cell: Cell) -> None:
    """The step of evaluation, where its equations are others: statistics are given from outside."""
    program = simplify(evaluation(cell.program()))
    assert {mask.name for mask in program.masks} == {s.name for s in cell.program().statistics}
    assert_agree(run(program, "c", True, LENGTHS), run(program, "eager", True, LENGTHS), torch.float64)


@pytest.mark.parametrize("which", VANISH)
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.49, 1 / 3, 0.9])
def test_dropout_vanishes_in_evaluation(which: str, rate: float) -> None:
    """The very Program that was given, for every rate: no rounding is left over."""
    arguments = {"variational_dropout": {"input": rate, "output": rate, "state": rate}}.get(which, {"rate": rate})
    tried = 0
    for name, what in FOUND:
        if what == which:
            cell = cells.get(name)
            program = getattr(transforms, which)(cell, **arguments).program()
            assert not same_step(simplify(program), simplify(cell.program()))
            assert same_step(simplify(evaluation(program)), simplify(cell.program())), name
            tried += 1
    assert tried


def test_all_dropouts_together_vanish_in_evaluation() -> None:
    for cell in (cells.lstm, cells.gru, cells.gru_reset_after):
        program = chained(cell, ("recurrent_dropout", "variational_dropout", "weight_drop")).program()
        assert same_step(simplify(evaluation(program)), simplify(cell.program()))


def test_a_rate_of_zero_changes_nothing() -> None:
    for cell in (cells.lstm, cells.gru):
        for made in (
            transforms.zoneout(cell, 0.0),
            transforms.zoneout(cell, {"h": 0}),
            transforms.variational_dropout(cell),
            transforms.recurrent_dropout(cell, 0),
            transforms.weight_drop(cell, 0.0),
        ):
            assert same_step(made.program(), simplify(cell.program()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("which", DRAWN)
def test_with_a_seed_random_masks_repeat(which: str, backend: str) -> None:
    x = torch.randn(4, 3, 5)
    layer = RNN(TRANSFORMS[which](cells.lstm), 5, 6, backend=backend)
    runs = [layer(x, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cell_of_the_issue_trains(backend: str) -> None:
    torch.manual_seed(0)
    cell = transforms.zoneout(transforms.layer_norm(cells.lstm), 0.1)
    layer = RNN(cell, 3, 8, num_layers=2, bidirectional=True, backend=backend)
    assert torch.equal(layer.cell_parameters()["g_U_i"], torch.ones(8))
    x, y = torch.randn(7, 6, 3), torch.randn(7, 6, 16)
    optimizer = torch.optim.Adam(layer.parameters(), 0.02)
    losses: list[float] = []
    for _ in range(30):
        loss = (layer(x)[0] - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("key", FOUND, ids=" ".join)
def test_a_transformed_cell_travels(key: tuple[str, str]) -> None:
    """As JSON, in a pickle, deep copied: the Program says everything."""
    cell = FOUND[key]
    program = cell.program()
    assert Program.from_json(program.to_json()) == program
    assert pickle.loads(pickle.dumps(cell)).program() == program
    assert copy.deepcopy(cell).program() == program
    assert simplify(program) == program
    assert cell.name == program.name
    assert cell.reference == cells.get(key[0]).reference


def test_names_tell_what_was_done() -> None:
    inner = transforms.layer_norm(cells.lstm)
    assert transforms.zoneout(inner, 0.1).name == "zoneout(layer_norm(lstm), 0.1)"
    assert transforms.layer_norm(cells.gru, on="input").name == "layer_norm(gru, on='input')"
    assert transforms.zoneout(cells.lstm, {"h": 0.05}).name == "zoneout(lstm, {'h': 0.05})"
    assert transforms.batch_norm(cells.lstm, 50).name == "batch_norm(lstm, 50)"
    assert transforms.residual(cells.gru, over="time").name == "residual(gru, over='time')"


def test_the_equations_of_a_transformed_cell_are_read() -> None:
    text = equations(transforms.zoneout(cells.elman, 0.25).program())
    assert "zone_h[t] ⊙ h[t-1] + (1 − zone_h[t]) ⊙" in text
    assert r"\alpha_{U} \odot" in equations(transforms.multiplicative_integration(cells.elman).program(), latex=True)


def test_a_name_that_is_taken_gets_a_number() -> None:
    program = transforms.layer_norm(transforms.layer_norm(cells.elman)).program()
    assert {"g_U", "g_U_2"} <= set(program.params)
    masks = transforms.zoneout(transforms.zoneout(cells.elman, 0.1), 0.2).program().masks
    assert masks == (Mask("zone_h", 0.1), Mask("zone_h_2", 0.2))


def test_transforms_of_a_cell_with_a_concatenation() -> None:
    @ostinato.cell
    def joined(p, x, h):
        return ostinato.tanh(p.W @ ostinato.concat(h, x) + p.b)

    for which in ("layer_norm", "batch_norm", "weight_drop", "multiplicative_integration", "variational_dropout"):
        program = TRANSFORMS[which](joined).program()
        assert sizes_of(program) == {"D": 3, "H": 6}
        run(program)
    masks = transforms.weight_drop(joined, 0.5).program().mask_shapes
    assert masks == {"drop_W": ("H", "H")}  # the part that multiplies h


def test_a_cell_without_bias_keeps_the_gains() -> None:
    cell = transforms.deep_transition(transforms.layer_norm(cells.lstm), 1)
    names = RNN(cell, 3, 4, bias=False).cell_parameters()
    assert "g_U_i" in names and "V_1" in names
    assert not [name for name in names if name.startswith("b_")]


def test_a_damaged_statistic_is_found() -> None:
    program = transforms.batch_norm(cells.elman, 5).program()
    with pytest.raises(ostinato.ProgramError, match="statistics"):
        replace(program, statistics=program.statistics[1:]).check()
    with pytest.raises(ostinato.ProgramError, match="statistics"):
        replace(program, statistics=(*program.statistics, Statistic("more", 0.1, 5))).check()


def test_transforms_take_cells_alone() -> None:
    with pytest.raises(ostinato.CellError, match="layer_norm was given str; give it a cell"):
        transforms.layer_norm("lstm")  # type: ignore[arg-type]


def test_all_is_what_the_package_shows() -> None:
    assert sorted(transforms.__all__) == transforms.__all__
    for name in transforms.__all__:
        assert ">>>" in (getattr(transforms, name).__doc__ or "")
