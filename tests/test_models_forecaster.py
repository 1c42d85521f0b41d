"""Forecasters: windows in units of their own, direct and recursive horizons, means, quantiles and paths."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from ostinato import ShapeError
from ostinato.models import (
    Encoder,
    FeatureInput,
    Forecaster,
    Gaussian,
    Head,
    NegativeBinomial,
    Point,
    Quantiles,
    StudentT,
    TokenInput,
    WindowNorm,
    model_from_spec,
)

T, N, B, S, C = 9, 4, 3, 2, 3
HEADS: list[Head] = [Point(), Gaussian(), StudentT(), NegativeBinomial(), Quantiles((0.1, 0.5, 0.9))]
MODES = pytest.mark.parametrize("mode", ["direct", "recursive"])
EACH = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)


def model_of(head: Head, mode: str, future: int = C, normalize: str | None = None, **options: Any) -> Forecaster:
    torch.manual_seed(0)
    encoder = Encoder.of(FeatureInput(S + C), "gru", 6, backend="eager")
    kind = normalize or ("standard" if head.shifts else "mean")
    return Forecaster(encoder, head, N, S, mode, kind, future, **options)


def numbers(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """A window, what is known ahead, and what came: counts, which every head takes."""
    generator = torch.Generator().manual_seed(seed)
    series = torch.poisson(torch.full((T + N, B, S), 5.0), generator=generator)
    others = torch.randn(T + N, B, C, generator=generator)
    return torch.cat((series, others), 2)[:T], others[T:], series[T:]


# ---------------------------------------------------------------- what every forecaster does


@pytest.mark.parametrize("head", [head for head in HEADS if head.shifts], ids=lambda head: head.kind)
@MODES
def test_parameters_are_in_the_units_of_the_series(head: Head, mode: str) -> None:
    """A series in other units has the forecast in those units."""
    unit, zero = torch.tensor([4.0, 0.5]), torch.tensor([-3.0, 100.0])
    model = model_of(head, mode, normalize="standard").eval()
    window, future, target = numbers()
    other = torch.cat((window[..., :S] * unit + zero, window[..., S:]), 2)
    for ours in (target, None):
        there = model(other, future, None if ours is None else ours * unit + zero)
        here = model(window, future, ours)
        torch.testing.assert_close(head.mean(there), head.mean(here) * unit + zero, rtol=1e-3, atol=1e-3)


@EACH
@MODES
def test_every_parameter_has_a_finite_gradient(head: Head, mode: str) -> None:
    model = model_of(head, mode, normalize="revin" if head.shifts else "mean")
    window, future, target = numbers()
    parameters = model(window, future, target)
    assert parameters.shape == (N, B, S, head.size)
    head.loss(parameters, target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@EACH
@MODES
def test_a_spec_is_json_and_rebuilds_the_model(head: Head, mode: str) -> None:
    model = model_of(head, mode, dropout=0.2)
    spec = json.loads(json.dumps(model.spec(), allow_nan=False))
    twin = model_from_spec(spec, backend="eager")
    assert isinstance(twin, Forecaster) and json.loads(json.dumps(twin.spec())) == spec
    twin.load_state_dict(model.state_dict())
    window, future, target = numbers()
    for each in (twin.eval(), copy.deepcopy(model).eval()):
        assert torch.equal(each(window, future, target), model.eval()(window, future, target))
    assert model.cell_name == "gru"


@EACH
@MODES
def test_evaluation_draws_nothing_and_a_generator_repeats(head: Head, mode: str) -> None:
    model = model_of(head, mode, dropout=0.3).eval()
    window, future, _ = numbers()
    before = torch.get_rng_state()
    assert torch.equal(model(window, future), model(window, future))
    found = [model.predict(window, future, num_samples=5, generator=torch.Generator().manual_seed(s)) for s in (1, 1)]
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(before, torch.get_rng_state())
    assert found[0].mean.shape == (N, B, S) and found[0].quantiles.shape == (0, N, B, S)


@EACH
@MODES
def test_a_batch_is_its_windows_one_by_one(head: Head, mode: str) -> None:
    model = model_of(head, mode).eval()
    window, future, target = numbers()
    for ours in (target, None):
        alone = [
            model(window[:, b : b + 1], future[:, b : b + 1], None if ours is None else ours[:, b : b + 1])
            for b in range(B)
        ]
        torch.testing.assert_close(model(window, future, ours), torch.cat(alone, 1))


# ---------------------------------------------------------------- direct


def test_direct_is_one_linear_of_the_last_output() -> None:
    model = model_of(Gaussian(), "direct", normalize="last").eval()
    window, future, _ = numbers()
    last = window[-1, :, :S]
    read = torch.cat((window[..., :S] - last, window[..., S:]), 2)
    y = model.encoder.rnn(read)[0][-1]
    raw = (y @ model.decoder.weight.T + model.decoder.bias).view(B, N, S, 2).permute(1, 0, 2, 3)
    raw = raw + (future @ model.future.weight.T).view(N, B, S, 2)
    found = model(window, future)
    torch.testing.assert_close(found[..., 0], raw[..., 0] + last)
    torch.testing.assert_close(found[..., 1], raw[..., 1].exp().add(1).log() + 1e-4)


def test_direct_may_be_bidirectional_and_need_nothing_ahead() -> None:
    torch.manual_seed(0)
    encoder = Encoder.of(FeatureInput(S + C), "lstm", 6, bidirectional=True, backend="eager")
    model = Forecaster(encoder, Point(), N, S)
    window, _, target = numbers()
    assert torch.equal(model(window), model(window, target=target))
    assert model(window).shape == (N, B, S, 1)


def test_direct_paths_are_drawn_step_by_step_of_the_head() -> None:
    model = model_of(Gaussian(), "direct").eval()
    window, future, _ = numbers()
    parameters = model(window, future)
    paths = model.sample(window, future, 3000, torch.Generator().manual_seed(0))
    assert paths.shape == (3000, N, B, S)
    error = 5 * parameters[..., 1] / 3000**0.5
    assert ((paths.mean(0) - parameters[..., 0]).abs() < error).all()
    told = model.predict(window, future, (0.1, 0.5))
    torch.testing.assert_close(told.quantiles[1], parameters[..., 0])
    torch.testing.assert_close(told.quantiles[0], model.head.quantile(parameters, 0.1))


# ---------------------------------------------------------------- recursive


def by_hand(model: Forecaster, window: Tensor, future: Tensor, target: Tensor) -> Tensor:
    """The parameters of each step, each from a window that holds the true values before it and is read anew.

    The window's units stay those of the first.
    """
    shift, scale = model.norm(window[..., :S])
    others = torch.cat((window[1:, :, S:], future))  # a step ahead
    values = torch.cat((window[..., :S], target))
    found = []
    for h in range(len(target)):
        read = torch.cat(((values[: T + h] - shift) / scale, others[: T + h]), 2)
        y = model.encoder.rnn(read)[0][-1]
        raw = (y @ model.decoder.weight.T + model.decoder.bias).view(B, S, -1)
        found.append(model.head.constrain(raw, shift, scale))
    return torch.stack(found)


@EACH
def test_teacher_forcing_reads_the_true_values(head: Head) -> None:
    model = model_of(head, "recursive").eval()
    window, future, target = numbers()
    torch.testing.assert_close(model(window, future, target), by_hand(model, window, future, target))


@EACH
def test_forecasts_fed_back_are_what_teacher_forcing_reads(head: Head) -> None:
    """A free run is the forced one of its own means; a path the forced one of its own draws."""
    model = model_of(head, "recursive").eval()
    window, future, _ = numbers()
    free = model(window, future)
    torch.testing.assert_close(model(window, future, head.mean(free).detach()), free)
    if isinstance(head, Point):
        assert torch.equal(model.predict(window, future).mean, head.mean(free))
        return
    paths = model.sample(window, future, 4, torch.Generator().manual_seed(3))
    assert paths.shape == (4, N, B, S) and not torch.equal(paths[0], paths[1])
    # the same draws, path by path: each is drawn of the parameters that its own past gives
    generator = torch.Generator().manual_seed(3)
    again = [model(window, future, path) for path in paths]
    for h in range(N):
        step = torch.cat([parameters[h] for parameters in again])  # [4 B, S, P]
        drawn = head.sample(step, generator).unflatten(0, (4, B))
        torch.testing.assert_close(drawn, paths[:, h], rtol=1e-4, atol=1e-4)


def test_quantiles_of_paths_are_those_of_the_samples() -> None:
    model = model_of(StudentT(), "recursive").eval()
    window, future, _ = numbers()
    told = model.predict(window, future, (0.1, 0.5, 0.975), 101, torch.Generator().manual_seed(0))
    paths = model.sample(window, future, 101, torch.Generator().manual_seed(0))
    torch.testing.assert_close(told.quantiles, paths.quantile(torch.tensor([0.1, 0.5, 0.975]), 0))
    torch.testing.assert_close(told.mean, paths.mean(0))


def test_the_future_says_how_far_a_recursive_forecast_goes() -> None:
    model = model_of(Point(), "recursive").eval()
    window, future, _ = numbers()
    longer = torch.cat((future, future))
    torch.testing.assert_close(model(window, longer)[:N], model(window, future))
    assert model(window, longer).shape[0] == 2 * N
    encoder = Encoder.of(FeatureInput(S), "gru", 6, backend="eager")
    assert Forecaster(encoder, Point(), 7, S, "recursive")(window[..., :S]).shape == (7, B, S, 1)


def test_a_missing_value_is_read_as_the_middle_of_the_window() -> None:
    model = model_of(Gaussian(), "recursive").eval()
    window, future, target = numbers()
    mask = torch.ones(N, B, S, dtype=torch.bool)
    mask[1, 0, 1] = False
    middle = target.where(mask, window[..., :S].mean(0))
    found = model(window, future, target.where(mask, float("nan")))
    torch.testing.assert_close(found, model(window, future, middle))
    loss = model.head.loss(found, target.where(mask, float("nan")), mask)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# ---------------------------------------------------------------- units


def test_windows_are_shifted_and_scaled_as_told() -> None:
    y = torch.randn(20, 3, 2) * 3 + 10
    std = (y.var(0, unbiased=False) + 1e-5).sqrt()
    for kind, shift, scale in (
        ("none", torch.zeros(3, 2), torch.ones(3, 2)),
        ("last", y[-1], torch.ones(3, 2)),
        ("standard", y.mean(0), std),
        ("revin", y.mean(0), std),
        ("mean", torch.zeros(3, 2), 1 + y.abs().mean(0)),
    ):
        found = WindowNorm(kind, 2)(y)
        torch.testing.assert_close(found, (shift, scale))
    norm = WindowNorm("revin", 2)
    with torch.no_grad():
        norm.log_gain.copy_(torch.tensor([0.5, -1.0]))
        norm.bias.copy_(torch.tensor([2.0, -3.0]))
    shift, scale = norm(y)
    meant = (y - y.mean(0)) / std * torch.tensor([0.5, -1.0]).exp() + torch.tensor([2.0, -3.0])
    torch.testing.assert_close((y - shift) / scale, meant)
    torch.testing.assert_close(meant * scale + shift, y)


@pytest.mark.parametrize("kind", ["none", "last", "standard", "revin", "mean"])
@MODES
def test_a_constant_window_has_a_finite_forecast(kind: str, mode: str) -> None:
    model = model_of(Point(), mode, normalize=kind)
    window, future, target = numbers()
    window[..., :S] = 1e4
    parameters = model(window, future, target)
    model.head.loss(parameters, target).backward()
    assert parameters.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_is_refused_with_a_remedy() -> None:
    window, future, target = numbers()

    def build(**options: Any) -> Forecaster:
        encoder = Encoder.of(FeatureInput(S + C), "gru", 6, bidirectional=options.pop("two", False), backend="eager")
        return Forecaster(encoder, **({"head": Point(), "horizon": N, "num_series": S} | options))

    for make, message in (
        (lambda: build(horizon=0), "horizon is 0"),
        (lambda: build(mode="both"), "mode is 'both'; give one of direct, recursive"),
        (lambda: build(normalize="max"), "normalize is 'max'; give one of none, last"),
        (lambda: build(head=NegativeBinomial(), normalize="last"), "counts, which have a zero; use 'mean' or 'none'"),
        (lambda: build(future_size=-1), "future_size is -1"),
        (lambda: build(num_series=6), r"reads 5 columns, .* at least the 6 series; give FeatureInput\(6\)"),
        (lambda: build(mode="recursive", future_size=2), r"the 2 known ahead and the 2 series; give FeatureInput\(4\)"),
        (lambda: build(mode="recursive", future_size=3, two=True), "bidirectional"),
        (
            lambda: Forecaster(Encoder.of(TokenInput(5, 3), "gru", 4), Point(), 2),
            "a forecaster reads features; give an encoder with a FeatureInput",
        ),
        (lambda: build()(window[..., 1:]), r"the window has shape \[9, 3, 4\]; give \[T, B, 5\] with T >= 1"),
        (lambda: build()(window[:0]), "with T >= 1"),
        (lambda: build()(window, future), r"future_size is 0, got some of shape \[4, 3, 3\]"),
        (lambda: build(future_size=3)(window), r"future_size is 3, got none; give future \[N, B, 3\]"),
        (lambda: build(future_size=3)(window, future[1:]), r"future has shape \[3, 3, 3\]; give \[4, 3, 3\]"),
        (lambda: build()(window, None, target[..., :1]), r"target has shape \[4, 3, 1\]; give \[4, 3, 2\]"),
        (
            lambda: build().predict(window, quantiles=(0.5,)),
            "a point forecast has no quantiles as long as its errors are not known",
        ),
        (lambda: build().sample(window), "a point forecast has no samples"),
        (lambda: model_of(Gaussian(), "recursive").predict(window, future, (1.5,)), "the quantile is 1.5"),
        (lambda: model_of(Gaussian(), "recursive").sample(window, future, 0), "num_samples is 0"),
    ):
        with pytest.raises(ShapeError, match=message):
            make()
