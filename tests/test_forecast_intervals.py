"""Intervals: those of point forecasts, from errors of what was not trained on, and those of another share than told."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
import torch

from ostinato import ShapeError
from ostinato.errors import OptionError
from ostinato.models import Encoder, FeatureInput, Forecaster, Gaussian, Point, Residuals, model_from_spec
from ostinato.tasks import evaluate, predict
from ostinato.tasks.use import open_predictor
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from ostinato.training.task import Share
from tiny_commands import ostinato
from tiny_series import collection, draw_nothing, hourly, run, wave_file, write


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)


# ---------------------------------------------------------------- quantiles of errors


def test_errors_have_the_quantiles_of_their_ranks_at_each_step():
    errors = torch.randn(3, 499, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[[1.0]], [[5.0]], [[9.0]]]
    )
    residuals = Residuals(3, 2)
    residuals.fit(errors)
    ordered = errors.sort(1).values
    for q in (0.1, 0.25, 0.5, 0.9):
        assert residuals.quantile(q).allclose(ordered[:, round(q * 500) - 1], atol=1e-6)
    assert residuals.quantile(0.1025).allclose(torch.lerp(residuals.quantile(0.1), residuals.quantile(0.105), 0.5))


def test_few_errors_make_wide_intervals_and_missing_ones_do_not_count():
    residuals = Residuals(1, 1)
    residuals.fit(torch.tensor([[[3.0], [torch.nan], [-1.0], [0.0]]]))
    assert residuals.quantile(0.1) == -1 and residuals.quantile(0.5) == 0 and residuals.quantile(0.9) == 3
    residuals.fit(torch.full((1, 5, 1), torch.nan))
    assert not residuals.known


def test_a_share_of_new_values_lies_within_the_interval():
    """Of errors that are drawn alike, n to learn of and one new, a share k / (n + 1) lies below rank k."""
    draws = torch.randn(1, 20_000, 19 + 1, generator=torch.Generator().manual_seed(2))
    residuals = Residuals(1, 20_000)
    residuals.fit(draws[..., :19].permute(0, 2, 1))
    new = draws[0, :, 19]
    for share in (0.5, 0.8, 0.9):
        low, high = (residuals.quantile(q)[0] for q in ((1 - share) / 2, (1 + share) / 2))
        assert float(((low <= new) & (new <= high)).double().mean()) == pytest.approx(share, abs=0.012)


def point(mode: str = "direct") -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(Encoder.of(FeatureInput(1), "gru", 4, backend="eager"), Point(), 3, mode=mode).eval()


@pytest.mark.parametrize("mode", ["direct", "recursive"])
def test_a_forecaster_adds_them_to_its_points_and_its_state_keeps_them(mode):
    model, window = point(mode), torch.randn(5, 2, 1)
    errors = torch.arange(-9.0, 10.0).view(1, 19, 1) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    assert model.residuals is not None
    model.residuals.fit(errors)
    found = model.predict(window, quantiles=(0.25, 0.75))
    assert (found.quantiles[0] - found.mean).allclose(torch.tensor([-5.0, -10.0, -15.0])[:, None, None].expand(3, 2, 1))
    assert (found.quantiles[1] - found.mean).allclose(torch.tensor([5.0, 10.0, 15.0])[:, None, None].expand(3, 2, 1))
    again: Any = model_from_spec(model.spec())
    again.load_state_dict(model.state_dict())
    assert again.eval().predict(window, quantiles=(0.25,)).quantiles.allclose(found.quantiles[:1])


def test_what_is_not_known_of_errors_is_said():
    model, window = point("recursive"), torch.zeros(5, 2, 1)
    with pytest.raises(ShapeError, match="as long as its errors are not known"):
        model.predict(window, quantiles=(0.5,))
    assert model.residuals is not None
    model.residuals.fit(torch.zeros(3, 9, 1))
    with pytest.raises(ShapeError, match=r"0.999 lies outside of those that are kept, 0.005 to 0.995"):
        model.predict(window, quantiles=(0.999,))
    with pytest.raises(ShapeError, match="errors of 3 steps ahead are known, and 2 are forecast"):
        model.quantile(torch.zeros(2, 2, 1, 1), 0.5)
    torch.manual_seed(0)
    assert Forecaster(Encoder.of(FeatureInput(1), "gru", 4), Gaussian(), 3).residuals is None


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("mode", ["direct", "recursive"])
def test_intervals_of_points_hold_about_what_they_say(tmp_path, mode):
    noise = np.random.default_rng(5).normal(5, 2, 1200)
    path = write(tmp_path / "noise.csv", date=hourly(1200), y=noise.tolist())
    options: dict[str, Any] = {
        "normalize": "none",
        "calendar": ("none",),
        "epochs": 3,
        "hidden_size": 4,
        "dropout": 0.0,
        "mode": mode,
    }
    options |= {"batch_size": 32, "learning_rate": 0.01, "validation": 0.3, "test": 0.3, "eval_stride": 1}
    out = run(path, tmp_path / "run", head="point", **options)
    for share in (0.5, 0.8, 0.95):
        assert evaluate(out, interval=share)["coverage"] == pytest.approx(share, abs=0.06)
    rows = list(predict(out, path, interval=0.8))
    width = np.mean([row["upper_80"] - row["lower_80"] for row in rows])
    assert width == pytest.approx(2 * 1.2816 * 2, rel=0.15)


def test_errors_are_those_of_the_weights_that_are_kept(tmp_path):
    path = wave_file(tmp_path)
    for average in ("none", "ema"):
        out = run(
            path,
            tmp_path / average,
            head="point",
            epochs=2,
            evaluations=2,
            average=average,
            train_rows=200,
            validation_rows=100,
        )
        predictor: Any = open_predictor(out)
        windows = predictor.own("validation")
        window = windows.take(torch.arange(0, len(windows)))
        model = predictor.model
        fresh = Residuals(6, 1)
        with torch.no_grad():
            fresh.fit(window.target - model.predict(window.past, window.future).mean)
        assert model.residuals.table.allclose(fresh.table, atol=1e-5), average
        assert evaluate(out, part="validation")["coverage"] == pytest.approx(0.86, abs=0.06)  # of 19 windows


def test_shares_gather_the_errors_of_all_windows(tmp_path, monkeypatch):
    from ostinato.tasks.forecast import foretell

    monkeypatch.setattr(foretell, "_KEPT", 10)
    windows = collection(wave_file(tmp_path), eval_stride=1).part("validation")
    errors = (windows.origins[None, :, None] * torch.ones(6, 1, 1)).float()
    parts = []
    for index in range(3):
        kept = foretell._Kept(len(windows), Share(index, 3))
        own = errors[:, Share(index, 3).of(len(windows))]
        for piece in own.split(7, 1):
            kept.add(piece)
        parts.append(kept.whole())
    every = -(-len(windows) // 10)
    assert torch.equal(torch.stack(parts).sum(0), errors[:, ::every])


def test_another_share_may_be_asked_of_a_run(tmp_path):
    path = wave_file(tmp_path)
    out = run(path, tmp_path / "gaussian", head="gaussian")
    wide, narrow = (next(iter(predict(out, path, interval=share))) for share in (0.95, 0.5))
    assert list(wide)[-2:] == ["lower_95", "upper_95"] and list(narrow)[-2:] == ["lower_50", "upper_50"]
    deviation = (wide["upper_95"] - wide["forecast"]) / 1.95996
    assert (narrow["upper_50"] - narrow["forecast"]) == pytest.approx(0.67449 * deviation, rel=1e-3)
    assert evaluate(out, interval=0.95)["coverage"] >= evaluate(out, interval=0.2)["coverage"]
    learned = run(path, tmp_path / "quantiles", head="quantiles", level=(0.1, 0.5, 0.9))
    assert list(predict(learned, path, interval=0.6))
    with pytest.raises(OptionError, match=r"interval is 0.9, but the run learned the quantiles 0.1 to 0.9; pass 0.8"):
        predict(learned, path, interval=0.9)
    for share in (0.0, 1.0, -2.0):
        with pytest.raises(OptionError, match="interval"):
            predict(out, path, interval=share)
    assert read_checkpoint(find_checkpoint(out)).document["config"]["forecast"]["interval"] == 0.8


def test_the_command_takes_a_share(tmp_path, monkeypatch):
    path = wave_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(path, tmp_path / "it", head="point")
    code, out, err = ostinato("predict", "it", path, "--interval", 0.9)
    assert code == 0, err
    assert list(next(csv.DictReader(io.StringIO(out))))[-2:] == ["lower_90", "upper_90"]
    code, out, err = ostinato("evaluate", "it", "--interval", 0.9)
    assert code == 0 and "90% intervals hold" in out
