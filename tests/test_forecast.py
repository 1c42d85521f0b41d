"""Forecasts: that they learn, that nothing leaks, that figures are what they say, and that runs go on exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ostinato.errors import DataError, RunError
from ostinato.tasks import evaluate, predict, resume, train
from ostinato.tasks.forecast.config import ForecastConfig
from ostinato.tasks.forecast.foretell import foretell, measure_names
from ostinato.tasks.forecast.task import Forecasting
from ostinato.tasks.registry import find_task
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from ostinato.training.task import Share
from tiny_runs import StopAt, losses, same_run, weights
from tiny_series import collection, draw_nothing, hourly, measured, run, tiny, wave, wave_file, write


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "show" not in request.node.name:
        draw_nothing(monkeypatch)


# ---------------------------------------------------------------- learning


def test_a_wave_is_forecast_far_better_than_by_its_last_value(tmp_path):
    options = {"batch_size": 16, "epochs": 15, "dropout": 0.0, "learning_rate": 0.01, "head": "point"}
    found = measured(wave_file(tmp_path), tmp_path / "run", eval_stride=1, **options)
    assert found["mse"] < 0.05 * found["naive_mse"]
    assert found["mse"] < 2 * found["seasonal_mse"]  # which errs by twice the noise
    assert found["mase"] < 1.4


def test_intervals_hold_about_what_they_say_of_noise(tmp_path):
    noise = np.random.default_rng(5).normal(5, 2, 1200)
    path = write(tmp_path / "noise.csv", date=hourly(1200), y=noise)
    options = {"normalize": "none", "calendar": ("none",), "epochs": 6, "hidden_size": 4, "dropout": 0.0}
    options |= {"batch_size": 32, "learning_rate": 0.01, "validation": 0.1, "test": 0.3}
    for head, interval in (("gaussian", 0.8), ("student_t", 0.5), ("quantiles", 0.6)):
        found = measured(path, tmp_path / head, head=head, interval=interval, **options)
        assert found["coverage"] == pytest.approx(interval, abs=0.07), head
        assert found["mae"] == pytest.approx(0.8, abs=0.12)  # sqrt(2 / pi)
        assert found["crps"] == pytest.approx(0.5642, abs=0.08)  # 1 / sqrt(pi)


HEADS = [("point", "mse"), ("point", "mae"), ("point", "huber"), ("gaussian", "mse"), ("student_t", "mse"),
         ("negative_binomial", "mse"), ("quantiles", "mse")]  # fmt: skip


@pytest.mark.parametrize("mode", ["direct", "recursive"])
@pytest.mark.parametrize(("head", "loss"), HEADS)
def test_every_head_trains_and_forecasts(tmp_path, head, loss, mode):
    counts = np.random.default_rng(0).poisson(wave(200))
    path = write(tmp_path / "counts.csv", date=hourly(200), a=counts, b=counts[::-1])
    out = run(path, tmp_path / "run", head=head, loss=loss, mode=mode, samples=20, eval_stride=20)
    validated = [row for row in losses(out) if row["validation_loss"]]
    assert float(validated[-1]["validation_mae"]) < 6
    rows = list(predict(out, path))
    assert [row["target"] for row in rows] == ["a", "b"] * 6
    for row in rows:
        assert 0 < row["forecast"] < 30
        assert row["lower_80"] <= row["upper_80"]
    if head == "negative_binomial":
        assert all(row["lower_80"] == round(row["lower_80"]) for row in rows) or mode == "recursive"


def test_one_step_ahead_recursive_is_direct(tmp_path):
    options = {"horizon": 1, "calendar": ("none",), "head": "point", "eval_stride": 1}
    for mode in ("direct", "recursive"):
        run(wave_file(tmp_path), tmp_path / mode, mode=mode, **options)
    same_run(tmp_path / "direct", tmp_path / "recursive")


# ---------------------------------------------------------------- no leakage


def test_the_test_part_changes_nothing_before_it(tmp_path):
    end = 280 + 60  # where the test part begins
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    kept = {"train_rows": 280, "validation_rows": 60}
    run(wave_file(tmp_path / "a"), tmp_path / "a" / "run", **kept)

    def change(y):
        return np.concatenate((y[:end], 100 * y[end:] + 7))

    run(wave_file(tmp_path / "b", change), tmp_path / "b" / "run", **kept)
    same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")
    recipes = [read_checkpoint(find_checkpoint(tmp_path / n / "run")).document["recipe"] for n in "ab"]
    assert recipes[0] == recipes[1]
    assert evaluate(tmp_path / "a" / "run")["mse"] != evaluate(tmp_path / "b" / "run")["mse"]


def test_units_are_those_of_the_training_part(tmp_path):
    found = collection(wave_file(tmp_path), train_rows=200, validation_rows=100, test_rows=50)
    y = wave()
    assert found.recipe.shift == pytest.approx(np.array([[y[:200].mean()]]))
    assert found.recipe.scale == pytest.approx(np.array([[y[:200].std()]]))
    z = (y - y[:200].mean()) / y[:200].std()
    part = found.part("test")
    assert len(part) == (50 - 6) // 5 + 1
    first = part.take(torch.tensor([0]))
    assert first.past[:, 0, 0].numpy() == pytest.approx(z[300 - 24 : 300], abs=1e-6)  # looks back into validation
    assert first.target[:, 0, 0].numpy() == pytest.approx(z[300:306], abs=1e-6)
    assert found.recipe.seasonal[0, 0] == pytest.approx(np.abs(z[24:200] - z[:176]).mean())
    train = found.trained_on()
    assert int(train.origins.min()) == 24 and int(train.origins.max()) == 200 - 6


def test_what_is_missing_is_filled_in_by_what_was_known(tmp_path):
    y = wave()
    y[[100, 101, 103]] = np.nan
    path = write(tmp_path / "gaps.csv", date=hourly(), load=y)
    found = collection(path, missing="interpolate", scaling="none", calendar=("none",))
    history = found.history
    one = torch.tensor([0])
    late = history.window(torch.tensor([110]), one).past[:, 0, 0].numpy()  # rows 86 to 109
    step = (y[102] - y[99]) / 3
    assert late[100 - 86 : 102 - 86] == pytest.approx([y[99] + step, y[99] + 2 * step], rel=1e-6)
    early = history.window(torch.tensor([102]), one).past[:, 0, 0].numpy()  # rows 78 to 101: 102 is still to come
    assert early[-2:] == pytest.approx([y[99], y[99]], rel=1e-6)
    ahead = history.window(torch.tensor([101]), one)
    assert ahead.target[:, 0, 0].isnan().tolist() == [True, False, True, False, False, False]
    assert ahead.weight == 4
    path = write(tmp_path / "rows.csv", date=np.delete(hourly(), [100, 101]), load=np.delete(y, [100, 101]))
    again = collection(path, missing="interpolate", scaling="none", calendar=("none",)).history
    assert torch.equal(again.target.isnan(), history.target.isnan())
    assert torch.equal(again.window(torch.tensor([110]), one).past, history.window(torch.tensor([110]), one).past)


def test_a_run_with_gaps_trains_and_counts_what_there_is(tmp_path):
    y = wave()
    y[np.random.default_rng(0).random(len(y)) < 0.1] = np.nan
    path = write(tmp_path / "gaps.csv", date=hourly(), load=y)
    for mode in ("direct", "recursive"):
        out = run(
            path, tmp_path / mode, mode=mode, missing="interpolate", head="negative_binomial" if 0 else "gaussian"
        )
        assert 0 < evaluate(out)["mse"] < 10
    with pytest.raises(DataError, match=r"gaps.csv, line \d+: 'load' is missing; .* --missing interpolate"):
        run(path, tmp_path / "refused")


def test_what_a_run_learned_from_is_left_out_of_new_data(tmp_path):
    path = wave_file(tmp_path)
    out = run(path, tmp_path / "run", train_rows=200, validation_rows=100, test_rows=100, eval_stride=1)
    own = evaluate(out)
    assert own["windows"] == 100 - 6 + 1
    assert evaluate(out, path) == own  # the same file: its test part
    longer = write(tmp_path / "longer.csv", date=hourly(450), load=np.concatenate((wave(), wave(50, seed=1))))
    assert evaluate(out, longer)["windows"] == 150 - 6 + 1
    other = write(tmp_path / "other.csv", date=hourly(), load=wave(seed=5))
    assert evaluate(out, other)["windows"] == 400 - 24 - 6 + 1
    alike = wave(seed=5)
    alike[299] = wave()[299]  # the last that was learned, by chance
    other = write(tmp_path / "alike.csv", date=hourly(), load=alike)
    assert evaluate(out, other)["windows"] == 400 - 24 - 6 + 1
    short = write(tmp_path / "short.csv", date=hourly(303), load=wave()[:303])
    with pytest.raises(DataError, match="the run learned from it: there are not 6 new rows"):
        evaluate(out, short)


# ---------------------------------------------------------------- figures


def test_the_seasonal_naive_forecast_is_exact_where_the_series_repeats(tmp_path):
    y = np.tile(np.arange(24.0) ** 2 % 7, 20)
    found = measured(write(tmp_path / "saw.csv", date=hourly(480), y=y), tmp_path / "run", horizon=30)
    assert found["seasonal_mse"] == 0 and found["seasonal_mae"] == 0 and found["seasonal_mase"] == 0
    assert found["naive_mse"] > 0.1 and 0 < found["mase"] < 10


def test_the_training_part_is_judged_where_a_season_stands_before_it(tmp_path):
    options = {"context": 3, "period": 24, "train_rows": 200, "validation_rows": 100, "eval_stride": 1}
    found = evaluate(run(wave_file(tmp_path), tmp_path / "run", **options), part="train")
    z = (wave() - wave()[:200].mean()) / wave()[:200].std()
    meant = [np.square(z[k : k + 6] - z[k - 24 : k - 18]).mean() for k in range(24, 195)]
    assert found["windows"] == len(meant) and found["seasonal_mse"] == pytest.approx(np.mean(meant), rel=1e-5)


def test_measures_are_those_of_the_forecasts(tmp_path):
    path = wave_file(tmp_path)
    out = run(path, tmp_path / "run", horizon=30, train_rows=200, validation_rows=100)
    found = evaluate(out)
    predictor = (
        find_task("forecast").predictor_type().load(read_checkpoint(find_checkpoint(out)), "auto", torch.device("cpu"))
    )
    windows = predictor.own("test")
    window = windows.take(torch.arange(len(windows)))
    with torch.no_grad():
        told = foretell(predictor.model, window, predictor.config.forecast, 0)
    y = wave()
    z = ((y - y[:200].mean()) / y[:200].std()).astype(np.float32)
    mean = told.mean[..., 0].numpy()
    own, naive, seasonal, held, crps = [], [], [], [], []
    for b, origin in enumerate(window.origins.tolist()):
        truth = z[origin : origin + 30]
        own.append(mean[:, b] - truth)
        naive.append(z[origin - 1] - truth)
        seasonal.append(np.resize(z[origin - 24 : origin], 30) - truth)
        low, high = told.interval[:, :, b, 0].numpy()
        held.append((low <= truth) & (truth <= high))
        errors = truth - told.quantiles[:, :, b, 0].numpy()
        crps.append([0.1 * np.maximum(q * e, (q - 1) * e) for q, e in zip(np.arange(1, 10) / 10, errors, strict=True)])
    unit = np.abs(z[24:200] - z[:176]).mean()
    for prefix, errors in (("", own), ("naive_", naive), ("seasonal_", seasonal)):
        assert found[f"{prefix}mse"] == pytest.approx(np.square(errors).mean(), rel=1e-5)
        assert found[f"{prefix}mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
        assert found[f"{prefix}mase"] == pytest.approx(np.abs(errors).mean() / unit, rel=1e-5)
    assert found["coverage"] == pytest.approx(np.mean(held), abs=1e-9)
    assert found["crps"] == pytest.approx(2 * np.sum(crps, axis=1).mean(), rel=1e-5)
    assert list(found) == ["windows", *measure_names(predictor.model.head)]


def test_forecasts_begin_behind_the_end_in_the_series_own_units(tmp_path):
    path = wave_file(tmp_path)
    out = run(path, tmp_path / "run", head="point")
    rows = list(predict(out, path))
    assert [row["date"] for row in rows] == hourly(406)[400:]
    predictor = (
        find_task("forecast").predictor_type().load(read_checkpoint(find_checkpoint(out)), "auto", torch.device("cpu"))
    )
    y = wave()
    recipe = predictor.recipe
    shift, scale = recipe.shift[0, 0], recipe.scale[0, 0]
    window = predictor.own("validation").history.window(torch.tensor([400 - 6]), torch.tensor([0]))
    past = torch.cat((window.past[6:], torch.zeros(6, 1, 5)))
    stamps = np.arange(376, 406)
    for k, turn in enumerate((stamps % 24 / 24, (stamps // 24 + 2) % 7 / 7)):  # 2020 began on a Wednesday
        past[:, 0, 1 + 2 * k] = torch.from_numpy(np.sin(2 * np.pi * turn[:24])).float()
        past[:, 0, 2 + 2 * k] = torch.from_numpy(np.cos(2 * np.pi * turn[:24])).float()
    past[:, 0, 0] = torch.from_numpy((y[376:] - shift) / scale).float()
    future = torch.stack(
        [torch.from_numpy(f(2 * np.pi * turn[24:])).float() for turn in (stamps % 24 / 24, (stamps // 24 + 2) % 7 / 7)
         for f in (np.sin, np.cos)], 1)[:, None]  # fmt: skip
    with torch.no_grad():
        mean = predictor.model.predict(past, future).mean[:, 0, 0].numpy()
    assert [row["forecast"] for row in rows] == pytest.approx(list(shift + scale * mean), rel=1e-4)


# ---------------------------------------------------------------- batches and runs


@pytest.mark.parametrize("mode", ["direct", "recursive"])
def test_shares_of_a_batch_sum_to_the_whole(tmp_path, mode):
    y = wave()
    y[50] = np.nan
    path = write(tmp_path / "gaps.csv", date=hourly(), load=y)
    options = tiny(path, batch_size=5, missing="interpolate", dropout=0.0, mode=mode)
    task = Forecasting.begin(ForecastConfig.of(**options))
    batches = task.batches
    for index in (0, 3, len(batches) - 1):
        whole = batches.get(2, index, Share())
        loss = task.loss(task.model, whole, None)
        parts = [batches.get(2, index, Share(k, 7)) for k in range(7)]  # some of them empty
        assert min(len(part.origins) for part in parts) == 0
        assert torch.cat([part.past for part in parts], 1).equal(whole.past)
        each = [task.loss(task.model, part, None) for part in parts]
        assert sum(part.total.item() for part in each) == pytest.approx(loss.total.item(), rel=1e-4, abs=1e-4)
        assert sum(part.weight for part in each) == loss.weight == whole.weight == parts[0].weight
        assert whole.seen == parts[0].seen == len(whole.origins)
        each[[len(part.origins) for part in parts].index(0)].total.backward()
        assert all(p.grad is None or not p.grad.any() for p in task.model.parameters())


def test_an_epoch_reads_each_window_once_in_an_order_of_its_own(tmp_path):
    task = Forecasting.begin(ForecastConfig.of(**tiny(wave_file(tmp_path))))
    batches = task.batches
    orders = [torch.cat([batches.get(epoch, k, Share()).origins for k in range(len(batches))]) for epoch in (0, 1, 0)]
    assert orders[0].tolist() == orders[2].tolist() != orders[1].tolist()
    assert sorted(orders[0].tolist()) == sorted(orders[1].tolist()) == list(range(24, 280 - 6 + 1))


def test_shares_of_an_evaluation_hold_each_window_once(tmp_path):
    found = collection(wave_file(tmp_path)).part("validation")
    for count in (1, 3, 100):
        origins = [w.origins for k in range(count) for w in found.in_order(Share(k, count), 4)]
        assert torch.cat(origins).tolist() == found.origins.tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 2 epochs, 8 steps."""
    folder = tmp_path_factory.mktemp("whole")
    return run(wave_file(folder), folder / "run", epochs=2, eval_every=3)


