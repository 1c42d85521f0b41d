"""What forecasts say of a value: losses, means, quantiles and samples that belong to one another."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from ostinato import ProgramError, ShapeError
from ostinato.models import HEADS, Gaussian, Head, NegativeBinomial, Point, Quantiles, StudentT, head_from_spec
from ostinato.models.special import betainc, student_t_cdf, student_t_quantile

POINTS: list[Head] = [Point("mse"), Point("mae"), Point("huber", delta=0.5)]
SPREAD: list[Head] = [Gaussian(), StudentT(), NegativeBinomial(), Quantiles((0.05, 0.25, 0.5, 0.75, 0.95))]
ALL = pytest.mark.parametrize("head", POINTS + SPREAD, ids=str)
DISTRIBUTIONS = pytest.mark.parametrize("head", SPREAD, ids=str)


def raw(head: Head, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, head.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def targets(head: Head, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (drawn if head.shifts else drawn.abs().round()).to(dtype)


# ---------------------------------------------------------------- losses


def test_the_losses_are_what_they_say() -> None:
    y = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)
    value = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    for head, meant in (
        (Point("mse"), [1.0, 0.0, 9.0]),
        (Point("mae"), [1.0, 0.0, 3.0]),
        (Point("huber", delta=2.0), [0.5, 0.0, 2.0 * (3.0 - 1.0)]),
    ):
        assert head.nll(value.unsqueeze(1), y).tolist() == meant
    loc, scale, df = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 2.0, 5.0))
    gauss = Gaussian().nll(torch.stack([loc, scale]).expand(3, 2), y)
    torch.testing.assert_close(gauss, (y - loc) ** 2 / (2 * scale**2) + scale.log() + 0.5 * math.log(2 * math.pi))
    heavy = StudentT().nll(torch.stack([loc, scale, df]).expand(3, 3), y)
    constant = math.lgamma(3.0) - math.lgamma(2.5) - 0.5 * math.log(5 * math.pi) - math.log(2.0)
    torch.testing.assert_close(heavy, 3.0 * torch.log1p(((y - loc) / scale) ** 2 / 5) - constant)
    mean, dispersion = 3.0, 0.5
    counts = NegativeBinomial().nll(torch.tensor([mean, dispersion], dtype=torch.float64).expand(3, 2), y)
    r, p = 1 / dispersion, 1 / (1 + dispersion * mean)
    meant = [-math.log(math.comb(int(k + r) - 1, int(k)) * p**r * (1 - p) ** k) for k in y.tolist()]
    torch.testing.assert_close(counts, torch.tensor(meant, dtype=torch.float64))
    pinball = Quantiles((0.1, 0.9)).nll(torch.tensor([[0.0, 2.0]]), torch.tensor([1.0]))
    torch.testing.assert_close(pinball, torch.tensor([(0.1 * 1.0 + 0.1 * 1.0) / 2]))


@ALL
def test_what_is_missing_has_no_part_in_the_loss(head: Head) -> None:
    """Whatever stands there; the mean is over what is there."""
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    for missing in (float("nan"), float("inf"), 1e30, -1.0):
        given = raw(head, 3, 2).requires_grad_()
        y = targets(head, 3, 2).where(mask, missing)
        parameters = head.constrain(given)
        loss = head.loss(parameters, y, mask)
        torch.testing.assert_close(loss, head.nll(parameters[mask], y[mask]).mean())
        loss.backward()
        assert given.grad is not None and given.grad.isfinite().all()
        assert not given.grad[~mask].any() and given.grad[mask].abs().sum(-1).all()
        nothing = head.loss(head.constrain(given), y, torch.zeros_like(mask))
        assert nothing == 0
    full = torch.ones_like(mask)
    parameters, y = head.constrain(raw(head, 3, 2)), targets(head, 3, 2)
    torch.testing.assert_close(head.loss(parameters, y, full), head.loss(parameters, y))


@ALL
def test_gradients_are_those_of_differences(head: Head) -> None:
    given, y = raw(head, 4, dtype=torch.float64).requires_grad_(), targets(head, 4, dtype=torch.float64)
    shift = 0.5 if head.shifts else 0.0
    assert gradcheck(lambda v: head.loss(head.constrain(v, shift, torch.full((4,), 2.0)), y), (given,))


@ALL
@pytest.mark.parametrize("size", [0.0, 1e3, -1e3])
def test_float32_is_enough_far_out(head: Head, size: float) -> None:
    """Raw numbers and targets of any size give a finite loss and finite gradients."""
    for y in (0.0, 1e5):
        given = torch.full((2, head.size), size, requires_grad=True)
        loss = head.loss(head.constrain(given), torch.full((2,), y))
        loss.backward()
        assert loss.isfinite() and given.grad is not None and given.grad.isfinite().all()


@DISTRIBUTIONS
def test_float32_agrees_with_float64(head: Head) -> None:
    """Also with counts of a hundred thousand, where lgamma takes a million."""
    y = targets(head, 50, dtype=torch.float64) * (1 if head.shifts else 1e5)
    scale = torch.full((50,), 1.0 if head.shifts else 1e5, dtype=torch.float64)
    exact = head.nll(head.constrain(raw(head, 50, dtype=torch.float64), 0.0, scale), y)
    found = head.nll(head.constrain(raw(head, 50), 0.0, scale.float()), y.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- units


@ALL
def test_a_window_in_other_units_is_the_same_forecast(head: Head) -> None:
    """value = shift + scale z: means and quantiles follow, and densities by 1 / scale."""
    shift, scale = (torch.tensor([2.0, -5.0]), torch.tensor([3.0, 0.1])) if head.shifts else (torch.zeros(2), 4.0)
    given = raw(head, 7, 2)
    there, here = head.constrain(given, shift, scale), head.constrain(given)
    torch.testing.assert_close(head.mean(there), head.mean(here) * scale + shift)
    if isinstance(head, Gaussian | StudentT | Quantiles):
        torch.testing.assert_close(head.quantile(there, 0.3), head.quantile(here, 0.3) * scale + shift)
    if isinstance(head, Gaussian | StudentT):
        z = targets(head, 7, 2)
        torch.testing.assert_close(head.nll(there, z * scale + shift), head.nll(here, z) + scale.log())


def test_short_numbers_are_taken_in_float32() -> None:
    for head in POINTS + SPREAD:
        assert head.constrain(raw(head, 3, dtype=torch.bfloat16)).dtype == torch.float32


# ---------------------------------------------------------------- quantiles and samples


def test_the_cumulative_functions_are_those_of_closed_forms() -> None:
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    for a, b in ((1, 1), (2, 1), (1, 3), (2, 3), (30, 40), (400, 3)):
        # I_x(a, b) of whole numbers is a sum of binomial probabilities
        n = a + b - 1
        meant = [sum(math.comb(n, k) * v**k * (1 - v) ** (n - k) for k in range(a, n + 1)) for v in x.tolist()]
        found = betainc(torch.tensor(float(a)), torch.tensor(float(b)), x)
        torch.testing.assert_close(found, torch.tensor(meant, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    t = torch.linspace(-30, 30, 61, dtype=torch.float64)
    cauchy, two = torch.atan(t) / math.pi + 0.5, 0.5 + t / (2 * (2 + t * t).sqrt())
    torch.testing.assert_close(student_t_cdf(t, torch.tensor(1.0)), cauchy)
    torch.testing.assert_close(student_t_cdf(t, torch.tensor(2.0)), two)
    normal = torch.special.ndtr(t)
    torch.testing.assert_close(student_t_cdf(t, torch.tensor(1e6)), normal, rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [1e-6, 0.01, 0.3, 0.5, 0.8, 0.999, 1 - 1e-6])
def test_a_quantile_of_t_undoes_its_cdf(q: float) -> None:
    df = torch.tensor([2.0, 2.1, 3.0, 7.5, 30.0, 1e3, 1e6], dtype=torch.float64)
    found = student_t_quantile(q, df)
    torch.testing.assert_close(student_t_cdf(found, df), torch.full_like(df, q), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[0], torch.tensor((2 * q - 1) / math.sqrt(2 * q * (1 - q)), dtype=torch.float64))


@pytest.mark.parametrize("q", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_quantile_of_counts_is_the_least_that_reaches_it(q: float) -> None:
    head = NegativeBinomial()
    mean = torch.tensor([0.01, 0.5, 3.0, 40.0, 900.0], dtype=torch.float64).unsqueeze(1)
    dispersion = torch.tensor([1e-4, 0.3, 2.0], dtype=torch.float64)
    parameters = torch.stack(torch.broadcast_tensors(mean, dispersion), -1)  # [5, 3, 2]
    found = head.quantile(parameters, q)
    counts = torch.arange(40000, dtype=torch.float64)
    below = (-head.nll(parameters.unsqueeze(2), counts)).exp().cumsum(-1)  # P(X <= k)
    meant = (below < q).sum(-1).double()
    assert torch.equal(found, meant)


@DISTRIBUTIONS
def test_samples_have_the_mean_and_the_quantiles_that_are_told(head: Head) -> None:
    parameters = head.constrain(raw(head, 4) + 1.0, 0.0, torch.tensor([1.0, 2.0, 3.0, 8.0]))
    draws = head.sample(parameters.expand(40000, *parameters.shape), torch.Generator().manual_seed(0))
    assert draws.shape == (40000, 4) and not draws.requires_grad
    error = 5 * draws.std(0) / 200
    assert ((draws.mean(0) - head.mean(parameters)).abs() <= error).all()
    for q in (0.1, 0.5, 0.9):
        edge = head.quantile(parameters, q)
        below, reached = (draws < edge).double().mean(0), (draws <= edge).double().mean(0)
        assert (below <= q + 0.01).all() and (reached >= q - 0.01).all()


@DISTRIBUTIONS
def test_samples_repeat_with_a_generator(head: Head) -> None:
    parameters = head.constrain(raw(head, 30)).requires_grad_()
    before = torch.get_rng_state()
    one, two, other = (head.sample(parameters, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())
    assert not head.quantile(parameters, 0.5).requires_grad
    head.sample(parameters)
    assert not torch.equal(before, torch.get_rng_state())


@DISTRIBUTIONS
def test_quantiles_rise(head: Head) -> None:
    parameters = head.constrain(5 * raw(head, 200))
    found = torch.stack([head.quantile(parameters, q) for q in (0.05, 0.1, 0.4, 0.5, 0.7, 0.95)])
    assert (found.diff(dim=0) >= 0).all()


def test_quantiles_between_levels_are_linear() -> None:
    head = Quantiles((0.1, 0.5, 0.9))
    values = torch.tensor([[0.0, 1.0, 5.0]])
    for q, meant in ((0.1, 0.0), (0.2, 0.25), (0.5, 1.0), (0.6, 2.0), (0.9, 5.0)):
        torch.testing.assert_close(head.quantile(values, q), torch.tensor([meant]))
    whole = 0.1 * 0.0 + 0.4 * 0.5 + 0.4 * 3.0 + 0.1 * 5.0
    torch.testing.assert_close(head.mean(values), torch.tensor([whole]))
    single = Quantiles((0.3,))
    assert single.mean(values[:, :1]) == single.quantile(values[:, :1], 0.3) == 0.0


def test_the_loss_is_least_at_what_is_told() -> None:
    """Of a skewed sample each point loss and each quantile finds its own statistic."""
    y = torch.randn(4001, generator=torch.Generator().manual_seed(0)).exp()
    for head, meant in (
        (Point("mse"), [y.mean()]),
        (Point("mae"), [y.median()]),
        (Quantiles((0.2, 0.9)), list(y.quantile(torch.tensor([0.2, 0.9])))),
    ):
        given = torch.zeros(head.size, requires_grad=True)
        optimizer = torch.optim.LBFGS([given], max_iter=200, line_search_fn="strong_wolfe")

        def closure(given: Tensor = given, head: Head = head, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = head.loss(head.constrain(given).expand(len(y), -1), y)
            loss.backward()
            return loss

        optimizer.step(closure)
        torch.testing.assert_close(head.constrain(given).detach(), torch.stack(meant), rtol=0, atol=0.02)


# ---------------------------------------------------------------- specs and refusals


@ALL
def test_a_head_travels_as_json(head: Head) -> None:
    spec = json.loads(json.dumps(head.spec()))
    assert spec == head.spec() and head_from_spec(spec) == head
    assert HEADS[spec["kind"]] is type(head)


def test_what_cannot_be_is_refused_with_a_remedy() -> None:
    for make, message in (
        (lambda: Point("rmse"), "the loss of a point is 'rmse'; give 'mse', 'mae' or 'huber'"),
        (lambda: Point("huber", delta=0.0), "delta is 0.0; pass a number above 0"),
        (lambda: Quantiles(()), r"levels are \[\]; give shares that rise"),
        (lambda: Quantiles((0.5, 0.1)), r"levels are \[0.5, 0.1\]"),
        (lambda: Quantiles((0.5, 1.0)), "each between 0 and 1"),
        (lambda: Gaussian().quantile(torch.zeros(2), 0.0), "the quantile is 0.0; it is a share"),
        (lambda: StudentT().quantile(torch.zeros(3), 1.0), "the quantile is 1.0; it is a share"),
        (lambda: NegativeBinomial().quantile(torch.ones(2), 2.0), "the quantile is 2.0; it is a share"),
        (lambda: Quantiles((0.1, 0.9)).quantile(torch.ones(2), 0.95), "0.95 lies outside .* 0.1 to 0.9; train with"),
        (lambda: Point().quantile(torch.ones(1), 0.5), "a point forecast has no quantiles; train with one of gaussian"),
        (lambda: Point().sample(torch.ones(1)), "a point forecast has no samples; train with one of gaussian"),
    ):
        with pytest.raises(ShapeError, match=message):
            make()
    with pytest.raises(ProgramError, match="has kind 'cauchy', this version knows point, gaussian, student_t"):
        head_from_spec({"kind": "cauchy"})
