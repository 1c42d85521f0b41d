"""The kernel cache: the user's own, whole, bounded; and machines that lack a compiler or a home."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ostinato
from laws import needs_c
from measured import build, expected, inputs, measure
from ostinato import CacheError, CompileError
from ostinato.backends.c import cache, compiler
from tolerances import assert_agree

pytestmark = needs_c
Fresh = Callable[[Path], None]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Fresh:
    """As in a new process: nothing loaded, nothing said yet, and a cache below the folder."""
    choose = importlib.import_module("ostinato.runtime.choose")

    def start(folder: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        monkeypatch.setenv("OSTINATO_CFLAGS", "-O0")
        monkeypatch.setattr(choose, "_C", type(choose._C)())
        monkeypatch.setattr(choose, "_said", set())

    return start


def run(backend: str) -> tuple[torch.Tensor, list[str]]:
    """What two layers compute, and the warnings they gave."""
    x = inputs(5, 2, 3, torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("elman", "gru", "elman"):
            layer = build(ostinato.cells.get(name), 3, 4, backend, torch.float32)
            for _ in range(2):
                output = layer(x)[0]
            output.sum().backward()
    return output.detach(), [f"{w.category.__name__}: {w.message}" for w in caught]


def kernels(folder: Path) -> list[Path]:
    """The compiled kernels in a cache."""
    return [path for path in files(folder) if b"ostinato_forward" in path.read_bytes()]


def files(folder: Path) -> list[Path]:
    """The kernels, and what they are linked with."""
    return sorted((folder / "ostinato").glob("*.so"))


def test_it_is_the_users_own_and_kept(fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$XDG_CACHE_HOME/ostinato, mode 0700, nothing half made in it; another process compiles nothing."""
    fresh(tmp_path)
    first, _ = run("c")
    home = tmp_path / "ostinato"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    made = kernels(tmp_path)
    assert len(made) == 2 and len(files(tmp_path)) == 3 and sorted(home.iterdir()) == files(tmp_path)
    before = [path.read_bytes() for path in made]
    fresh(tmp_path)
    monkeypatch.setattr(compiler, "compile_file", lambda *_: pytest.fail("compiled again"))
    second, said = run("c")
    assert torch.equal(first, second) and not said
    assert [path.read_bytes() for path in made] == before


