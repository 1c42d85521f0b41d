"""Tokenizers and texts in pieces: laws that hold for each kind, and what each is."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ostinato.data import (
    BytePairs,
    Bytes,
    Pieces,
    Streams,
    Tokenizer,
    Words,
    make_tokenizer,
    number,
    tokenizer_from_json,
)
from ostinato.errors import DataError
from ostinato.tasks.text.config import TextData
from ostinato.tasks.text.corpus import Corpus

TEXT = "The cat (a very old cat) sat on the mat.\nDon't wake it; it's 3.5 years old!\n\nné à Zürich, 東京 🎉\n"
KINDS = ("characters", "bytes", "words", "bpe")
LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\ufffd"), max_size=12), max_size=6)


def learned(kind: str, text: str = TEXT * 3) -> Tokenizer:
    return make_tokenizer(kind, [text], 300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_survives_json(kind):
    tokenizer = learned(kind)
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again == tokenizer and hash(again) == hash(tokenizer) and len(again) == len(tokenizer)
    assert again.kind == kind and torch.equal(again.encode(TEXT), tokenizer.encode(TEXT))
    for wrong in (None, [], {}, {"kind": "runes"}, {"kind": kind, "characters": 3, "words": 3, "document": 3}):
        if wrong != {"kind": "bytes", "characters": 3, "words": 3, "document": 3}:
            with pytest.raises(DataError, match="a tokenizer was expected"):
                tokenizer_from_json(wrong)
    with pytest.raises(DataError, match="pass characters, bytes, words or bpe"):
        make_tokenizer("runes", [TEXT], 300)


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@given(lines=LINES)
def test_decoding_gives_the_very_text(kind, lines):
    text = "\n".join(lines)
    tokenizer = make_tokenizer(kind, [text or "\n"], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_token_by_token_is_what_comes_at_once(kind):
    tokenizer = learned(kind)
    tokens = tokenizer.encode(TEXT).tolist()
    decoder = tokenizer.decoder()
    parts = [decoder.push(token) for token in tokens]
    assert "".join(parts) == tokenizer.decode(tokens)
    assert "\ufffd" not in "".join(parts)  # a sign comes when it is whole
    assert len(parts) > 20


@pytest.mark.parametrize("kind", KINDS)
@given(cut=st.integers(0, 8))
def test_tokens_do_not_depend_on_where_a_text_is_cut_behind_a_line(kind, cut):
    tokenizer = learned(kind)
    lines = (TEXT * 2).splitlines(keepends=True)
    halves = ["".join(lines[:cut]), "".join(lines[cut:])]
    assert torch.equal(torch.cat([tokenizer.encode(half) for half in halves]), tokenizer.encode(TEXT * 2))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_in_range_and_what_is_never_drawn_is_known(kind):
    tokenizer = learned(kind)
    tokens = tokenizer.encode(TEXT + "\u0fff unseen")
    assert tokens.dtype == torch.int64 and int(tokens.min()) >= 0 and int(tokens.max()) < len(tokenizer)
    assert 0 <= tokenizer.start < len(tokenizer) and tokenizer.start not in tokenizer.never
    if tokenizer.unknown is None:
        assert torch.equal(tokenizer.encode_strictly("\u0fff unseen"), tokenizer.encode("\u0fff unseen"))
    else:
        assert tokenizer.unknown in tokenizer.never and tokenizer.unknown in tokens
        with pytest.raises(DataError, match=r"never saw|does not know"):
            tokenizer.encode_strictly("\u0fff unseen")


def test_words_are_written_as_one_writes_them():
    words = Words.of([TEXT], 100)
    text = "Don't wake it; it's on the mat (very old)!\nit sat."
    assert words.decode(words.encode(text)) == text
    assert words.encode("<unk>").tolist() == [1] and "<unk>" not in words.words
    ranked = Words.of(["b b a a a c\n"], 5)
    assert ranked.words == ("a", "b", "c") and len(ranked) == 5
    assert Words.of(["b b a a a c\n"], 4).words == ("a", "b")
    for pieces, size, said in ((["a"], 2, "pass 3 or more"), ([" \n"], 9, "has no words")):
        with pytest.raises(DataError, match=said):
            Words.of(pieces, size)


def test_byte_pairs_are_as_many_as_were_asked_for():
    pairs = BytePairs.of(["low lower lowest slow\n"] * 50, 262)
    assert len(pairs) == 262
    assert len(pairs.encode("lower")) < len(Bytes().encode("lower"))
    with pytest.raises(DataError, match="pass more than the 256 bytes"):
        BytePairs.of(["low"], 256)
    with pytest.raises(DataError, match="cannot be read"):
        BytePairs("{}")


# ---------------------------------------------------------------- pieces


@given(lines=LINES, cuts=st.lists(st.integers(0, 70), max_size=5))
def test_pieces_are_the_text_and_end_behind_lines(lines, cuts):
    text = "\n".join(lines)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = Pieces("it", lambda: (text[a:b] for a, b in itertools.pairwise(places)))
    assert "".join(pieces) == text == "".join(pieces)  # again and again
    assert all(piece.endswith("\n") for piece in list(pieces)[:-1])
    for cut in (0, 1, len(text) // 2, len(text), len(text) + 1):
        assert "".join(pieces.first(cut)) == text[:cut]
        assert "".join(pieces.after(cut)) == text[cut:]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_file_in_small_blocks_is_the_file(tmp_path, monkeypatch, encoding):
    """Signs, marks and ends of lines are cut wherever it may hurt."""
    from ostinato.data import decode

    text = "für é\r\nzwei\rdrei\n" * 3
    raw = text.encode(encoding)
    if encoding == "utf-8":
        raw = b"\xef\xbb\xbf" + raw
    (tmp_path / "it.txt").write_bytes(raw)
    (tmp_path / "it.txt.gz").write_bytes(gzip.compress(raw))
    for size in (4, 5, 7, 1000):
        monkeypatch.setattr("ostinato.data.decoding._BLOCK", size)
        for name in ("it.txt", "it.txt.gz"):
            pieces = Pieces.of_file(tmp_path / name, encoding)
            assert "".join(pieces) == text.replace("\r\n", "\n").replace("\r", "\n") == decode(raw, "it", encoding)
            assert pieces.measure()[0] == len("".join(pieces))


def test_what_is_wrong_in_a_later_block_is_said_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("ostinato.data.decoding._BLOCK", 8)
    path = tmp_path / "it.txt"
    for raw, words in (
        (b"0123456\n01\xff4567", "byte 0xff at offset 10, line 2"),
        (b"0123456\xc3\x28", r"byte 0xc3 at offset 7, line 1 \(invalid continuation"),
        (b"0123456789\xc3", r"byte 0xc3 at offset 10, line 1 \(unexpected end"),
        (b"01234567\n123\x005", r"zero byte \(offset 12\)"),
        (b"\xff\xfea\x00", "mark of utf-16"),
        (b"", "is empty"),
        (b"  \n  \n      ", "nothing but blanks"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=words):
            Pieces.of_file(path).measure()
    with pytest.raises(DataError, match="is a folder"):
        Pieces.of_file(tmp_path)
    with pytest.raises(DataError, match="no encoding"):
        Pieces.of_file(path, "utf-7-ish").measure()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_too_many_for_the_memory_stand_in_a_file_that_vanishes(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pieces = Pieces("it", lambda: iter([TEXT] * 20))
    tokenizer = learned(kind)
    held = number(pieces, tokenizer)
    spilled = number(pieces, tokenizer, in_memory=100)
    assert held.dtype == torch.int16 and torch.equal(held, spilled)
    assert torch.equal(held.long(), tokenizer.encode(TEXT * 20))
    assert not list(Path(tmp_path).rglob("*.*"))
    assert len(number(Pieces("none", lambda: iter([""])), tokenizer)) == 0


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation of torch gave."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(found):
            if isinstance(each, torch.Tensor) and not each._is_view():
                self.bytes = max(self.bytes, each.nbytes)
        return found


def test_nothing_as_large_as_the_text_is_made_of_it(tmp_path):
    """It may be larger than memory: what is asked of all its tokens is asked of some at a time."""
    path = tmp_path / "long.txt"
    path.write_text(("abcdefghijklmnopqrstuvwxyz 0123456789 " * 20 + "\n") * 6000)
    corpus = Corpus.read(TextData(data=str(path)))
    with Largest() as largest:
        assert corpus.to_json()["unknown_tokens"] == 0
        streams = Streams(corpus.train, 8, 10)
        streams.chunk(1, streams.chunks_per_epoch - 1)
    assert len(corpus.train) > 4_000_000
    assert largest.bytes < len(corpus.train)


def test_tokens_that_find_no_room_are_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="the tokens of a text could not be written to .*file.*set XDG_CACHE_HOME"):
        number(Pieces("a text", lambda: iter(["some words"])), Bytes(), in_memory=1)
