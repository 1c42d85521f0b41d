"""What the task classify reads: every form of the same data gives the same sequences; wrong input is told as such."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ostinato.data import Digits, Given, Sequences, Series, Texts, image_sequences, step_order
from ostinato.errors import DataError, OptionError
from ostinato.tasks.classify import files
from ostinato.tasks.classify.config import ClassifyConfig
from ostinato.tasks.classify.data import Dataset
from ostinato.tasks.classify.readers import Lexicon, Scaling, reader_from_json
from small_classes import dataset, idx_images, text_table, wave_arrays, wave_table, wave_ts, waves, words


def texts_of(found: Dataset, part: str = "train") -> list[tuple[str, str]]:
    """Texts as they were read back from tokens, with their labels, sorted."""
    held, reader = found.parts[part], found.reader
    assert isinstance(reader, Lexicon)
    spelt = ["".join(reader.entries[t - 1] if t else "?" for t in held.sequences[n].tolist()) for n in range(len(held))]
    return sorted(zip(spelt, (found.classes[n] for n in held.targets.tolist()), strict=True))


def sizes(found: Dataset) -> dict[str, int]:
    return {name: len(part) for name, part in found.parts.items()}


# ---------------------------------------------------------------- forms


def test_texts_are_read_from_tables_folders_and_files(tmp_path):
    rows = words(30)
    (tmp_path / "t.tsv").write_text("\n".join(["label\ttext", *(f"{label}\t{text}" for text, label in rows)]))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    (tmp_path / "files").mkdir()
    for label in ("c0", "c1", "c2"):
        (tmp_path / "files" / f"{label}.txt").write_text("\n\n".join(t for t, y in rows if y == label))
        (tmp_path / "folders" / label).mkdir(parents=True)
    for n, (text, label) in enumerate(rows):
        (tmp_path / "folders" / label / f"{n:03d}.txt").write_text(text + "\n")
    text_table(tmp_path, [(t, y) for t, y in rows], "other.csv")
    other = tmp_path / "other.csv"
    other.write_text(other.read_text().replace("text,label", "body,kind"))
    found = [
        dataset(text_table(tmp_path, rows)),
        dataset(tmp_path / "t.tsv"),
        dataset(tmp_path / "t.jsonl"),
        dataset(tmp_path / "files"),
        dataset(tmp_path / "folders"),
        dataset(other, text_column="body", label_column="kind"),
    ]
    for each in found:
        assert each.classes == ("c0", "c1", "c2")
        assert sizes(each) == {"train": 21, "validation": 6, "test": 3}
        assert sorted(pair for part in each.parts for pair in texts_of(each, part)) == sorted(rows)
    assert found[0].sha256 == found[1].sha256 == found[2].sha256  # by what they say, not by how it is written
    assert texts_of(found[0]) == texts_of(found[1]) == texts_of(found[5])


def test_parquet_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    rows = words(30)
    pandas.DataFrame({"text": [t for t, _ in rows], "label": [y for _, y in rows]}).to_parquet(tmp_path / "t.parquet")
    assert dataset(tmp_path / "t.parquet").sha256 == dataset(text_table(tmp_path, rows)).sha256


def test_numbers_are_read_from_arrays_tables_and_ts(tmp_path):
    from_arrays = dataset(wave_arrays(tmp_path))
    from_table = dataset(wave_table(tmp_path))
    from_ts = dataset(wave_ts(tmp_path / "waves.ts", slice(None)))
    expected, labels = waves()
    for found in (from_arrays, from_table, from_ts):
        assert found.classes == ("down", "up")
        assert isinstance(found.reader, Scaling)
        assert sum(len(part) for part in found.parts.values()) == 60
        train = found.parts["train"]
        torch.testing.assert_close(train.sequences.values, from_arrays.parts["train"].sequences.values)
        assert torch.equal(train.targets, from_arrays.parts["train"].targets)
    values = torch.tensor(np.concatenate(expected)).float()
    plain = dataset(tmp_path / "waves.npz", standardize=False)
    total = sum(part.sequences.values.double().sum(0) for part in plain.parts.values())
    torch.testing.assert_close(total, values.double().sum(0))
    assert labels.count("up") == 30


def test_a_given_test_part_is_taken_and_the_rest_is_split(tmp_path):
    wave_ts(tmp_path / "W_TRAIN.ts", slice(0, 40))
    wave_ts(tmp_path / "W_TEST.ts", slice(40, 60))
    found = dataset(tmp_path / "W_TRAIN.ts")
    assert sizes(found) == {"train": 34, "validation": 6, "test": 20}
    own = dataset(tmp_path / "W_TRAIN.ts", test_data=str(wave_ts(tmp_path / "other.ts", slice(0, 4))))
    assert len(own.parts["test"]) == 4
    assert found.sha256 != own.sha256
    (tmp_path / "W_TEST.ts").unlink()
    assert sizes(dataset(tmp_path / "W_TRAIN.ts")) == {"train": 28, "validation": 6, "test": 6}


def test_images_are_read_by_rows_by_pixels_and_in_a_fixed_order(tmp_path):
    path = idx_images(tmp_path, "train", 30)
    idx_images(tmp_path, "t10k", 8)
    by_rows = dataset(path)
    assert by_rows.parts["test"].sequences.lengths.tolist() == [4] * 8
    assert by_rows.parts["test"].sequences.values.shape == (32, 3)
    by_pixels = dataset(tmp_path, images_by="pixels")
    mixed = dataset(tmp_path, images_by="pixels", permute=7)
    from ostinato.data import read_idx

    images = read_idx(tmp_path / "t10k-images-idx3-ubyte")
    assert torch.equal(by_pixels.parts["test"].sequences.values, image_sequences(images).values)
    order = step_order(12, 7)
    assert torch.equal(mixed.parts["test"].sequences[3], by_pixels.parts["test"].sequences[3][order])
    assert by_pixels.classes == ("0", "1")
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    assert len(dataset(path).parts["test"]) > 0


def test_data_sets_by_name_are_read(monkeypatch):
    rows = words(30)
    values, labels = waves(20)
    series = Series(Sequences.of([torch.tensor(one).float() for one in values]), labels)
    images = torch.randint(0, 255, (24, 3, 3), dtype=torch.uint8)
    digits = torch.arange(24).remainder(3).to(torch.uint8)
    held = {
        "surnames": Texts([t for t, _ in rows], [y for _, y in rows], "surnames"),
        "japanese_vowels": Given(series, series),
        "mnist": Digits(images, digits, images[:6], digits[:6]),
    }
    monkeypatch.setattr(files, "load", held.__getitem__)
    assert sizes(dataset("surnames")) == {"train": 21, "validation": 6, "test": 3}
    assert sizes(dataset("japanese_vowels")) == {"train": 18, "validation": 2, "test": 20}
    assert len(dataset("mnist").parts["test"]) == 6


@pytest.mark.skipif("OSTINATO_DATA" not in os.environ, reason="OSTINATO_DATA names no folder with the real data")
def test_the_real_data_sets_are_read():
    surnames = dataset("surnames")
    assert len(surnames.classes) == 18
    assert abs(len(surnames.parts["test"]) / sum(map(len, surnames.parts.values())) - 0.15) < 1e-3
    vowels = dataset("japanese_vowels")
    assert len(vowels.parts["train"]) + len(vowels.parts["validation"]) == 270
    assert len(vowels.parts["test"]) == 370


# ---------------------------------------------------------------- reading


def test_words_are_split_lowered_and_counted():
    reading = ClassifyConfig.of(tokens="words", lower=True, min_count=2).reading
    lexicon = Lexicon.of(["It's good, GOOD!", "good it’s", "Bad , it's"], reading)
    assert lexicon.split("It's a GOOD-ish one!") == ["it's", "a", "good-ish", "one", "!"]
    assert lexicon.entries == ("good", ",", "it's")
    assert reader_from_json(json.loads(json.dumps(lexicon.to_json()))) == lexicon


def test_tokens_come_from_the_training_part_alone(tmp_path):
    rows = [(f"xy{chr(0x4E00 + n)}", f"c{n % 2}") for n in range(40)]
    found = dataset(text_table(tmp_path, rows))
    assert len(found.reader.entries) == 28 + 2  # type: ignore[union-attr]
    for part in ("validation", "test"):
        assert all(text == "xy?" for text, _ in texts_of(found, part))


def test_a_letter_is_the_same_however_it_is_composed(tmp_path):
    lexicon = Lexicon.of(["é"], ClassifyConfig.of().reading)
    assert lexicon.split("é") == ["é"]


@pytest.mark.parametrize(("keep", "expected"), [("start", "xabc"), ("end", "cdex")])
def test_long_sequences_are_cut(tmp_path, keep, expected):
    rows = [("xabcdex", f"c{n % 2}") for n in range(12)] + [("xe", "c0")]
    found = dataset(text_table(tmp_path, rows), max_length=4, keep=keep)
    assert {text for part in found.parts for text, _ in texts_of(found, part)} == {expected, "xe"}


def test_classes_and_parts_are_drawn_by_their_seed(tmp_path):
    data = text_table(tmp_path)
    one, same, other = dataset(data), dataset(data), dataset(data, split_seed=1)
    assert texts_of(one) == texts_of(same) != texts_of(other)
    for found in (one, other):
        for part in found.parts.values():
            assert len(set(torch.bincount(part.targets).tolist())) == 1  # of each class as many


def test_folds_cover_all_data(tmp_path):
    data = text_table(tmp_path)
    tests = [texts_of(dataset(data, folds=4, fold=k), "test") for k in range(4)]
    assert sorted(pair for test in tests for pair in test) == sorted(words())
    assert [len(test) for test in tests] == [15] * 4
    found = dataset(data, folds=4, fold=0)
    assert len(found.parts["train"]) + len(found.parts["validation"]) == 45
    with pytest.raises(OptionError, match="folds is 4, and no fold is chosen"):
        dataset(data, folds=4)


def test_what_is_in_two_parts_and_what_a_part_lacks_is_told(tmp_path):
    rows = [("same", "c0")] * 20 + [(f"n{n}", "c1") for n in range(10)] + [("two", "c2"), ("three", "c2")]
    facts = dataset(text_table(tmp_path, rows)).facts
    assert facts[1] == "3 texts of the validation part stand in the training part too"
    assert "the test part has no example of c2" in facts


def test_constant_channels_are_left_out_when_that_is_asked_for(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 5, 3))
    values[:, :, 1] = 4.0
    np.savez(tmp_path / "v.npz", values=values, labels=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"such as number 2 \(4\), say nothing and cannot be scaled.*--drop-constant"):
        dataset(tmp_path / "v.npz")
    assert dataset(tmp_path / "v.npz", drop_constant=True).parts["train"].sequences.values.shape[1] == 2
    assert dataset(tmp_path / "v.npz", standardize=False).parts["train"].sequences.values.shape[1] == 3
    values[:] = 1.0
    np.savez(tmp_path / "v.npz", values=values, labels=np.arange(20) % 2)
    with pytest.raises(DataError, match="every channel is constant"):
        dataset(tmp_path / "v.npz", standardize=False)


def test_rare_classes_are_left_out_when_that_is_asked_for(tmp_path):
    rows = [*words(30), ("xk", "rare"), ("xl", "other")]
    with pytest.raises(DataError, match=r"line 33: the class 'other' has this one example.*1 other classes \(rare\)"):
        dataset(text_table(tmp_path, rows))
    found = dataset(text_table(tmp_path, rows), min_examples=2, test_data=str(text_table(tmp_path, rows, "test.csv")))
    assert found.classes == ("c0", "c1", "c2")
    assert len(found.parts["test"]) == 30


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\n \n", "holds nothing but blanks"),
        (b"text,label\n", "a header .* and no rows"),
        (b"text,label\na,x\nb\n", r"line 3: 1 values, but the header has 2 columns"),
        (b"text,label\na,x\nb,y,z\n", r"line 3: 3 values, but the header has 2 columns"),
        (b"text,lable\na,x\n", r"no column 'label'.*Did you mean 'lable'"),
        (b"body,label\na,x\n", r"no column 'text' with texts \(--text-column\), or 'id'"),
        (b"text;label\na;x\n", "no column 'text'"),
        (b"text,label\nnaive,x\nna\xefve,y\n", r"not utf-8: byte 0xef .* line 3.*--encoding latin-1"),
        (b"text,label\nna\xc3\xafve,x\nna\xefve,y\n", r"mixes encodings: byte 0xef .* line 3"),
        (b"text,label\na,x\n,y\n", r"line 3: the text is empty; fill it in or take it away"),
        (b"text,label\na,x\nb,\n", r"line 3: 'label' is missing"),
        (b"text,label\na,x\nb, x \nc,x\n", "all 3 examples are of one class, 'x'; pass examples of two classes"),
        (b"text,label\na,x\nb,x\nc,y\n", "line 4: the class 'y' has this one example"),
        (b"id,v,label\n1,2,x\n1,oops,x\n2,3,y\n", "line 3: 'v' is 'oops', which is no finite number"),
        (b"id,v,label\n1,2,x\n1,,x\n2,3,y\n", r"line 3: 'v' is missing"),
        (b"id,v,label\n1,2,x\n1,3,y\n", "line 3: the label of '1' is 'y', but 'x' before"),
        (b"id,label\n1,x\n", "has no columns of values"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        dataset(tmp_path / "t.csv")


def write_folder(folder: Path) -> Path:
    for name, content in (("a.txt", "one\ntwo\nthree"), ("b.txt", "four\nfive")):
        (folder / "texts").mkdir(exist_ok=True)
        (folder / "texts" / name).write_text(content)
    return folder / "texts"


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "c.txt").write_bytes(b"caf\xe9\nn\xef")
    with pytest.raises(DataError, match=r"c\.txt is not utf-8.*--encoding latin-1"):
        dataset(folder)
    (folder / "c.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.txt is empty"):
        dataset(folder)
    (folder / "c.txt").unlink()
    (folder / "d").mkdir()
    with pytest.raises(DataError, match="both folders, such as d, and files"):
        dataset(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty; pass a folder"):
        dataset(tmp_path / "empty")


def test_other_data_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="there are no data; pass a file, a folder or one of surnames"):
        Dataset.read(ClassifyConfig.of())
    with pytest.raises(DataError, match="no file or folder surname .* or pass one of surnames"):
        dataset("surname")
    (tmp_path / "t.docx").write_text("x")
    with pytest.raises(DataError, match=r"t\.docx does not end in \.csv"):
        dataset(tmp_path / "t.docx")
    (tmp_path / "t.txt").write_text("one\ntwo")
    with pytest.raises(DataError, match=r"t\.txt has no labels"):
        dataset(tmp_path / "t.txt")
    np.savez(tmp_path / "v.npz", values=np.zeros((3, 2)), lengths=np.array([2, 0, 1]), labels=np.array(["a", "b", "a"]))
    with pytest.raises(DataError, match=r"v\.npz, sequence 2 has no steps; take it away"):
        dataset(tmp_path / "v.npz")
    np.savez(tmp_path / "v.npz", values=np.array([1.0, np.nan]), lengths=np.array([2]), labels=np.array(["a"]))
    with pytest.raises(DataError, match="step 2: value 1 is missing"):
        dataset(tmp_path / "v.npz")
    images = idx_images(tmp_path, "train", 10)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(b"\0\0\x08\x01" + (9).to_bytes(4, "big") + bytes(9))
    with pytest.raises(DataError, match="has .9. labels for 10 images"):
        dataset(images)


def test_a_test_part_that_does_not_fit_is_refused(tmp_path):
    data = text_table(tmp_path)
    other = text_table(tmp_path, [("xq", "c0"), ("xk", "klingon")], "test.csv")
    with pytest.raises(DataError, match=r"test\.csv, line 3: the label 'klingon' is none of the 3 classes"):
        dataset(data, test_data=str(other))
    with pytest.raises(DataError, match="holds series, but .*texts.csv holds texts"):
        dataset(data, test_data=str(wave_arrays(tmp_path)))
    with pytest.raises(OptionError, match=r"comes with a test part, and folds is 3; leave --folds out"):
        dataset(data, test_data=str(text_table(tmp_path, name="same.csv")), folds=3)


@pytest.mark.parametrize("pooling", [[], ["last", "last"], ["median"]])
def test_poolings_that_there_are_not_are_refused(pooling):
    with pytest.raises(OptionError, match="pass one of last, mean, max, attention"):
        ClassifyConfig.of(pooling=pooling)


def test_tokens_that_are_all_rare_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the .* tokens comes 1000 times .*; lower --min-count"):
        dataset(text_table(tmp_path), min_count=1000)
