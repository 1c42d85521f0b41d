"""The two commands on machines that lack something: each says what is missing and which package brings it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "dirname", "cat", "cksum", "rm", "ls", "date", "mkdir", "sed")

OLD = """#!/bin/sh
case "$2" in *version_info\\[:2\\]*) echo 3.9 ;; *) exit 1 ;; esac
"""
# As Debian has it: `venv` imports, `ensurepip` does not.
WITHOUT_VENV = f"""#!/bin/sh
case "$2" in *ensurepip*) exit 1 ;; esac
exec '{sys.executable}' "$@"
"""
# An environment is made, and pip fails at whatever it is asked.
WITHOUT_NETWORK = f"""#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    exit
fi
if [ "$1 $2" = "-m pip" ]; then echo "no network" >&2; exit 1; fi
exec '{sys.executable}' "$@"
"""

# An environment is made, and pip writes down what it is asked for.
WITH_PIP = f"""#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
    exit
fi
if [ "$1 $2" = "-m pip" ]; then
    shift 6
    echo "$*" >>'{{log}}'
    exit
fi
exec '{sys.executable}' "$@"
"""


class Machine:
    """A checkout at a path with spaces, and a PATH that holds only what is put there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.bin = folder / "bin of it"
        self.bin.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for tool in TOOLS:
            self.link(tool)

    def link(self, tool: str) -> None:
        found = shutil.which(tool)
        assert found, tool
        (self.bin / tool).symlink_to(found)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [f"{self.root}/scripts/{script}"],
            env={"PATH": str(self.bin), "HOME": str(self.root), **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("cc", "#!/bin/sh\n")
    return made


SCRIPTS = pytest.mark.parametrize("script", ["demo", "test"])


@SCRIPTS
def test_without_python_the_package_is_named(machine: Machine, script: str) -> None:
    code, _, err = machine.run(script)
    assert code == 1
    assert "needs Python 3.10 or newer, found none" in err
    assert "apt install python3 python3-venv" in err


@SCRIPTS
def test_an_old_python_is_refused_by_its_version(machine: Machine, script: str) -> None:
    machine.program("python3", OLD)
    code, _, err = machine.run(script)
    assert code == 1
    assert "found python3 is 3.9;" in err
    assert not (machine.root / ".venv").exists()


def test_a_newer_python_beside_an_old_one_is_found(machine: Machine) -> None:
    machine.program("python3", OLD)
    machine.program("python3.12", WITHOUT_VENV)
    code, _, err = machine.run("demo")
    assert code == 1
    assert "apt install python3.12-venv" in err


@SCRIPTS
def test_without_venv_its_package_is_named_and_nothing_is_made(machine: Machine, script: str) -> None:
    machine.program("python3", WITHOUT_VENV)
    code, _, err = machine.run(script)
    assert code == 1
    assert "lacks the venv module" in err
    assert "apt install python3-venv" in err
    assert not (machine.root / ".venv").exists()


def test_PYTHON_names_one_whose_path_has_spaces(machine: Machine) -> None:
    machine.program("my python", WITHOUT_VENV)
    code, _, err = machine.run("demo", PYTHON=str(machine.bin / "my python"))
    assert code == 1
    assert f"this Python ({machine.bin}/my python" in err


def test_the_tests_name_a_missing_compiler_before_they_install(machine: Machine) -> None:
    machine.program("python3", WITHOUT_NETWORK)
    for broken in (None, "#!/bin/sh\nexit 1\n"):  # none at all; one without the C library's headers
        (machine.bin / "cc").unlink(missing_ok=True)
        if broken:
            machine.program("cc", broken)
        code, _, err = machine.run("test")
        assert code == 1
        assert "apt install gcc libc6-dev" in err
        assert not (machine.root / ".venv").exists()


@SCRIPTS
def test_an_install_that_did_not_finish_is_started_afresh(machine: Machine, script: str) -> None:
    machine.link("cp")
    machine.program("python3", WITHOUT_NETWORK)
    code, out, err = machine.run(script)
    assert code == 1
    assert "pip could not install torch==" in err
    assert "afresh" not in out
    half = machine.root / ".venv" / "half of a package"
    half.touch()
    code, out, err = machine.run(script)
    assert code == 1
    assert "the last install did not finish; starting afresh" in out
    assert "pip could not install torch==" in err
    assert not half.exists()


@SCRIPTS
def test_an_environment_that_is_not_ours_is_never_removed(machine: Machine, script: str) -> None:
    machine.program("python3", WITHOUT_NETWORK)
    mine = machine.root / ".venv" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    code, _, err = machine.run(script)
    assert code == 1
    assert "holds no Python 3.10 or newer that runs; move it away" in err
    (mine.parent / "bin").mkdir()
    shutil.copy(machine.bin / "python3", mine.parent / "bin" / "python")  # now it does, but pip fails
    for _ in range(2):
        code, out, err = machine.run(script)
        assert code == 1
        assert "pip could not install torch==" in err
        assert "afresh" not in out
    assert mine.read_text() == "keep me"


def test_what_is_installed_is_not_installed_again(machine: Machine) -> None:
    for tool in ("cp", "grep"):
        machine.link(tool)
    log = machine.root / "log"
    machine.program("python3", WITH_PIP.format(log=log))
    for _ in range(2):
        code, _, err = machine.run("demo")
        assert code == 127, err  # it gets as far as ostinato, which this pip did not bring
    pips = log.read_text().splitlines()
    assert [line.split()[0] for line in pips] == ["torch==2.13.0", "-e"]
    assert pips[1].split(" ", 1)[1] == str(machine.root)
    (machine.root / "pyproject.toml").write_text("# asks for something else now\n")
    machine.run("demo")
    assert len(log.read_text().splitlines()) == 4


@pytest.mark.parametrize("path", [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_every_script_is_plain_sh(path: Path) -> None:
    assert subprocess.run(["sh", "-n", path], timeout=10).returncode == 0
    if path.suffix != ".sh":
        assert path.read_text().startswith("#!/bin/sh\n")
        assert os.access(path, os.X_OK)
