"""Reading texts, numbering their characters, cutting them into streams."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import (
    UNKNOWN,
    Streams,
    Vocabulary,
    Windows,
    python_library_text,
    read_text,
)
from ostinato.errors import DataError


def put(folder: Path, content: bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(content)
    return path


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("content", "encoding", "text"),
    [
        (b"one\ntwo\n", "utf-8", "one\ntwo\n"),
        (b"one\r\ntwo\rthree", "utf-8", "one\ntwo\nthree"),
        (b"\xef\xbb\xbfmarked", "utf-8", "marked"),
        ("für".encode("latin-1"), "latin-1", "für"),
        ("für".encode("utf-16"), "utf-16", "für"),
        ("字".encode(), "UTF8", "字"),
    ],
)
def test_a_text_is_read_with_its_line_ends_made_one(tmp_path, content, encoding, text):
    assert read_text(put(tmp_path, content), encoding) == text


@pytest.mark.parametrize(
    ("content", "encoding", "words"),
    [
        (b"", "utf-8", ["is empty", "0 bytes", "pass"]),
        (b" \n\t\n", "utf-8", ["nothing but blanks", "4 characters"]),
        (b"\x7fELF\x00\x01\xff", "utf-8", ["not a text", "zero byte", "offset 4"]),
        (b"abc\0def", "latin-1", ["zero byte", "offset 3"]),
        (
            "caf\xe9 au lait".encode("latin-1"),
            "utf-8",
            ["not utf-8", "0xe9", "offset 3", "--encoding latin-1"],
        ),
        (
            "café\nau lait\nblé\n".encode() + "na\xefve\n".encode("latin-1"),
            "utf-8",
            ["mixes encodings", "0xef", "line 4", "2 lines around it", "Convert the 1 line that cannot"],
        ),
        ("hello".encode("utf-16"), "utf-8", ["utf-16", "--encoding utf-16"]),
        ("hello".encode("utf-32"), "utf-8", ["utf-32"]),
        (b"odd", "utf-16", ["utf-16"]),
        (b"text", "klingon", ["klingon", "no encoding"]),
        (b"text", "hex", ["hex", "--encoding"]),
    ],
)
def test_a_file_that_is_no_such_text_is_named_with_the_remedy(tmp_path, content, encoding, words):
    path = put(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_text(path, encoding)
    for word in words:
        assert word in str(caught.value)


def test_what_is_not_a_readable_file_is_said(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_text(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(put(tmp_path, b"text") / "below")
    with pytest.raises(DataError, match="cannot be read"):
        read_text("nul\0byte")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_text(tmp_path / "pipe")


def test_the_library_is_read_in_the_order_of_its_paths_without_tests(tmp_path):
    for name, content in {
        "b.py": "b = 1\n",
        "a/z.py": "z = 1\n",
        "a.py": "a = 1\n",
        "a/data.txt": "no",
        "test/t.py": "no",
        "a/tests/t.py": "no",
        "encodings/cp1.py": "no",
        "site-packages/p.py": "no",
        "config-3.11-x/c.py": "no",
        "broken.py": "# coding: klingon\n",
        "latin.py": "# coding: latin-1\n# \xe9\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="latin-1")
    whole = "a = 1\nz = 1\nb = 1\n# coding: latin-1\n# \xe9\n"
    assert python_library_text(root=tmp_path) == whole
    assert python_library_text(8, root=tmp_path) == whole[:8]


def test_this_python_has_a_library_to_learn_from():
    text = python_library_text(300_000)
    assert len(text) == 300_000
    assert text == python_library_text(300_000)
    assert "import " in text and "def " in text and "\0" not in text


def test_a_library_without_sources_and_a_cap_below_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="no Python sources"):
        python_library_text(root=tmp_path)
    with pytest.raises(DataError, match="max_characters is 0"):
        python_library_text(0)


# ---------------------------------------------------------------- characters


@given(st.text(min_size=1))
def test_decoding_undoes_encoding(text):
    text = text.replace(UNKNOWN, "")
    vocabulary = Vocabulary.of(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary) == len(set(text)) + 1


def test_an_unknown_character_is_token_zero_and_an_error_where_a_person_wrote_it():
    vocabulary = Vocabulary.of("hello")
    assert vocabulary.encode("hxe\ufffd").tolist() == [
        vocabulary.encode("h").item(),
        0,
        vocabulary.encode("e").item(),
        0,
    ]
    assert vocabulary.decode([0]) == UNKNOWN
    with pytest.raises(DataError, match=r"never saw 'x' 'é'; .*knows 4 characters: ehlo"):
        vocabulary.encode_strictly("hxélo")
    assert vocabulary.encode_strictly("hello").tolist() == vocabulary.encode("hello").tolist()


def test_up_to_128_characters_all_are_kept():
    rare = "".join(chr(0x100 + i) for i in range(127))
    vocabulary = Vocabulary.of(rare + "e" * 2_000_000)
    assert vocabulary.decode(vocabulary.encode(rare + "e")) == rare + "e"
    # One more, and the last of the equally rare has to go.
    vocabulary = Vocabulary.of(rare + "\u0200" + "e" * 2_000_000)
    assert vocabulary.decode(vocabulary.encode(rare + "\u0200e")) == rare + UNKNOWN + "e"


def test_beyond_it_rare_characters_share_one_token():
    common = "".join(chr(0x4E00 + i) * 100 for i in range(300))
    rare = "".join(chr(0x1F300 + i) for i in range(3))  # 3 of 30,003: less than one in ten thousand
    vocabulary = Vocabulary.of(common + rare)
    assert len(vocabulary) == 300 + 1
    assert vocabulary.encode(rare).tolist() == [0, 0, 0]
    assert len(Vocabulary.of(common + rare, max_size=200)) == 201


def test_a_vocabulary_refuses_what_is_no_character():
    for wrong in (["ab"], [""], [1], ["a", "a"], [UNKNOWN]):
        with pytest.raises(DataError):
            Vocabulary(wrong)


# ---------------------------------------------------------------- cutting


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 40))
def test_an_epoch_reads_each_stream_once_in_order(batch_size, bptt, extra):
    tokens = torch.arange(batch_size * bptt + 1 + extra)
    streams = Streams(tokens, batch_size, bptt)
    pieces = [streams.chunk(0, i) for i in range(streams.chunks_per_epoch)]
    inputs = torch.cat([x for x, _ in pieces])  # [L, B]
    targets = torch.cat([y for _, y in pieces])
    assert inputs.t().flatten().tolist() == list(range(streams.length * batch_size))
    assert torch.equal(targets, inputs + 1)
    lengths = {len(x) for x, _ in pieces}
    assert max(lengths) <= bptt and max(lengths) - min(lengths) <= 1
    assert streams.tokens_per_epoch == inputs.numel()


def test_later_epochs_begin_elsewhere_by_the_seed_alone():
    tokens = torch.arange(1001)
    streams, again, other = Streams(tokens, 4, 10), Streams(tokens, 4, 10), Streams(tokens, 4, 10, seed=1)
    assert streams.offset(0) == 0
    assert streams.offset(3) == again.offset(3) != other.offset(3)
    assert len({streams.offset(e) for e in range(10)}) > 5
    again.chunk(7, 3)  # where it was before is no matter
    assert torch.equal(streams.chunk(3, 2)[0], again.chunk(3, 2)[0])
    inputs, targets = streams.chunk(3, 0)
    assert torch.equal(targets, (inputs + 1) % 1001)  # the text is a ring
    assert inputs[0, 0] == streams.offset(3)


def test_a_text_too_short_is_refused_with_the_numbers_that_fit():
    with pytest.raises(
        DataError, match=r"has 100 characters, too few for 32 streams of 10 .* need 321; pass --batch-size 9 "
    ):
        Streams(torch.arange(100), 32, 10)
    assert Streams(torch.arange(100), 9, 10).chunks_per_epoch == 2
    with pytest.raises(DataError, match="pass --bptt 2 or less,"):
        Streams(torch.arange(6), 2, 10)
    assert Streams(torch.arange(6), 2, 2).chunks_per_epoch == 1
    with pytest.raises(DataError, match=r"need 3201; pass a longer text\."):
        Streams(torch.arange(2), 32, 100)
    with pytest.raises(DataError, match="batch_size is 0"):
        Streams(torch.arange(100), 0, 10)
    with pytest.raises(DataError, match="chunk 10 asked for; an epoch has chunks 0 to 9"):
        Streams(torch.arange(101), 1, 10).chunk(0, 10)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 9), st.integers(0, 12))
def test_windows_count_every_held_out_character_once_with_its_own_past(before, held, streams, warmup):
    text = torch.arange(before + held)
    windows = Windows(text[:before], text[before:], streams, warmup)
    inputs, targets, counts = windows.piece(0, windows.steps)
    cut = windows.steps // 2  # in pieces it is the same
    halves = zip(windows.piece(0, cut), windows.piece(cut, windows.steps + 5), strict=True)
    for half, whole in zip(halves, (inputs, targets, counts), strict=True):
        assert torch.equal(torch.cat(half), whole)
    assert sorted(targets[counts].tolist()) == list(range(before, before + held))
    assert torch.equal(inputs[counts] + 1, targets[counts])
    for s in range(inputs.shape[1]):
        first = int(counts[:, s].nonzero()[0])
        assert first == max(1, min(warmup, before)) - 1  # so many characters led it
        used = int(counts[:, s].nonzero()[-1]) + 1
        assert torch.equal(inputs[1:used, s], inputs[: used - 1, s] + 1)  # without a gap


def test_windows_need_a_tail_and_something_before_it():
    for before, held in ((0, 5), (5, 0)):
        with pytest.raises(DataError, match="both need 1 or more"):
            Windows(torch.arange(before), torch.arange(held), 1, 1)
