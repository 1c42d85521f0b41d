"""Texts with labels: from tables, folders and zips."""

from __future__ import annotations

import io
import zipfile

import pytest

from ostinato.data import read_lines, read_texts, read_zipped_texts
from ostinato.errors import DataError


def tree(folder, files: dict[str, bytes]):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


EXPECTED = [("bad", "so dull"), ("bad", "worse"), ("good", "a joy")]


def pairs(texts) -> list[tuple[str, str]]:
    return list(zip(texts.labels, texts.texts, strict=True))


def test_a_table_a_folder_of_folders_and_a_folder_of_files_say_the_same(tmp_path):
    table = tree(tmp_path / "t", {"t.csv": b"text,label\nso dull,bad\nworse,bad\na joy,good\n"}) / "t.csv"
    folders = tree(
        tmp_path / "d",
        {"bad/1.txt": b"so dull\n", "bad/2.txt": b" worse", "good/1.txt": b"a joy\r\n", "bad/.hidden": b"no"},
    )
    files = tree(tmp_path / "f", {"bad.txt": b"so dull\n\n  worse\n", "good.txt": b"a joy", ".hidden": b"no"})
    for source in (table, folders, files):
        read = read_texts(source)
        assert pairs(read) == EXPECTED
        assert read.classes == ["bad", "good"]
        assert len(read) == 3
        assert read.name == str(source)


def test_columns_are_named_and_labels_may_be_left_out():
    stream = io.StringIO("id\tsentence\tkind\n1\tso dull\tx\n")
    read = read_texts(stream, text="sentence", label="kind", format="tsv")
    assert pairs(read) == [("x", "so dull")]
    alone = read_texts(io.StringIO("text\nso dull\n"), label=None)
    assert (alone.texts, alone.labels, alone.classes) == (["so dull"], None, [])


def test_a_label_that_is_missing_is_named_with_its_line():
    said = refusal(read_texts, io.StringIO("text,label\nx,1\ny,\n"))
    assert "line 3: 'label' is missing" in said


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/1.txt": b"x", "README.txt": b"y"}, ["both folders, such as a,", "files, such as README.txt"]),
        ({"a.txt": b"x", "a.md": b"y"}, ["would be one class, 'a'"]),
        ({"a.txt": b"x", "b.txt": b""}, ["b.txt is empty"]),
        ({"a/1.txt": b"x", "b/2.txt": b"f\xfcr"}, ["2.txt is not utf-8", "line 1", "--encoding"]),
        ({".hidden": b"x"}, ["is empty; pass a folder"]),
        ({"a/1.txt": b"x", "b/.hidden": b"y"}, ["b holds no files"]),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path, files, words):
    said = refusal(read_texts, tree(tmp_path / "d", files))
    assert [word for word in words if word not in said] == []


def test_lines_are_those_that_are_not_blank():
    assert read_lines(io.BytesIO(b" so\n\n good \r\n")) == ["so", "good"]
    assert "the stream is empty" in refusal(read_lines, io.BytesIO(b""))


def test_a_zip_holds_a_file_for_each_class(tmp_path):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t/no", b"so dull \n worse\n")
        archive.writestr("t/yes", "für\n".encode("latin-1"))
    read = read_zipped_texts(path, {"bad": "t/no", "good": "t/yes"}, "latin-1")
    assert pairs(read) == [("bad", "so dull"), ("bad", "worse"), ("good", "für")]
    assert "t/yes in" in refusal(read_zipped_texts, path, {"good": "t/yes"})
    assert "'t/none'" in refusal(read_zipped_texts, path, {"good": "t/none"})
    path.write_bytes(b"PK")
    assert "not a whole zip file" in refusal(read_zipped_texts, path, {"good": "t/yes"})
    assert "there is no file" in refusal(read_zipped_texts, tmp_path / "none.zip", {"good": "t/yes"})