@pytest.mark.parametrize("step", [3, 5])
def test_a_run_that_is_stopped_goes_on_exactly(whole, tmp_path, step):
    options = tiny(wave_file(tmp_path), epochs=2, eval_every=3)
    train("forecast", out=tmp_path / "run", reporter=StopAt(step), **options)
    torch.manual_seed(99)  # what was drawn in between is no matter
    assert resume(tmp_path / "run").outcome.finished
    same_run(whole, tmp_path / "run")


def test_another_table_is_another_run(tmp_path):
    train("forecast", out=tmp_path / "run", reporter=StopAt(1), **tiny(wave_file(tmp_path)))
    (tmp_path / "wave.csv").write_text((tmp_path / "wave.csv").read_text() + "2020-01-17 16:00:00,3\n")
    with pytest.raises(RunError, match="its content has changed"):
        resume(tmp_path / "run")


def test_parts_of_a_batch_give_the_same_training(tmp_path):
    path = wave_file(tmp_path)
    for parts in (1, 3):
        run(path, tmp_path / str(parts), accumulate=parts, dropout=0.0)
    one, three = weights(tmp_path / "1"), weights(tmp_path / "3")
    for name, value in one.items():
        if name.startswith("model."):
            assert torch.allclose(value, three[name], atol=1e-4), name
