"""Data sets by name: where files come from, and that only the right ones are taken."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys

import pytest

import small_data
from ostinato.data.catalogue import Entry, File, Part, entries, fetch, find, origins
from ostinato.data.catalogue.digest import content_of
from ostinato.errors import DataError
from small_data import TEXT, left, message, one, sha

cache, server = small_data.cache, small_data.server  # fixtures

# ---------------------------------------------------------------- the list


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_every_entry_is_complete(entry):
    assert find(entry.name) is entry
    assert re.fullmatch(r"[a-z0-9_]+", entry.name)
    assert entry.title and entry.licence and entry.files
    names = [file.name for file in entry.files]
    assert len(set(names)) == len(names)
    assert len({origin.name for origin in entry.origins}) == len(entry.origins)
    for file in entry.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.parts
        assert (file.convert is None) == (file.content is None)
        assert file.convert is not None or len(file.parts) == 1
        for part in file.parts:
            web = isinstance(part.origin, origins.Web)
            assert web == (part.member is None)
            if web:
                assert re.search(r"/[0-9a-f]{40}/|physionet", part.origin.url)
            else:
                assert re.fullmatch(r"[0-9a-f]{64}", part.origin.sha256 or "")


def test_names_are_all_different_and_are_found_however_written():
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names) == 13
    assert find(" Japanese-Vowels ") is find("japanese_vowels")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shakespeare", ["'shakespeare'", "tinyshakespeare?"]),
        ("minst", ["'minst'", "did you mean mnist"]),
        ("", ["there are: tinyshakespeare, surnames", "robot."]),
        ("zzzz", ["there are: "]),
    ],
)
def test_an_unknown_name_lists_the_near_ones(name, words):
    with pytest.raises(DataError) as caught:
        find(name)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.skipif(not os.environ.get("OSTINATO_DATA"), reason="needs the real data: set OSTINATO_DATA to its folder")
@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_the_real_files_are_the_ones_meant(entry):
    paths = fetch(entry)
    assert set(paths) == {file.name for file in entry.files}
    for file in entry.files:
        assert file.fault(paths[file.name]) is None
        assert file.content is None or content_of(paths[file.name]) == file.content


# ---------------------------------------------------------------- from an address


def test_a_file_is_fetched_once(server, cache):
    told: list[str] = []
    entry = one(server)
    path = fetch(entry, told.append)["text.txt"]
    assert path == cache / "folder" / "text.txt"
    assert path.read_bytes() == TEXT
    assert fetch(entry, told.append) == {"text.txt": path}
    assert server.asked == ["/a/input.txt"]
    assert told == [f"one: fetching input.txt from {server.url('/a/input.txt')}"]
    assert left(cache) == ["folder/text.txt"]
    assert stat.S_IMODE(cache.parent.stat().st_mode) & 0o022 == 0  # compiled kernels lie there too


def test_a_damaged_file_of_the_cache_is_fetched_again(server, cache):
    entry = one(server)
    path = fetch(entry)["text.txt"]
    path.write_bytes(TEXT[:-1] + b"!")
    assert fetch(entry)["text.txt"].read_bytes() == TEXT
    assert len(server.asked) == 2


@pytest.mark.parametrize("content", [TEXT[:-1], TEXT.upper(), b""])
def test_a_file_that_is_not_the_one_meant_never_reaches_the_cache(server, cache, content):
    said = message(one(server, content))
    assert "one could not be fetched" in said
    assert left(cache) == []


def test_a_failed_download_says_where_to_lay_the_file(server, cache):
    entry = one(server)
    del server.files["/a/input.txt"]
    said = message(entry)
    for word in [
        "404",
        server.url("/a/input.txt"),
        f"Lay input.txt ({len(TEXT)} bytes, sha256 {sha(TEXT)}) at {cache / 'folder' / 'text.txt'} by hand",
        "OSTINATO_DATA",
        "folder/text.txt",
    ]:
        assert word in said
    (cache / "folder").mkdir()
    (cache / "folder" / "text.txt").write_bytes(TEXT)
    assert fetch(entry)["text.txt"].read_bytes() == TEXT


def test_a_machine_without_network_gets_the_same_message(cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        origin = origins.Web(f"http://127.0.0.1:{closed.getsockname()[1]}/x", "x", 1, sha(b"x"))
        said = message(Entry("one", "", "text", (File("x", 1, sha(b"x"), (Part(origin),)),), ""))
    assert "refused" in said.lower()
    assert str(cache / "x") in said


def test_what_a_killed_process_left_is_removed(server, cache):
    leftover = cache / ".one-1234"
    leftover.mkdir(parents=True)
    (leftover / "input.txt").write_bytes(b"half")
    fetch(one(server))
    assert left(cache) == ["folder/text.txt"]


def test_two_processes_fetch_once(server, cache):
    entry = one(server)
    server.delay = 1.0
    code = (
        "import sys; from ostinato.data.catalogue import Entry, File, Part, fetch, origins\n"
        "url, size, sha = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n"
        "origin = origins.Web(url, 'input.txt', size, sha)\n"
        "entry = Entry('one', '', 'text', (File('folder/text.txt', size, sha, (Part(origin),)),), '')\n"
        "assert fetch(entry)['text.txt'].stat().st_size == size\n"
    )
    origin = entry.origins[0]
    command = [sys.executable, "-c", code, server.url("/a/input.txt"), str(origin.size), str(origin.sha256)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert server.asked == ["/a/input.txt"]
    assert left(cache) == ["folder/text.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(server, cache):
    cache.parent.mkdir(parents=True)
    cache.parent.chmod(0o500)
    assert f"{cache}, cannot be written" in message(one(server))


def test_a_file_in_the_way_of_the_cache_is_named(server, cache):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("in the way")
    said = message(one(server))
    assert str(cache) in said and "XDG_CACHE_HOME" in said


# ---------------------------------------------------------------- a folder of one's own


def test_a_folder_of_ones_own_comes_first(server, cache, tmp_path, monkeypatch):
    own = tmp_path / "own" / "folder" / "text.txt"
    own.parent.mkdir(parents=True)
    own.write_bytes(TEXT)
    monkeypatch.setenv("OSTINATO_DATA", str(tmp_path / "own"))
    assert fetch(one(server)) == {"text.txt": own}
    assert server.asked == []
    own.unlink()  # a folder that lacks it does not stand in the way
    assert fetch(one(server)) == {"text.txt": cache / "folder" / "text.txt"}


@pytest.mark.parametrize("content", [TEXT + b"\n", TEXT.upper()])
def test_a_wrong_file_of_ones_own_is_an_error(server, cache, tmp_path, monkeypatch, content):
    own = tmp_path / "own" / "folder" / "text.txt"
    own.parent.mkdir(parents=True)
    own.write_bytes(content)
    monkeypatch.setenv("OSTINATO_DATA", str(tmp_path / "own"))
    said = message(one(server))
    for word in [str(own), "OSTINATO_DATA", f"{len(content)} bytes", sha(content), sha(TEXT), "Replace it"]:
        assert word in said
    assert server.asked == []
