"""Each transform against the same equations written out in torch, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from measured import numbers
from ostinato import Cell, cells, transforms
from ostinato.ir import size_value
from ostinato.runtime import Step
from tolerances import assert_agree
from transformed import masks_of, run, sizes_of, values_of

Values = dict[str, Tensor]
States = tuple[Tensor, ...]
# (parameters, masks of the step, x [B, D], states) -> the output and the next states
PlainStep = Callable[[Values, Values, Tensor, States], tuple[Tensor, States]]


def lstm(p: Values, h: Tensor, c: Tensor, gate: Callable[[str], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The new h and c, and the output gate, from the sums that `gate` gives."""
    i, f, o = (torch.sigmoid(gate(k)) for k in "ifo")
    new = f * c + i * torch.tanh(gate("g"))
    return o * torch.tanh(new), new, o


def plain_gate(p: Values, x: Tensor, h: Tensor) -> Callable[[str], Tensor]:
    return lambda k: x @ p[f"W_{k}"].T + h @ p[f"U_{k}"].T + p[f"b_{k}"]


def ln(a: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.layer_norm(a, a.shape[-1:], gain, bias, 1e-5)


def bn(a: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.batch_norm(a, None, None, gain, bias, True, 0.0, 1e-5)


def layer_norm_recurrent(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h, c, _ = lstm(p, *s, lambda k: x @ p[f"W_{k}"].T + ln(s[0] @ p[f"U_{k}"].T, p[f"g_U_{k}"]) + p[f"b_{k}"])
    return h, (h, c)


def everywhere(norm: Callable[..., Tensor], gain: str) -> PlainStep:
    """Both terms of every gate and the new memory, each with a gain of its own."""

    def step(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
        def gate(k: str) -> Tensor:
            own, carried = x @ p[f"W_{k}"].T, s[0] @ p[f"U_{k}"].T
            return norm(own, p[f"{gain}_W_{k}"]) + norm(carried, p[f"{gain}_U_{k}"]) + p[f"b_{k}"]

        _, c, o = lstm(p, *s, gate)
        h = o * torch.tanh(norm(c, p[f"{gain}_c"], p["beta_c"]))
        return h, (h, c)

    return step


def layer_norm_of_the_state(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h = ln(torch.tanh(x @ p["W"].T + s[0] @ p["U"].T + p["b"]), p["g_h"], p["beta_h"])
    return h, (h,)


def zoneout(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h, c, _ = lstm(p, *s, plain_gate(p, x, s[0]))
    h = torch.where(m["zone_h"] > 0, s[0], h)
    c = torch.where(m["zone_c"] > 0, s[1], c)
    return h, (h, c)


def variational(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    x, h = x * m["drop_x"], s[0]
    r = torch.sigmoid(x @ p["W_r"].T + (h * m["drop_h"]) @ p["U_r"].T + p["b_r"])
    z = torch.sigmoid(x @ p["W_z"].T + (h * m["drop_h"]) @ p["U_z"].T + p["b_z"])
    n = torch.tanh(x @ p["W_n"].T + (r * h * m["drop_h"]) @ p["U_n"].T + p["b_n"])
    h = (1 - z) * n + z * h
    return h * m["drop_y"], (h,)


def recurrent(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    gate = plain_gate(p, x, s[0])
    i, f, o = (torch.sigmoid(gate(k)) for k in "ifo")
    c = f * s[1] + i * (m["drop_g"] * torch.tanh(gate("g")))
    h = o * torch.tanh(c)
    return h, (h, c)


def weight_drop(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h, c, _ = lstm(p, *s, lambda k: x @ p[f"W_{k}"].T + s[0] @ (m[f"drop_U_{k}"] * p[f"U_{k}"]).T + p[f"b_{k}"])
    return h, (h, c)


def elman(p: Values, x: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(x @ p["W"].T + h @ p["U"].T + p["b"])


def residual_in_depth(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h = elman(p, x, *s)
    return h + x, (h,)


def residual_in_time(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h = elman(p, x, *s) + s[0]
    return h, (h,)


def deep(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h, c, _ = lstm(p, *s, plain_gate(p, x, s[0]))
    for k in (1, 2, 3):
        h = torch.tanh(h @ p[f"V_{k}"].T + p[f"b_V_{k}"])
    return h, (h, c)


def multiplied(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    def gate(k: str) -> Tensor:
        wx, uh = x @ p[f"W_{k}"].T, s[0] @ p[f"U_{k}"].T
        alpha, beta1, beta2 = (p[f"{name}_U_{k}"] for name in ("alpha", "beta1", "beta2"))
        return alpha * wx * uh + beta1 * uh + beta2 * wx + p[f"b_{k}"]

    h, c, _ = lstm(p, *s, gate)
    return h, (h, c)


def skipping(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    h, before, far = s
    new = torch.tanh(x @ p["W"].T + h @ p["U"].T + far @ p["S_U"].T + p["b"])
    return new, (new, h, before)


def dilated(p: Values, m: Values, x: Tensor, s: States) -> tuple[Tensor, States]:
    new = elman(p, x, s[1])
    return new, (new, s[0])


@dataclass(frozen=True)
class Case:
    """A transformed cell and its equations."""

    cell: Cell
    step: PlainStep


EVERYWHERE = ("input", "recurrent", "state")
CASES = {
    "layer_norm of what is recurrent": Case(transforms.layer_norm(cells.lstm), layer_norm_recurrent),
    "layer_norm everywhere": Case(transforms.layer_norm(cells.lstm, on=EVERYWHERE), everywhere(ln, "g")),
    "layer_norm of the state": Case(transforms.layer_norm(cells.elman, on="state"), layer_norm_of_the_state),
    "batch_norm": Case(transforms.batch_norm(cells.lstm, 10), everywhere(bn, "gamma")),
    "zoneout": Case(transforms.zoneout(cells.lstm, {"h": 0.3, "c": 0.5}), zoneout),
    "variational_dropout": Case(transforms.variational_dropout(cells.gru, 0.3, 0.4, 0.5), variational),
    "recurrent_dropout": Case(transforms.recurrent_dropout(cells.lstm, 0.4), recurrent),
    "recurrent_dropout by name": Case(transforms.recurrent_dropout(cells.lstm, 0.4, value="g"), recurrent),
    "weight_drop": Case(transforms.weight_drop(cells.lstm, 0.4), weight_drop),
    "residual in depth": Case(transforms.residual(cells.elman), residual_in_depth),
    "residual in time": Case(transforms.residual(cells.elman, over="time"), residual_in_time),
    "deep_transition": Case(transforms.deep_transition(cells.lstm, 3), deep),
    "multiplicative_integration": Case(transforms.multiplicative_integration(cells.lstm), multiplied),
    "skip_in_time": Case(transforms.skip_in_time(cells.elman, 3), skipping),
    "skip_in_time only": Case(transforms.skip_in_time(cells.elman, 2, only=True), dilated),
}


def by_hand(case: Case, steps: int = 5, batch: int = 4) -> dict[str, Tensor]:
    """What `transformed.run` gives, from a loop over the plain step."""
    program = case.cell.program()
    sizes = sizes_of(program)
    step = Step.of(program, True, sizes)
    x = numbers("x", steps, batch, size_value(step.program.input_size, sizes))
    start = {n: numbers(f"start {n}", 1, batch, s) for n, s in zip(program.states, step.state_sizes, strict=True)}
    sources = {"x": x, **start, **values_of(step)}
    for value in sources.values():
        value.requires_grad_()
    masks = dict(zip([mask.name for mask in step.program.masks], masks_of(step, steps, batch), strict=True))
    states = tuple(s[0] for s in start.values())
    outputs: list[Tensor] = []
    for t in range(steps):
        now = {name: m if m.dim() == 2 else m[min(t, len(m) - 1)] for name, m in masks.items()}
        output, states = case.step(sources, now, x[t], states)
        outputs.append(output)
    found = {"output": torch.stack(outputs)}
    found.update({f"state {n}": s.unsqueeze(0) for n, s in zip(program.states, states, strict=True)})
    loss = sum(((v * numbers(f"loss {n}", *v.shape)).sum() for n, v in found.items()), x.new_zeros(()))
    gradients = torch.autograd.grad(loss, list(sources.values()))
    found.update({f"grad {name}": g for name, g in zip(sources, gradients, strict=True)})
    return {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_transform_means_its_equations(name: str) -> None:
    case = CASES[name]
    found = {name: value for name, value in run(case.cell.program()).items() if not name.startswith("statistic ")}
    assert_agree(found, by_hand(case), torch.float64)


def test_every_transform_has_its_equations_here() -> None:
    assert {name.partition(" ")[0] for name in CASES} == set(transforms.__all__)


def test_zoneout_is_its_expectation_in_evaluation() -> None:
    from ostinato.ir import evaluation, simplify

    program = simplify(evaluation(transforms.zoneout(cells.elman, 0.25).program()))
    found = run(program, steps=1)
    step = Step.of(program, True, sizes_of(program))
    h = numbers("start h", 1, 4, 6)[0]
    new = elman(values_of(step), numbers("x", 1, 4, 3)[0], h)
    assert torch.allclose(found["output"][0], 0.25 * h + 0.75 * new, rtol=0, atol=1e-14)


def test_zoneout_of_everything_keeps_the_state_at_the_mask() -> None:
    """Where the mask is 1 the old value stands to the bit."""
    program = transforms.zoneout(cells.lstm, 0.5).program()
    ones = {f"zone_{s}": torch.ones(5, 4, 6, dtype=torch.float64) for s in "hc"}
    found = run(program, masks=ones)
    assert torch.equal(found["state c"], numbers("start c", 1, 4, 6))
    zeros = {name: torch.zeros_like(value) for name, value in ones.items()}
    plain = run(cells.lstm.program())
    assert torch.equal(run(program, masks=zeros)["output"], plain["output"])


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (cells.lstm, {"drop_g"}),
        (cells.peephole_lstm, {"drop_g"}),
        (cells.gru, {"drop_n"}),
        (cells.gru_reset_after, {"drop_n"}),
    ],
)
def test_recurrent_dropout_finds_the_candidate(cell: Cell, names: set[str]) -> None:
    masks = transforms.recurrent_dropout(cell, 0.2).program().masks
    assert {mask.name for mask in masks} == names
    assert not any(mask.locked for mask in masks)


def test_weight_drop_leaves_the_matrices_on_x() -> None:
    masks = transforms.weight_drop(cells.projected_lstm, 0.2).program().mask_shapes
    assert masks == {**{f"drop_U_{k}": ("H", "P") for k in "ifgo"}, "drop_W_p": ("P", "H")}
