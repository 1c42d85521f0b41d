"""Numeric sequences: the same from every format, and the place of what cannot be used."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import read_series
from ostinato.errors import DataError

CASES = [np.array([[1.5, -2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[7.0, 8.0]])]
LABELS = ["yes", "no"]

TS = """#a comment
@problemName Small
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true yes no
@data
1.5,3,5:-2,4,6:yes

# another
7:8:no
"""

LONG = "who,when,a,b,kind\nx,1,1.5,-2,yes\nx,2,3,4,yes\ny,1,7,8,no\nx,5,5,6,yes\n"


def refusal(*args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        read_series(*args, **kwargs)
    return str(caught.value)


def ts(folder, text):
    path = folder / "t.ts"
    path.write_text(text)
    return path


def npz(folder, **arrays):
    np.savez(folder / "t.npz", **arrays)
    return folder / "t.npz"


def check(series, labels=LABELS):
    assert len(series) == len(CASES)
    for n, case in enumerate(CASES):
        assert series.values[n].dtype == torch.float32
        assert torch.equal(series.values[n], torch.tensor(case, dtype=torch.float32))
    assert series.labels == labels


# ---------------------------------------------------------------- the same from every format


def test_ts(tmp_path):
    check(read_series(ts(tmp_path, TS)))
    check(read_series(ts(tmp_path, TS.upper().replace("YES", "yes").replace("NO\n", "no\n"))))


def test_long_table(tmp_path):
    (tmp_path / "t.csv").write_text(LONG)
    series = read_series(tmp_path / "t.csv", id="who", label="kind", time="when")
    check(series)
    assert (series.names, series.channels) == (["x", "y"], ["a", "b"])
    check(read_series(io.StringIO(LONG), id="who", values=["a", "b"]), labels=None)


def test_npz_one_behind_another(tmp_path):
    flat, lengths = np.concatenate(CASES), np.array([3, 1])
    check(read_series(npz(tmp_path, values=flat, lengths=lengths, labels=np.array(LABELS))))
    check(read_series(npz(tmp_path, values=flat, lengths=lengths, labels=np.array(LABELS, "S"))))
    check(read_series(npz(tmp_path, values=flat.astype(np.float32), lengths=lengths.astype(np.uint8))), labels=None)


def test_npz_dense(tmp_path):
    dense = np.full((2, 3, 2), np.nan)  # what is not meant does not matter
    for n, case in enumerate(CASES):
        dense[n, : len(case)] = case
    check(read_series(npz(tmp_path, values=dense, lengths=np.array([3, 1]), labels=np.array(LABELS))))
    whole = np.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(read_series(npz(tmp_path, values=whole)).values[1], torch.tensor(whole[1]).float())


def test_one_channel_needs_no_axis(tmp_path):
    flat = read_series(npz(tmp_path, values=np.arange(5), lengths=np.array([2, 3]))).values
    assert flat.values.tolist() == [[0], [1], [2], [3], [4]]
    dense = read_series(npz(tmp_path, values=np.arange(6).reshape(2, 3), labels=np.array([4, 2])))
    assert dense.values.lengths.tolist() == [3, 3]
    assert dense.labels == ["4", "2"]
    assert read_series(ts(tmp_path, "@classLabel false\n@data\n1,2\n3\n")).values.values.tolist() == [[1], [2], [3]]


def test_tags_go_with_their_steps(tmp_path):
    text = "id,a,tag\nx,1,N\ny,2,V\nx,3,N\n"
    assert read_series(io.StringIO(text), tag="tag").tags == ["N", "N", "V"]  # x, x, y
    tagged = npz(tmp_path, values=np.arange(3), lengths=np.array([2, 1]), tags=np.array(["N", "N", "V"]))
    assert read_series(tagged).tags == ["N", "N", "V"]


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.data(), st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_what_is_written_as_ts_is_read_back(tmp_path_factory, data, width, lengths):
    cases = [np.array(data.draw(st.lists(NUMBERS, min_size=t * width, max_size=t * width))) for t in lengths]
    cases = [case.reshape(-1, width) for case in cases]
    lines = [":".join(",".join(map(repr, channel.tolist())) for channel in case.T) + ":c" for case in cases]
    path = ts(tmp_path_factory.mktemp("ts"), f"@dimensions {width}\n@classLabel true c\n@data\n" + "\n".join(lines))
    series = read_series(path)
    for n, case in enumerate(cases):
        assert torch.equal(series.values[n], torch.tensor(case, dtype=torch.float32))


# ---------------------------------------------------------------- missing values


def test_missing_values_are_refused_with_their_place(tmp_path):
    assert "line 10: step 2: value 1 is missing" in refusal(ts(tmp_path, TS.replace("1.5,3,5", "1.5,?,5")))
    assert "line 3: 'b' is missing" in refusal(io.StringIO(LONG.replace("3,4", "3,")), id="who", label="kind")
    bad = np.array([1.0, 2.0, np.nan, 4.0])
    assert "sequence 2, step 1: value 1 is missing" in refusal(npz(tmp_path, values=bad, lengths=np.array([2, 2])))


def test_missing_values_are_interpolated_when_asked(tmp_path):
    path = ts(tmp_path, "@dimensions 2\n@classLabel false\n@data\n?,2,?,?,8,?:1,1,1,1,?,1\n5,?:1,1\n")
    series = read_series(path, missing="interpolate")
    assert series.values[0].t().tolist() == [[2, 2, 4, 6, 8, 8], [1] * 6]
    assert series.values[1].t().tolist() == [[5, 5], [1, 1]]
    kept = read_series(path, missing="keep")
    assert torch.isnan(kept.values.values).sum() == 6
    text = "id,a\nx,1\ny,10\nx,\nx,3\ny,NA\n"
    assert read_series(io.StringIO(text), missing="interpolate").values.values.flatten().tolist() == [1, 2, 3, 10, 10]


def test_a_sequence_without_values_cannot_be_interpolated(tmp_path):
    path = ts(tmp_path, "@dimensions 1\n@classLabel false\n@data\n1,2\n?,?\n")
    assert "line 5" in refusal(path, missing="interpolate")
    assert "'guess'" in refusal(path, missing="guess")


@pytest.mark.parametrize("missing", ["refuse", "interpolate", "keep"])
def test_infinity_is_never_a_value(tmp_path, missing):
    path = npz(tmp_path, values=np.array([1.0, 1e300]), lengths=np.array([2]))
    assert "sequence 1, step 2: value 1 is inf" in refusal(path, missing=missing)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TS.replace("@timeStamps false", "@timeStamps true"), ["time stamps", "without them"]),
        (TS.replace("@data\n", ""), ["line 9", "before @data"]),
        ("@classLabel true a\n", ["no @data"]),
        ("@classLabel true a\n@data\n", ["no sequences"]),
        (TS.replace("7:8:no", "7:8,9:no"), ["line 13: channel 2 has 2 values, but channel 1 has 1"]),
        (TS.replace("7:8:no", "7:no"), ["line 13: 1 channels, but @dimensions says 2"]),
        (TS.replace("7:8:no", "7:8:maybe"), ["line 13", "'maybe'", "lists yes, no"]),
        (TS.replace("7:8:no", "7:8:"), ["line 13", "the label is ''"]),
        (TS.replace("7:8:no", "no"), ["line 13: 0 channels"]),
        (TS.replace("7:8:no", "7:x:no"), ["line 13: channel 2 holds 'x'", "written ?"]),
        (TS.replace("7:8:no", "(0,7):(0,8):no"), ["line 13", "time stamps are not read"]),
        (TS.replace("@dimensions 2\n", "").replace("7:8:no", "7:no"), ["line 12: 1 channels, but 2 before"]),
        ("", ["is empty"]),
    ],
)
def test_a_ts_that_cannot_be_used_says_where(tmp_path, text, words):
    said = refusal(ts(tmp_path, text))
    assert str(tmp_path / "t.ts") in said
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (LONG.replace("y,1,7,8,no", "y,1,7,8,no\ny,1,7,8,no"), {"time": "when"}, ["line 5", "'y'", "comes twice"]),
        (LONG.replace("x,5", "x,0"), {"time": "when"}, ["line 5", "'x'", "goes back"]),
        (LONG.replace("6,yes", "6,no"), {}, ["line 5", "'x' is 'no', but 'yes' before", "tag"]),
        (LONG.replace("x,2", ",2"), {}, ["line 3: 'who' is missing"]),
        (LONG, {"id": "id"}, ["no column 'id'"]),
        (LONG, {"values": ["c"]}, ["no column 'c'"]),
        ("who,kind\nx,1\n", {}, ["no columns of values"]),
        (LONG.replace("7,8", "7,eight"), {}, ["line 4: 'b' is 'eight'"]),
    ],
)
def test_a_long_table_that_cannot_be_used_says_where(text, options, words):
    said = refusal(io.StringIO(text), **{"id": "who", "label": "kind", **options})
    assert [word for word in words if word not in said] == []


def test_times_may_be_dates():
    text = "id,t,a\nx,2020-01-01,1\nx,2020-01-02,2\n"
    assert len(read_series(io.StringIO(text), time="t").values) == 1
    assert "goes back" in refusal(io.StringIO(text.replace("01-02", "01-01").replace("01-01,1", "01-03,1")), time="t")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones(3)}, ["no array values", "it has x"]),
        ({"values": np.ones(3)}, ["[S]", "no lengths"]),
        ({"values": np.ones(3), "lengths": np.array([1, 1])}, ["sum to 2", "3 steps"]),
        ({"values": np.ones((2, 3, 1)), "lengths": np.array([4, 1])}, ["lengths up to 4"]),
        ({"values": np.ones((2, 3, 1)), "lengths": np.array([1])}, ["1 lengths"]),
        ({"values": np.ones(3), "lengths": np.array([1.5, 1.5])}, ["lengths are float64"]),
        ({"values": np.ones(3), "lengths": np.array([4, -1])}, ["0 or more"]),
        ({"values": np.array(["a"])}, ["<U1"]),
        ({"values": np.ones((1, 1, 1, 1))}, ["[1, 1, 1, 1]"]),
        ({"values": np.ones((2, 3)), "labels": np.array([1])}, ["labels are [1]", "[2]"]),
        ({"values": np.array([np.ones(1), np.ones(2)], dtype=object)}, ["Python objects", "lengths [N]"]),
    ],
)
def test_an_npz_that_cannot_be_used_says_why(tmp_path, arrays, words):
    said = refusal(npz(tmp_path, **arrays))
    assert str(tmp_path / "t.npz") in said
    assert [word for word in words if word not in said] == []


def test_what_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "t.npz"
    assert "there is no file" in refusal(path)
    path.write_bytes(b"PK\x03\x04")
    assert "not a whole .npz" in refusal(path)
    path.write_bytes(b"")
    assert "not a whole .npz" in refusal(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(path)
    assert "one array without a name" in refusal(path)
