"""Tables that cannot be forecast from: each is refused with its place and what to do. Frequencies that are found."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ostinato.errors import DataError, OptionError, OstinatoError
from ostinato.tasks import evaluate, predict
from ostinato.tasks.forecast.config import ForecastConfig
from ostinato.tasks.forecast.frequency import Frequency
from ostinato.tasks.forecast.reading import Collection
from ostinato.tasks.forecast.task import Forecasting
from tiny_commands import ostinato
from tiny_series import hourly, run, tiny, wave, wave_file

Change = Callable[[list[str]], list[str]]


def lines() -> list[str]:
    """A table of one series, with its header."""
    return ["date,load", *(f"{stamp},{value:.4f}" for stamp, value in zip(hourly(), wave(), strict=True))]


def swapped(text: list[str]) -> list[str]:
    text[50], text[51] = text[51], text[50]
    return text


def with_line(number: int, line: str) -> Change:
    """Another text on a line; they count from 1."""
    return lambda text: [*text[: number - 1], line, *text[number:]]


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(OstinatoError) as caught:
        Collection.read(ForecastConfig.of(**tiny(path, **options)))
    return str(caught.value)


# What is done to the table, the options, and words of the message.
TABLES: dict[str, tuple[Change, dict[str, object], list[str]]] = {
    "no time column": (
        with_line(1, "hour,load"),
        {},
        ["no column of time stamps", "its columns are 'hour', 'load'", "Pass --time"],
    ),
    "another time column": (lambda t: t, {"time": "dat"}, ["no column 'dat'", "Did you mean 'date'"]),
    "a stamp that is none": (
        with_line(20, "2020-01-01 25:00:00,3"),
        {},
        ["line 20", "'2020-01-01 25:00:00'", "no time"],
    ),
    "an empty stamp": (with_line(20, ",3"), {}, ["line 20", "'date' is missing"]),
    "stamps of another format": (
        lambda t: ["date,load", *(f"{k % 28 + 1}.1.2020,{k}" for k in range(300))],
        {},
        ["line 2", "'1.1.2020'", "%d/%m/%Y"],
    ),
    "numbers that are dates": (
        lambda t: ["date,load", *(f"{day:%Y%m%d},{day.day}" for day in pd.date_range("2020-01-01", periods=300))],
        {},
        ["look like dates", "20200101", "--time-format %Y%m%d"],
    ),
    "a stamp twice": (
        lambda t: [*t[:30], t[29], *t[30:]],
        {},
        ["line 31", "comes twice", "keep one row", "--series"],
    ),
    "stamps that go back": (swapped, {}, ["line 52", "goes back", "sort the rows"]),
    "a gap": (
        lambda t: [*t[:40], *t[43:]],
        {},
        ["line 41", "3 stamps are missing by a frequency of 'h'", "2020-01-02 15:00:00", "--missing interpolate"],
    ),
    "a stamp beside the grid": (
        with_line(20, "2020-01-01 18:30:00,3"),
        {},
        ["line 20", "2020-01-01 18:30:00 does not fit a frequency of 'h'", "--frequency"],
    ),
    "a missing value": (with_line(77, "2020-01-04 03:00:00,"), {}, ["line 77", "'load' is missing", "interpolate"]),
    "NA": (with_line(77, "2020-01-04 03:00:00,NA"), {}, ["line 77", "'load' is missing"]),
    "an infinite value": (with_line(77, "2020-01-04 03:00:00,inf"), {}, ["line 77", "'inf'", "no finite number"]),
    "a text among numbers": (
        with_line(9, "2020-01-01 07:00:00,warm"),
        {},
        ["line 9", "'load' is 'warm'", "no finite number", "--target"],
    ),
    "a decimal comma": (with_line(9, '2020-01-01 07:00:00,"3,5"'), {}, ["line 9", "decimal point"]),
    "a column that is not there": (lambda t: t, {"target": ("laod",)}, ["no column 'laod'", "Did you mean 'load'"]),
    "nothing to forecast": (lambda t: t, {"past": ("load",)}, ["no columns to forecast"]),
    "a constant": (
        lambda t: ["date,load", *(f"{stamp},{5 if k < 300 else k}" for k, stamp in enumerate(hourly()))],
        {},
        ["'load' of the series is always 5 in the training part (280 rows)", "leave the column out"],
    ),
    "a constant that helps": (
        lambda t: [t[0] + ",flag", *(line + ",1" for line in t[1:])],
        {"future": ("flag",)},
        ["'flag' of the series is always 1"],
    ),
    "too few rows": (
        lambda t: t[:41],
        {},
        ["40 rows and 28 of them in the train part", "context 24 and horizon 6 need", "--context"],
    ),
    "a validation part that is too short": (
        lambda t: t,
        {"validation": 0.01},
        ["4 of them in the validation part", "a horizon of 6"],
    ),
    "parts longer than the series": (
        lambda t: t,
        {"train_rows": 300, "validation_rows": 80, "test_rows": 80},
        ["has 400 rows", "were to have 460"],
    ),
    "parts that go back": (
        lambda t: t,
        {"validation_from": "2020-01-10", "test_from": "2020-01-08"},
        ["do not follow each other"],
    ),
    "a part that begins at no time": (lambda t: t, {"validation_from": "soon"}, ["--validation-from is 'soon'"]),
    "numbers that are no counts": (lambda t: t, {"head": "negative_binomial"}, ["line 2", "no count", "gaussian"]),
    "a header alone": (lambda t: t[:1], {}, ["no rows"]),
    "nothing": (lambda t: [], {}, ["is empty"]),
    "a frequency that is none": (lambda t: t, {"frequency": "often"}, ["frequency is 'often'", "15min, h, D"]),
    "another frequency": (lambda t: t, {"frequency": "2h"}, ["line 3", "does not fit a frequency of '2h'"]),
    "steps that are no whole numbers": (
        lambda t: ["date,load", *(f"{k / 2},{k}" for k in range(300))],
        {},
        ["line 3", "0.5", "whole numbers"],
    ),
    "a calendar of numbers": (
        lambda t: ["step,load", *(f"{k},{k % 7}" for k in range(400))],
        {"calendar": ("hour",)},
        ["the steps are numbers", "--calendar none"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", TABLES)
def test_what_is_wrong_with_a_table_is_said(tmp_path, fault):
    change, options, words = TABLES[fault]
    text = change(lines())
    (tmp_path / "t.csv").write_text("\n".join(text) + ("\n" if text else ""))
    said = refusal(tmp_path / "t.csv", **options)
    for word in words:
        assert word in said


def test_a_fault_of_one_of_many_series_names_it(tmp_path):
    rows = [f"{stamp},{name},{v}" for name in "ab" for stamp, v in zip(hourly(), wave(), strict=True)]
    whole = ["date,id,load", *rows]
    named = {"series": "id", "target": ("load",)}

    def said(text: list[str], **options: object) -> str:
        (tmp_path / "t.csv").write_text("\n".join(text))
        return refusal(tmp_path / "t.csv", **named, **options)

    assert "series 'b' has 20 rows" in said(whole[:421])
    assert "(1 of 2 series are too short)" in said(whole[:421])
    assert "'load' of series 'b' is always 0" in said([*whole[:401], *(f"{s},b,0" for s in hourly())])
    assert "t.csv, line 502" in said([*whole[:500], whole[501], whole[500], *whole[502:]])
    alone = refusal(tmp_path / "t.csv", target=("load",))  # without the column of names
    assert "line 402" in alone and "goes back" in alone and "pass --series" in alone


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": ("load",), "past": ("load",)}, "the column 'load' is named 2 times"),
        ({"calendar": ("hour", "none")}, "pass some of hour, weekday, month, or auto or none alone"),
        ({"calendar": ("year",)}, "calendar is year"),
        ({"train_rows": 10}, "pass --train-rows and --validation-rows"),
        ({"test_from": "2020-01-01"}, "pass --validation-from"),
        ({"validation_from": "2020", "train_rows": 10, "validation_rows": 10}, "pass one of them"),
        ({"validation": 0.6, "test": 0.4}, "leave some to train on"),
        ({"head": "quantiles", "level": (0.5, 0.1)}, "shares between 0 and 1 that rise"),
        ({"head": "quantiles", "interval": 0.9}, "pass --level 0.05 and --level 0.95"),
        ({"horizon": 0}, "horizon is 0"),
        ({"head": "gauss"}, "head is 'gauss'; pass one of point, gaussian"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        ForecastConfig.of(**options)


def test_models_that_cannot_be_are_refused(tmp_path):
    path = wave_file(tmp_path)
    with pytest.raises(OptionError, match="there are no series to learn from"):
        Forecasting.begin(ForecastConfig.of())
    with pytest.raises(DataError, match="there is no file"):
        Forecasting.begin(ForecastConfig.of(data=str(tmp_path / "none.csv")))
    with pytest.raises(OstinatoError, match="bidirectional"):
        Forecasting.begin(ForecastConfig.of(**tiny(path, mode="recursive", bidirectional=True)))
    counts = wave_file(tmp_path, np.round)
    with pytest.raises(OstinatoError, match="use 'mean' or 'none'"):
        Forecasting.begin(ForecastConfig.of(**tiny(counts, head="negative_binomial", normalize="last")))
    code, _, err = ostinato("train", "forecast", path, "--context", 900, "--out", tmp_path / "run")
    assert code == 2 and "pass a smaller --context or" in err and not (tmp_path / "run").exists()


def test_new_tables_must_be_as_the_run_reads_them(tmp_path):
    out = run(wave_file(tmp_path), tmp_path / "run")
    text = lines()

    def said(change: list[str], use: Callable[..., object] = evaluate) -> str:
        with pytest.raises(DataError) as caught:
            use(out, io.StringIO("\n".join(change)))
        return str(caught.value)

    assert "no column 'load'" in said(["date,cargo", *text[1:]])
    assert "has 20 rows; to forecast, the run reads 24" in said(text[:21], predict)
    assert "has 29 rows; to evaluate, 24 before a forecast and 6 ahead" in said(text[:30])
    assert "2 stamps are missing by a frequency of 'h'" in said([*text[:100], *text[102:]])
    assert "'load' is missing" in said(with_line(399, "2020-01-17 13:00:00,")(text), predict)
    other = ["load,more,date", *(f"{v},x,{d}" for d, v in (line.split(",") for line in text[1:]))]
    assert len(list(predict(out, io.StringIO("\n".join(other))))) == 6  # other columns are no matter


FREQUENCIES = {
    "15min": (96, ("hour", "weekday")),
    "h": (24, ("hour", "weekday")),
    "2h": (12, ("hour", "weekday")),
    "s": (1, ("hour", "weekday")),
    "D": (7, ("weekday", "month")),
    "B": (5, ("weekday", "month")),
    "W-SUN": (52, ("month",)),
    "MS": (12, ("month",)),
    "2MS": (6, ("month",)),
    "QS-JAN": (4, ("month",)),
    "YS-JAN": (1, ()),
}


@pytest.mark.parametrize("text", FREQUENCIES)
def test_a_frequency_is_found_with_and_without_gaps(text):
    stamps = pd.date_range("2016-01-01", periods=60, freq=text).to_numpy(dtype="datetime64[ns]")
    season, calendar = FREQUENCIES[text]
    gaps = np.delete(stamps, [7, 8, 20, 41])
    for given in (stamps, gaps):
        found = Frequency.of([given], None)
        assert (found.text, found.season(), found.calendar()) == (text, season, calendar)
        assert np.array_equal(found.steps(given[0], given[-1]), stamps)
        assert np.array_equal(found.ahead(stamps[-4], 3), stamps[-3:])
    Frequency("time", text).check(stamps, str, gaps=False)
    Frequency("time", text).check(gaps, str, gaps=True)
    with pytest.raises(DataError, match="4 stamps are missing"):
        Frequency("time", text).check(gaps, str, gaps=False)
