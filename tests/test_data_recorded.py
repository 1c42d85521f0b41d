"""Images, piano rolls and heart beats, made small and read back; and the real data sets where they are."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest
import scipy.io
import torch

from ostinato.data import Buckets, image_sequences, load, read_beats, read_idx, read_rolls, step_order
from ostinato.data.catalogue import entries
from ostinato.data.named import NAMED
from ostinato.errors import DataError


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------- images


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("shape", [(5,), (3, 4, 2), (0, 4, 2)])
def test_idx_is_read_packed_or_not(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("a", "a.gz"):
        read = read_idx(tmp_path / name)
        assert read.dtype == torch.uint8
        assert torch.equal(read, torch.from_numpy(array))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is not idx"),
        (b"\x89PNG", "89 50 4e 47"),
        (b"\0\0\x0d\x01" + b"\0\0\0\1" + b"\0" * 4, "type 0x0d"),
        (idx(np.zeros((3, 4), np.uint8))[:-1], "[3, 4], 12 bytes, but holds 11"),
        (idx(np.zeros((3, 4), np.uint8))[:9], "holds 0"),
        (idx(np.zeros(3, np.uint8)) + b"!", "holds 4"),
    ],
)
def test_what_is_no_idx_is_refused(tmp_path, content, word):
    (tmp_path / "a").write_bytes(content)
    assert word in refusal(read_idx, tmp_path / "a")


def test_images_are_sequences_of_rows_or_of_pixels():
    images = torch.tensor([[[0, 51], [102, 255]], [[255, 0], [0, 0]]], dtype=torch.uint8)
    rows = image_sequences(images, "rows")
    assert torch.equal(rows[0], torch.tensor([[0.0, 0.2], [0.4, 1.0]]))
    pixels = image_sequences(images)
    assert torch.equal(pixels[0], torch.tensor([[0.0], [0.2], [0.4], [1.0]]))
    assert pixels.lengths.tolist() == [4, 4]
    order = torch.tensor([3, 0, 2, 1])
    shuffled = image_sequences(images, order=order)
    for n in range(2):
        assert torch.equal(shuffled[n], pixels[n][order])
    assert torch.equal(image_sequences(images, "rows", torch.tensor([1, 0]))[0], rows[0].flip(0))
    assert "each of 0 to 3 once" in refusal(image_sequences, images, order=torch.tensor([0, 0, 1, 2]))
    assert "by 'columns'" in refusal(image_sequences, images, "columns")
    assert "uint8" in refusal(image_sequences, images.float())


def test_the_order_of_steps_depends_on_the_seed_alone():
    assert torch.equal(step_order(784, 3), step_order(784, 3))
    assert not torch.equal(step_order(784, 3), step_order(784, 4))
    assert torch.equal(step_order(784, 3).sort().values, torch.arange(784))


# ---------------------------------------------------------------- piano rolls

ROLLS = {
    part: [(np.random.default_rng(n).random((t, 6)) < 0.3).astype(np.uint8) for n, t in enumerate(lengths)]
    for part, lengths in {"train": (3, 5), "valid": (2,), "test": (4, 1, 2)}.items()
}


def cells(rolls) -> np.ndarray:
    made = np.empty((1, len(rolls)), dtype=object)
    made[0, :] = rolls
    return made


def as_mat(folder, rolls=ROLLS, **more):
    scipy.io.savemat(folder / "r.mat", {f"{part}data": cells(found) for part, found in rolls.items()} | more)
    return folder / "r.mat"


def as_npz(folder, rolls=ROLLS):
    arrays = {f"{part}_values": np.concatenate(found) for part, found in rolls.items()}
    arrays |= {f"{part}_lengths": np.array([len(roll) for roll in found]) for part, found in rolls.items()}
    np.savez(folder / "r.npz", **arrays)
    return folder / "r.npz"


@pytest.mark.parametrize("write", [as_mat, as_npz])
def test_rolls_are_read_with_their_split(tmp_path, write):
    read = read_rolls(write(tmp_path))
    for part, rolls in ROLLS.items():
        sequences = getattr(read, part)
        assert sequences.values.dtype == torch.float32
        assert len(sequences) == len(rolls)
        for n, roll in enumerate(rolls):
            assert torch.equal(sequences[n], torch.from_numpy(roll).float())


def test_rolls_that_cannot_be_used_are_refused(tmp_path):
    assert "has no testdata; it has traindata, validdata" in refusal(
        read_rolls, as_mat(tmp_path, {part: ROLLS[part] for part in ("train", "valid")})
    )
    assert "values other than 0 and 1" in refusal(read_rolls, as_npz(tmp_path, ROLLS | {"valid": [np.full((1, 6), 2)]}))
    assert "equally many" in refusal(read_rolls, as_npz(tmp_path, ROLLS | {"valid": [np.ones((2, 5))]}))
    assert "traindata holds no cells" in refusal(read_rolls, as_mat(tmp_path, traindata=np.ones((3, 6))))
    assert "there is no file" in refusal(read_rolls, tmp_path / "none.mat")
    assert "there is no file" in refusal(read_rolls, tmp_path / "none.npz")
    (tmp_path / "bad.mat").write_bytes(b"no such thing at all" * 20)
    assert "cannot be read as a .mat" in refusal(read_rolls, tmp_path / "bad.mat")
    damaged = bytearray(as_mat(tmp_path).read_bytes())
    damaged[144] = 5  # the class of the first variable: scipy's reader ends the process that reads it
    (tmp_path / "bad.mat").write_bytes(damaged)
    assert "cannot be read as a .mat" in refusal(read_rolls, tmp_path / "bad.mat")
    np.savez(tmp_path / "part.npz", train_values=np.ones((1, 2)))
    assert "no array train_lengths, valid_values" in refusal(read_rolls, tmp_path / "part.npz")


# ---------------------------------------------------------------- heart beats

BEATS = {
    "fs": np.array(360),
    "units_per_mV": np.array(200),
    "ecg_b": np.array([0, 100, -300, 50], np.int16),
    "R_b": np.array([1, 3], np.int32),
    "PVC_b": np.array([3], np.int32),
    "ecg_a": np.array([200], np.int16),
    "R_a": np.array([], np.int32),
}


def beats(folder, **changes):
    np.savez(folder / "b.npz", **{key: value for key, value in (BEATS | changes).items() if value is not None})
    return folder / "b.npz"


def test_beats_are_read_in_millivolts(tmp_path):
    a, b = read_beats(beats(tmp_path))
    assert (a.name, b.name, b.rate) == ("a", "b", 360.0)
    assert b.signal.dtype == torch.float32
    assert b.signal.tolist() == [0.0, 0.5, -1.5, 0.25]
    assert (b.beats.tolist(), b.ventricular.tolist()) == ([1, 3], [3])
    assert b.beats.dtype == b.ventricular.dtype == torch.int64
    assert (a.beats.tolist(), a.ventricular.tolist()) == ([], [])
    assert read_beats(beats(tmp_path, units_per_mV=None))[1].signal.tolist() == [0.0, 100.0, -300.0, 50.0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"fs": None}, "no array fs"),
        ({"fs": np.array(0)}, "fs is 0"),
        ({"R_b": None}, "ecg_b and no R_b"),
        ({"R_b": np.array([3, 1])}, "R_b must be rising"),
        ({"R_b": np.array([1, 4])}, "from 0 to 3"),
        ({"PVC_b": np.array([-1])}, "PVC_b must be"),
        ({"ecg_b": np.array([0.0, np.nan, 1.0, 2.0])}, "ecg_b[1] is nan"),
        ({"ecg_b": np.ones((4, 1))}, "[4, 1]"),
        ({"ecg_a": None, "ecg_b": None}, "no ecg_NAME"),
    ],
)
def test_beats_that_cannot_be_used_are_refused(tmp_path, changes, word):
    assert word in refusal(read_beats, beats(tmp_path, **changes))


# ---------------------------------------------------------------- the real ones

real = pytest.mark.skipif(not os.environ.get("OSTINATO_DATA"), reason="needs the real data: set OSTINATO_DATA")


def test_every_data_set_of_the_catalogue_has_a_reader():
    assert list(NAMED) == [entry.name for entry in entries()]
    assert "no data set named 'none'" in refusal(load, "none")


@real
def test_the_texts_are_as_the_catalogue_says():
    text = load("tinyshakespeare")
    assert (len(text), len(set(text))) == (1_115_394, 65)
    names = load("surnames")
    assert (len(names), len(names.classes)) == (20_050, 18)
    assert names.labels.count("Russian") / len(names) > 0.4
    reviews = load("sentence_polarity")
    assert [reviews.labels.count(word) for word in ("neg", "pos")] == [5331, 5331]
    assert len(load("fra_eng")) == 142_787
    pronunciations = load("cmudict")
    assert (len(pronunciations), len({word for word, _ in pronunciations})) == (135_166, 126_052)
    assert ("hello", "HH AH0 L OW1") in pronunciations


@real
def test_the_series_are_as_the_catalogue_says():
    vowels = load("japanese_vowels")
    assert (len(vowels.train), len(vowels.test)) == (270, 370)
    assert vowels.train.values.values.shape[1] == 12
    lengths = torch.cat([vowels.train.values.lengths, vowels.test.values.lengths])
    assert (int(lengths.min()), int(lengths.max()), len(set(vowels.train.labels))) == (7, 29, 9)
    temperature = load("etth1")
    assert (len(temperature), len(temperature.columns)) == (17_420, 8)
    hours = np.diff(temperature.times("date")).astype("timedelta64[h]").astype(int)
    assert set(hours.tolist()) == {1}
    assert np.isfinite(temperature.numbers("OT")).all()
    storms = load("storms")
    assert len(storms) == 19_537
    assert np.isnan(storms.numbers("category", missing=True)).any()


@real
def test_the_recordings_are_as_the_catalogue_says():
    digits = load("mnist")
    assert (list(digits.train_images.shape), list(digits.test_images.shape)) == ([60_000, 28, 28], [10_000, 28, 28])
    assert digits.train_labels.bincount().tolist()[:2] == [5923, 6742]
    rolls = load("jsb_chorales")
    assert [len(part) for part in (rolls.train, rolls.valid, rolls.test)] == [229, 76, 77]
    assert rolls.train.values.shape[1] == 88
    recordings = load("mitbih")
    assert [one.name for one in recordings][:2] == ["100", "102"]
    assert all(len(one.signal) == 650_000 and one.rate == 360 for one in recordings)
    assert len(recordings[0].beats) == 2273
    assert load("twemoji")["images"].shape == (1911, 32, 32, 3)
    assert load("robot")["x"].shape == (5, 500)


@real
def test_little_of_a_batch_is_padding():
    names = torch.tensor([len(name) for name in load("surnames").texts])
    assert Buckets(names, 64).padding() < 0.03
    assert Buckets(load("japanese_vowels").train.values.lengths, 16).padding() < 0.06
