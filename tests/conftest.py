"""What every test stands on: no setting of the user's, no file of theirs, and one core for each process.

What a test compiles is most of what it costs. Kernels are kept for all processes of a run, and only those of the cells
that stand for all (`laws.CELLS`) are optimised, unless OSTINATO_THOROUGH is set (see `laws.THOROUGH`).
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

for name in ("OSTINATO_BACKEND", "PYTORCH_JIT", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton asks for it once, when it is imported; 0 is for a GPU

_FOLDER = "OSTINATO_TEST_CACHE"
CORES = "OSTINATO_TEST_CORES"  # those that the run may use; a process of it keeps to one of them
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the processes share the cores
    if hasattr(os, "sched_setaffinity"):
        # threads that wait for one another lose a slice of time at each step if another process is on their core
        cores = sorted(os.sched_getaffinity(0))
        os.environ[CORES] = ",".join(map(str, cores))
        os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"][2:]) % len(cores)]})
else:
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="ostinato-tests-")
# Kernels are compiled once for all processes, and none is left behind.
os.environ["XDG_CACHE_HOME"] = os.environ[_FOLDER]

# No deadline: the first call of a kernel compiles it. On failure the line that repeats it is printed.
settings.register_profile("ostinato", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=5000)
settings.load_profile("ostinato")


@pytest.fixture(autouse=True)
def flags_of_the_compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells that stand for all are compiled as users' are, other ones that a test is given are not optimised."""
    call = getattr(request.node, "callspec", None)
    params = call.params.items() if call else ()
    given = [str(getattr(v, "name", v)) for k, v in params if k in ("cell", "name", "layer")]
    if given and not set(given) & _optimised():
        _quickly(monkeypatch)


@pytest.fixture
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a law in which it is no matter how a kernel is optimised."""
    _quickly(monkeypatch)


def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("OSTINATO_CFLAGS", "").split()
    if "OSTINATO_THOROUGH" not in os.environ and "-O0" not in before:  # flags said twice are another kernel
        monkeypatch.setenv("OSTINATO_CFLAGS", " ".join([*before, "-O0"]))


@pytest.fixture
def rendered() -> None:
    """For a test that looks at pictures."""


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run takes a fraction of the time that its pictures take: they are drawn, but only written where a test
    asks for it (`rendered`), and by other processes.
    """
    drawn = "ostinato.training.plots" in sys.modules  # else nothing that draws has been imported
    if drawn and "rendered" not in request.fixturenames and "OSTINATO_THOROUGH" not in os.environ:
        from matplotlib.figure import Figure

        monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def number_of_threads() -> Iterator[None]:
    """What a test makes of it is not handed on to the next."""
    torch = sys.modules.get("torch")  # which the tests of the language do without
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture
def one_thread(number_of_threads: None) -> None:
    """Threads wait for one another where a core is busy: sums and times of one thread say more."""
    import torch

    torch.set_num_threads(1)


@functools.cache
def _optimised() -> frozenset[str]:
    import laws

    return frozenset(str(p.id) for p in laws.CELLS)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the kernel cache of this run."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[_FOLDER], ignore_errors=True)