@pytest.mark.parametrize("value", [None, "", "relative/path"])
def test_the_default_lies_in_the_home(
    value: str | None, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard for XDG_CACHE_HOME says: one that is empty or relative is to be ignored."""
    fresh(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    run("c")
    assert len(kernels(tmp_path / ".cache")) == 2


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702], ids=oct)
def test_one_that_others_can_write_is_refused(mode: int, fresh: Fresh, tmp_path: Path) -> None:
    """Code is loaded from it: not even "auto" goes on."""
    home = tmp_path / "ostinato"
    home.mkdir()
    home.chmod(mode)
    for backend in ("auto", "c"):
        fresh(tmp_path)
        with pytest.raises(CacheError, match=f"can be written by others.*chmod 700 {home}"):
            run(backend)
    assert list(home.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_one_that_someone_else_owns_is_refused(fresh: Fresh, tmp_path: Path) -> None:
    home = tmp_path / "ostinato"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, -1)
    for backend in ("auto", "c"):
        fresh(tmp_path)
        with pytest.raises(CacheError, match=r"belongs to user 12345, not to you.*XDG_CACHE_HOME"):
            run(backend)


def test_a_damaged_kernel_is_compiled_again(fresh: Fresh, tmp_path: Path) -> None:
    fresh(tmp_path)
    meant, _ = run("c")
    for damage in ("truncated", "emptied", "overwritten", "one byte", "a link to nowhere"):
        made = files(tmp_path)
        do_damage(made, damage, tmp_path / "nowhere")
        fresh(tmp_path)
        found, said = run("auto")
        assert torch.equal(found, meant) and not said, damage
        assert files(tmp_path) == made
        assert all(path.is_file() and not path.is_symlink() and path.stat().st_size > 1000 for path in made)


def do_damage(made: list[Path], damage: str, nowhere: Path) -> None:
    for path in made:
        data = path.read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 0xFF
        path.unlink()  # the old one is loaded: it may not be written into
        if damage == "a link to nowhere":
            path.symlink_to(nowhere)
        else:
            bad = {"truncated": data[: len(data) // 2], "emptied": b"", "overwritten": b"x" * len(data)}
            path.write_bytes(bad.get(damage, bytes(changed)))


def test_a_folder_in_a_kernels_place(fresh: Fresh, tmp_path: Path) -> None:
    """What cannot be mended: eager and one warning; backend="c" raises."""
    fresh(tmp_path)
    meant, _ = run("c")
    for path in kernels(tmp_path):
        path.unlink()
        path.mkdir()
    fresh(tmp_path)
    found, said = run("auto")
    torch.testing.assert_close(found, meant)
    assert len(said) == 1 and "cannot be written" in said[0]
    fresh(tmp_path)
    with pytest.raises(CacheError, match="cannot be written"):
        run("c")


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size; the kernels that were not used for longest go first, the newest never."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "LIMIT_FILES", 4)

    def build_one(target: Path) -> None:
        target.write_bytes(b"x" * 100)

    for k in range(8):
        path = cache.fetch(f"k{k}", build_one)
        os.utime(path, (k, k))
    assert {p.stem for p in files(tmp_path)} == {"k4", "k5", "k6", "k7"}
    cache.fetch("k4", build_one)  # used again: now k5 is the oldest
    monkeypatch.setattr(cache, "LIMIT_BYTES", 300)
    cache.fetch("k8", build_one)
    assert {p.stem for p in files(tmp_path)} == {"k4", "k8"}
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10)
    assert cache.fetch("k9", build_one).exists()
    assert {p.stem for p in files(tmp_path)} == {"k9"}


def test_a_full_disk_leaves_no_half_written_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def full(target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheError, match=r"No space left on device.*free some space"):
        cache.fetch("k", full)
    assert list((tmp_path / "ostinato").iterdir()) == []


def test_other_flags_are_another_kernel(fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process too: two processes with the same flags give the same numbers, whatever they ran before."""
    fresh(tmp_path)
    run("c")
    monkeypatch.setenv("OSTINATO_CFLAGS", "-O0 -DNOTHING")
    run("c")
    assert len(kernels(tmp_path)) == 4


LACKS = {
    "no compiler on the PATH": {"PATH": "/dev/null"},
    "a compiler that fails": {"CC": "/bin/false"},
    "a compiler that is not there": {"CC": "/dev/null/cc"},
    "a compiler that writes nothing": {"CC": "/bin/true"},
    "flags that it does not know": {"OSTINATO_CFLAGS": "-fno-such-flag"},
}


@pytest.mark.parametrize("lack", LACKS)
def test_without_a_compiler_eager_runs_and_one_warning_says_so(
    lack: str, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a process, with the remedy; backend="c" raises; nothing is left behind in the cache."""
    fresh(tmp_path)
    monkeypatch.delenv("CC", raising=False)
    for name, value in LACKS[lack].items():
        monkeypatch.setenv(name, value)
    found, said = run("auto")
    assert torch.equal(found, run("eager")[0])
    assert len(said) == 1 and said[0].startswith("RuntimeWarning: ")
    assert "eager" in said[0] and "apt install gcc" in said[0]
    fresh(tmp_path)
    for name, value in LACKS[lack].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CompileError, match="apt install gcc"):
        run("c")
    assert not (tmp_path / "ostinato").exists() or list((tmp_path / "ostinato").iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", compiler.CANDIDATES)
def test_every_compiler_that_is_looked_for_will_do(
    name: str, dtype: torch.dtype, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} on this machine")
    fresh(tmp_path)
    monkeypatch.setenv("CC", name)
    layer = build(ostinato.cells.gru, 17, 33, "c", torch.float32).to(dtype)
    x = inputs(5, 13, 17, dtype)
    assert_agree(measure(layer, x), expected(layer, x), dtype)
    with torch.no_grad():  # few rows, which are multiplied without packing
        few = layer(x[:1, :2])[0]
    assert_agree({"output": few}, {"output": expected(layer, x[:1, :2])["output"]}, dtype)


def test_a_compiler_in_a_folder_with_a_space(fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "my compilers" / "cc"
    link.parent.mkdir()
    link.symlink_to(next(filter(None, map(shutil.which, ("cc", "gcc", "clang")))))
    fresh(tmp_path)
    monkeypatch.setenv("CC", str(link))
    assert not run("c")[1]
    assert len(kernels(tmp_path)) == 2


def test_a_compiler_that_complains_in_another_encoding(
    fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nprintf 'ung\\374ltig\\n' >&2\nexit 1\n")
    compiler.chmod(0o755)
    fresh(tmp_path)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(CompileError, match="ung.ltig"):
        run("c")


def test_a_home_that_cannot_be_written(fresh: Fresh, tmp_path: Path) -> None:
    """Eager and one warning that names the folder and the remedy; backend="c" raises the same."""
    blocked = tmp_path / "file"
    blocked.write_text("")  # a file where the folder should be: not even root can make a folder in it
    fresh(blocked)
    found, said = run("auto")
    assert torch.equal(found, run("eager")[0])
    assert len(said) == 1 and "XDG_CACHE_HOME" in said[0] and str(blocked) in said[0]
    fresh(blocked)
    with pytest.raises(CacheError, match="XDG_CACHE_HOME"):
        run("c")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write anywhere")
def test_a_read_only_home(fresh: Fresh, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    fresh(tmp_path)
    try:
        _, said = run("auto")
    finally:
        tmp_path.chmod(0o700)
    assert len(said) == 1 and "XDG_CACHE_HOME" in said[0]


def test_a_kernel_is_compiled_once_for_all_sizes(fresh: Fresh, tmp_path: Path) -> None:
    """Widths, batches, lengths, directions, layers, training or not share a kernel; another dtype is another."""
    fresh(tmp_path)

    @ostinato.cell
    def own(p, x, h):
        return ostinato.tanh(p.W @ x - p.U @ h + 0.123 * p.b)

    for width, hidden in ((3, 4), (17, 33)):
        layer = build(own, width, hidden, "c", torch.float32, bidirectional=True, num_layers=2)
        layer(inputs(4, 2, width, torch.float32), None, [1, 4])[0].sum().backward()
        with torch.no_grad():
            layer(inputs(1, 1, width, torch.float32))
    assert len(kernels(tmp_path)) == 1
    build(own, 3, 4, "c", torch.float64)(inputs(2, 1, 3, torch.float64))
    assert len(kernels(tmp_path)) == 2
