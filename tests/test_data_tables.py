"""Tables by name of column, with the place of every fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import read_table
from ostinato.errors import DataError

CSV = b'text,label,size\nso good,1,1.5\n"well, so\nso",0,2\nNA,01,\n'


def put(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------- what is read


def test_a_value_is_what_stands_in_the_file(tmp_path):
    table = read_table(put(tmp_path, CSV))
    assert len(table) == 3
    assert table.columns == ["text", "label", "size"]
    assert table.texts("text") == ["so good", "well, so\nso", "NA"]
    assert table.texts("label") == ["1", "0", "01"]
    assert [table.at(row).rpartition(", ")[2] for row in range(3)] == ["line 2", "line 3", "line 5"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2,y z\r\n"),
        ("t.CSV", b"a,b\n1,x\n2,y z"),
        ("t.tsv", b"a\tb\n1\tx\n2\ty z\n"),
        ("t.jsonl", b'{"a": 1, "b": "x"}\n\n{"b": "y z", "a": "2"}\n'),
        ("t.ndjson", b'{"a": 1, "b": "x"}\n{"b": "y z", "a": 2}'),
        ("t.csv.gz", gzip.compress(b"a,b\n1,x\n2,y z\n", mtime=0)),
    ],
)
def test_every_format_says_the_same(tmp_path, name, content):
    table = read_table(put(tmp_path, content, name))
    assert sorted(table.columns) == ["a", "b"]
    assert table.texts("a") == ["1", "2"]
    assert table.texts("b") == ["x", "y z"]
    assert table.numbers("a").tolist() == [1.0, 2.0]
    table.need("a", "b")


WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=6)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_what_pythons_csv_writes_is_read_back(rows):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["a", "b"])
    writer.writerows(rows)
    table = read_table(io.BytesIO(stream.getvalue().replace("\r\n", "\n").encode()))
    assert list(zip(table.texts("a"), table.texts("b"), strict=True)) == rows


@given(st.lists(st.fixed_dictionaries({"a": WORDS, "b": WORDS}), min_size=1, max_size=6))
def test_what_json_writes_is_read_back(rows):
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    table = read_table(io.StringIO(text), format="jsonl")
    assert table.texts("a") == [row["a"] for row in rows]


def test_a_quote_is_a_character_in_tsv(tmp_path):
    content = b'text\tlabel\n"so" he said\t1\n"never\t0\n'
    assert read_table(put(tmp_path, content, "t.tsv")).texts("text") == ['"so" he said', '"never']
    quoted = put(tmp_path, b'a\tb\n"x\ty"\t1\n', "q.tsv")
    assert read_table(quoted, quotes=True).texts("a") == ["x\ty"]
    assert "3 values, but the header has 2" in refusal(read_table, quoted)


def test_a_value_may_be_as_long_as_a_book():
    book = "word " * 100_000
    assert read_table(io.StringIO(f"text,label\n{book},1\n")).texts("text") == [book]


def test_a_pipe_is_read(tmp_path):
    read, write = os.pipe()
    with os.fdopen(write, "wb") as sink:
        sink.write(b"a;b\n1;2\n")
    with os.fdopen(read, "rb") as stream:
        assert read_table(stream, delimiter=";").texts("b") == ["2"]
    named = tmp_path / "pipe.csv"
    os.mkfifo(named)
    writer = threading.Thread(target=named.write_bytes, args=(b"a,b\n1,2\n",))
    writer.start()
    assert read_table(named).texts("b") == ["2"]
    writer.join()


def test_another_encoding_is_asked_for(tmp_path):
    path = put(tmp_path, "text,label\nfür,1\n".encode("latin-1"))
    assert read_table(path, encoding="latin-1").texts("text") == ["für"]


# ---------------------------------------------------------------- numbers and times


def test_numbers_are_finite_or_missing(tmp_path):
    table = read_table(put(tmp_path, b"a,b\n1e3,1\n-2.5,NaN\n .5 ,?\n7,null\n8,\n"))
    assert table.numbers("a").tolist() == [1000.0, -2.5, 0.5, 7.0, 8.0]
    assert table.numbers("a").dtype == np.float64
    assert np.isnan(table.numbers("b", missing=True)).tolist() == [False, True, True, True, True]
    said = refusal(table.numbers, "b")
    assert "line 3: 'b' is missing ('NaN')" in said


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("value", "words"),
    [("inf", "no finite number"), ("ten", "'ten'"), ('"1,5"', "decimal point"), ("1 000", "no finite number")],
)
def test_what_is_no_number_is_named_with_its_line(tmp_path, value, words, missing):
    table = read_table(put(tmp_path, f"a\n1\n\n{value}\n".encode()))
    said = refusal(table.numbers, "a", missing=missing)
    assert f"{tmp_path / 'table.csv'}, line 4: 'a' is " in said
    assert words in said


def test_a_list_is_no_text(tmp_path):
    table = read_table(put(tmp_path, b'{"a": "x"}\n{"a": ["y", "z"]}\n', "t.jsonl"))
    assert "line 2: 'a' is ['y', 'z'], which is no text" in refusal(table.texts, "a")


def test_a_missing_value_of_json_is_missing(tmp_path):
    table = read_table(put(tmp_path, b'{"a": 1, "b": "x"}\n{"a": null}\n{"b": 2.5, "a": true}\n', "t.jsonl"))
    assert "line 2: 'b' is missing" in refusal(table.texts, "b")
    assert "line 2: 'a' is missing" in refusal(table.texts, "a")
    assert np.isnan(table.numbers("a", missing=True)).tolist() == [False, True, False]


def test_an_empty_text_may_be_refused(tmp_path):
    table = read_table(put(tmp_path, b"text,label\n,1\nx, \n"))
    assert table.texts("text") == ["", "x"]
    assert "line 3: 'label' is missing" in refusal(table.texts, "label", empty=False)


def test_times_are_read_as_iso_or_as_asked(tmp_path):
    content = b"t,u\n2016-07-01 00:00:00,31/12/2020\n2016-07-01T01:00:00+02:00,01/01/2021\n2016-07-02,02/01/2021\n"
    table = read_table(put(tmp_path, content))
    expected = np.array(["2016-07-01T00", "2016-06-30T23", "2016-07-02T00"], "datetime64[ns]")
    assert table.times("t").dtype == np.dtype("datetime64[ns]")
    assert (table.times("t") == expected).all()
    assert (
        table.times("u", "%d/%m/%Y") == np.array(["2020-12-31", "2021-01-01", "2021-01-02"], "datetime64[ns]")
    ).all()
    said = refusal(table.times, "u")
    assert "line 2: 'u' is '31/12/2020'" in said and "%d/%m/%Y" in said


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "t.csv", ["is empty", "0 bytes"]),
        (b"\n \n", "t.csv", ["nothing but blanks"]),
        (b"text,label\n", "t.csv", ["a header (text, label) and no rows"]),
        (b"a,b\n1,2\n3\n", "t.csv", ["line 3: 1 values", "2 columns (a, b)"]),
        (b"a,b\n1,2\n  \n3,4,5\n", "t.csv", ["line 4: 3 values"]),
        (b'a,b\n"1\n2",2\n3,4,5\n', "t.csv", ["line 4: 3 values"]),
        (b"a,a\n1,2\n", "t.csv", ["line 1", "'a' comes twice"]),
        (b'a,b\n1,2\n"3,4\n5,6\n', "t.csv", ["line 3", "quote"]),
        (b'a,b\n1,"2"3\n', "t.csv", ["line 2", "quote"]),
        (b"a,b\nx,1\nf\xfcr,2\n", "t.csv", ["not utf-8", "0xfc", "line 3", "--encoding latin-1"]),
        (b"a,b\nx,1\n\x00,2\n", "t.csv", ["not a text", "zero byte"]),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", ["utf-16"]),
        (b'{"a": 1}\n{"a": \n', "t.jsonl", ["line 2: no JSON"]),
        (b'{"a": 1}\n[1, 2]\n', "t.jsonl", ["line 2: [1, 2] is no object"]),
        (b"a,b\n", "t.csv.gz", ["not a whole gzip file"]),
        (gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9], "t.csv.gz", ["not a whole gzip file"]),
        (b"a,b\n1,2\n", "t.xls", ["does not end in .csv", "format"]),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path, content, name, words):
    said = refusal(read_table, put(tmp_path, content, name))
    assert str(tmp_path / name) in said
    assert [word for word in words if word not in said] == []


def test_a_column_that_is_not_there_lists_those_that_are(tmp_path):
    table = read_table(put(tmp_path, CSV))
    said = refusal(table.texts, "labels")
    assert "no column 'labels'" in said and "'text', 'label', 'size'" in said and "Did you mean 'label'?" in said
    semicolons = read_table(put(tmp_path, b"text;label\nx;1\n"))
    assert "as delimiter" in refusal(semicolons.need, "text")


def test_files_that_are_none_are_refused(tmp_path):
    assert "there is no file" in refusal(read_table, tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refusal(read_table, tmp_path / "folder.csv")
    assert "not a regular file" in refusal(read_table, "/dev/null", format="csv")
    assert "'xml' is no format" in refusal(read_table, io.StringIO("a\n1\n"), format="xml")


# ---------------------------------------------------------------- Parquet


def test_parquet_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    said = refusal(read_table, put(tmp_path, b"PAR1", "t.parquet"))
    assert "pip install 'ostinato[parquet]'" in said


def test_parquet_is_read_with_its_types(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "t": pd.to_datetime(["2020-01-01", "2020-01-02"])})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.texts("a") == ["1", "2"]
    assert table.numbers("a").tolist() == [1.0, 2.0]
    assert table.times("t")[1] == np.datetime64("2020-01-02")
    assert "row 2: 'b' is missing" in refusal(table.texts, "b")
    assert "not a whole Parquet file" in refusal(read_table, put(tmp_path, b"PAR1 no", "u.parquet"))
    frame.iloc[:0].to_parquet(tmp_path / "v.parquet")
    assert "has no rows" in refusal(read_table, tmp_path / "v.parquet")
