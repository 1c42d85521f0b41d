"""Tables of series: many in one, of every kind, cut into parts; and the commands that read them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ostinato.errors import DataError, OptionError, RunError
from ostinato.tasks import evaluate, predict
from ostinato.tasks.forecast.recipe import Recipe
from ostinato.training.checkpoint import find_checkpoint, read_checkpoint
from tiny_commands import ostinato
from tiny_series import collection, draw_nothing, hourly, run, wave, wave_file, write


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "show" not in request.node.name:
        draw_nothing(monkeypatch)


# ---------------------------------------------------------------- tables


def long_table(folder: Path) -> Path:
    """Three series of unequal lengths, their rows mixed, with a column known up to now and one known ahead."""
    rows = []
    for n, (name, count) in enumerate((("north", 150), ("south", 130), ("west", 140))):
        y = wave(count, seed=n) * (n + 1)
        for k, stamp in enumerate(hourly(count)):
            rows.append((k, n, f"{stamp},{name},{y[k]},{np.cos(k / 5)},{k % 3}"))
    text = "when,place,load,wind,shift\n" + "\n".join(row for _, _, row in sorted(rows)) + "\n"
    (folder / "long.csv").write_text(text)
    return folder / "long.csv"


LONG = {"time": "when", "series": "place", "target": ("load",), "past": ("wind",), "future": ("shift",)}


def test_many_series_in_one_table(tmp_path):
    path = long_table(tmp_path)
    out = run(path, tmp_path / "run", **LONG)
    recipe = Recipe.from_json(read_checkpoint(find_checkpoint(out)).document["recipe"])
    assert recipe.names == ("north", "south", "west")
    assert recipe.shift[:, 0] == pytest.approx(
        [(wave(count, seed=n) * (n + 1))[: round(0.7 * count)].mean() for n, count in enumerate((150, 130, 140))]
    )
    assert evaluate(out)["windows"] > 3
    with pytest.raises(DataError, match="'shift' must be known 6 rows ahead; append rows"):
        list(predict(out, path))
    text = path.read_text()
    for name, count in (("north", 150), ("south", 130), ("west", 140)):
        text += "".join(f"{stamp},{name},,,1\n" for stamp in hourly(count + 6)[count:])
    found = list(predict(out, io.StringIO(text)))
    assert [row["place"] for row in found] == ["north"] * 6 + ["south"] * 6 + ["west"] * 6
    assert found[6]["when"] == hourly(131)[130]
    with pytest.raises(DataError, match=r"series 'east' is none that the run was trained with .* --scaling shared"):
        list(predict(out, io.StringIO(text.replace("west", "east"))))
    shared = run(path, tmp_path / "shared", scaling="shared", **LONG)
    assert len(list(predict(shared, io.StringIO(text.replace("west", "east"))))) == 18
    with pytest.raises(OptionError, match="recursive forecast reads what is known ahead alone, but wind"):
        run(path, tmp_path / "refused", mode="recursive", **LONG)


def test_tables_of_every_kind_are_read_alike(tmp_path):
    import pandas as pd

    frame = pd.read_csv(wave_file(tmp_path))
    frame.to_csv(tmp_path / "wave.tsv", sep="\t", index=False)
    frame.to_csv(tmp_path / "wave.csv.gz", index=False)
    frame.to_json(tmp_path / "wave.jsonl", orient="records", lines=True, double_precision=15)
    first = collection(tmp_path / "wave.csv").history.target
    for name in ("wave.tsv", "wave.csv.gz", "wave.jsonl"):
        assert torch.allclose(collection(tmp_path / name).history.target, first, atol=1e-6)
    pytest.importorskip("pyarrow")
    frame["date"] = pd.to_datetime(frame["date"])
    frame.to_parquet(tmp_path / "wave.parquet")
    assert torch.allclose(collection(tmp_path / "wave.parquet").history.target, first)


def test_parts_by_shares_rows_and_stamps(tmp_path):
    path = wave_file(tmp_path)
    assert collection(path).cuts == [(280, 340, 400)]
    assert collection(path, validation=0.25, test=0.25).cuts == [(200, 300, 400)]
    assert collection(path, train_rows=100, validation_rows=50, test_rows=30).cuts == [(100, 150, 180)]
    assert collection(path, train_rows=100, validation_rows=50).cuts == [(100, 150, 400)]
    found = collection(path, validation_from="2020-01-06", test_from="2020-01-08 12:00", test_until="2020-01-10")
    assert found.cuts == [(120, 180, 216)]
    assert collection(path, validation_from="2020-01-06").cuts == [(120, 400, 400)]
    with pytest.raises(RunError, match="kept no test part"):
        evaluate(run(path, tmp_path / "run", validation_from="2020-01-06"))


def test_steps_may_be_numbers_or_rows(tmp_path):
    path = write(tmp_path / "n.csv", step=range(10, 410), y=wave())
    out = run(path, tmp_path / "run", period=24)
    assert [(row["step"], row["ahead"]) for row in predict(out, path)] == [(str(409 + k), k) for k in range(1, 7)]
    days = np.delete(np.array(hourly(420, frequency="D")), np.arange(5, 420, 21))
    path = write(tmp_path / "d.csv", date=days, y=wave(len(days)))
    out = run(path, tmp_path / "rows", frequency="rows", period=24)
    assert [row["date"] for row in predict(out, path)] == [""] * 6


def test_a_pipe_is_known_by_what_it_begins_with_and_may_be_of_another_encoding(tmp_path):
    import pandas as pd

    frame = pd.read_csv(wave_file(tmp_path))
    out = run(tmp_path / "wave.csv", tmp_path / "run")
    said = list(predict(out, tmp_path / "wave.csv"))
    lines = frame.to_json(orient="records", lines=True, double_precision=15)
    for text in (frame.to_csv(index=False, sep="\t"), lines):
        assert list(predict(out, io.BytesIO(text.encode()))) == said
    (tmp_path / "latin.csv").write_bytes(frame.assign(who="Zoë").to_csv(index=False).encode("latin-1"))
    with pytest.raises(DataError, match="is not utf-8.*--encoding latin-1"):
        collection(tmp_path / "latin.csv", series="who")
    assert collection(tmp_path / "latin.csv", series="who", encoding="latin-1").recipe.names == ("Zoë",)


# ---------------------------------------------------------------- the command line


def test_the_commands_show_the_naive_forecasts_beside_the_model(tmp_path, monkeypatch):
    path = wave_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    sizes = ["--context", 24, "--horizon", 6, "--hidden-size", 8, "--epochs", 1, "--evaluations", 1, "--eval-stride", 5]
    head = ["--head", "quantiles", "--level", 0.1, "--level", 0.5, "--level", 0.9]
    code, out, err = ostinato("train", "forecast", path, "--out", "it", *sizes, *head)
    assert code == 0, err
    assert "naive" in out and "seasonal" in out and "MASE" in out
    code, out, _ = ostinato("evaluate", "it", "--pictures", "drawn")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["MSE", "MAE", "MASE", "CRPS"]
    assert [line.split()[0] for line in lines[1:4]] == ["model", "naive", "seasonal"]
    assert "80% intervals hold" in lines[4]
    for picture in ("drawn/forecasts.png", "drawn/errors.png", "it/pictures/forecasts.png", "it/pictures/errors.png"):
        assert (tmp_path / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    code, out, _ = ostinato("predict", "it", "-", input=path.read_text())
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and list(rows[0]) == ["date", "ahead", "target", "forecast", "lower_80", "upper_80"]
    assert [row["date"] for row in rows] == hourly(406)[400:]
    assert all(float(row["lower_80"]) <= float(row["forecast"]) <= float(row["upper_80"]) for row in rows)


def test_a_checkpoint_says_all_that_is_needed(tmp_path):
    path = wave_file(tmp_path)
    out = run(path, tmp_path / "run")
    recipe = read_checkpoint(find_checkpoint(out)).document["recipe"]
    again = Recipe.from_json(recipe)
    assert again.to_json() == recipe
    assert replace(again, period=7).lookback == 24
