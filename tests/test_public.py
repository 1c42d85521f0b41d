"""What a user may rely on: the public names, their documentation, the tree of errors, and a light import."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ostinato
from ostinato import errors

ROOT = Path(__file__).resolve().parent.parent
FOUND = {module.name for module in pkgutil.walk_packages(ostinato.__path__, "ostinato.")}
NO_JAX = set() if importlib.util.find_spec("jax") else {"ostinato.bench.peers.jax_scan"}
NO_TRITON = set() if importlib.util.find_spec("triton") else {"ostinato.backends.triton.functions"}
MODULES = sorted(FOUND - {"ostinato.__main__"} - NO_JAX - NO_TRITON)
FUNCTIONS = {"sigmoid", "tanh", "relu", "exp", "log", "sqrt", "softplus", "abs", "maximum", "minimum"}
HEAVY = {
    "lightning_fabric",
    "matplotlib",
    "pandas",
    "pooch",
    "rich",
    "safetensors",
    "scipy",
    "tensorboard",
    "tokenizers",
    "torchmetrics",
    "typer",
}


def toml(path: Path) -> dict:
    """A TOML file, read by the standard library or, before Python 3.11, by what pytest brings."""
    library = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return library.loads(path.read_text(encoding="utf-8"))


def public(module: ModuleType) -> set[str]:
    """The names without an underscore that are no modules of ours."""
    inner = {name for _, name, _ in pkgutil.iter_modules(getattr(module, "__path__", []))}
    return {name for name in dir(module) if not name.startswith("_")} - inner - {"annotations"}


# ---------------------------------------------------------------- names


def test_all_is_what_the_package_shows() -> None:
    listed = set(ostinato.__all__)
    assert len(ostinato.__all__) == len(listed)
    assert [name for name in ostinato.__all__ if not hasattr(ostinato, name)] == []
    assert listed <= set(dir(ostinato))
    assert public(ostinato) == listed - {"cells", "transforms"}
    assert ostinato.cells is sys.modules["ostinato.cells"]


def test_the_promised_names_are_there() -> None:
    promised = {"cell", "cells", "concat", "emit", "where", "Cell", "Program", "RNN", "LSTM", "GRU", "Elman"}
    assert promised | FUNCTIONS <= set(ostinato.__all__)


def test_every_error_is_public() -> None:
    assert set(errors.__all__) == public(errors)
    assert set(errors.__all__) <= set(ostinato.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_name_in_an_all_exists(name: str) -> None:
    module = importlib.import_module(name)
    missing = [entry for entry in getattr(module, "__all__", []) if not hasattr(module, entry)]
    assert missing == []


def test_the_version_is_one() -> None:
    version = toml(ROOT / "pyproject.toml")["project"]["version"]
    assert ostinato.__version__ == version
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == version


def test_the_console_script_is_the_command_line() -> None:
    scripts = toml(ROOT / "pyproject.toml")["project"]["scripts"]
    module, _, name = scripts["ostinato"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


# ---------------------------------------------------------------- documentation


def documented(value: object) -> bool:
    """Whether it has a docstring of its own, not one it inherits."""
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    return bool(own and own.strip())


@pytest.mark.parametrize("name", sorted(ostinato.__all__))
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(ostinato, name)
    assert documented(value), name
    if not inspect.isclass(value):
        return
    for method, member in vars(value).items():
        inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if callable(inner) and not method.startswith("_"):
            assert inspect.getdoc(getattr(value, method)), f"{name}.{method}"


@pytest.mark.parametrize("name", ["ostinato", *MODULES])
def test_every_module_says_what_it_is(name: str) -> None:
    assert documented(importlib.import_module(name))


@pytest.mark.parametrize("name", list(ostinato.cells.catalogue()))
def test_every_cell_is_exported_and_says_where_it_is_from(name: str) -> None:
    cell = ostinato.cells.catalogue()[name]
    assert name in ostinato.cells.__all__
    assert getattr(ostinato.cells, name) is cell
    assert cell.name == name
    assert cell.summary
    assert re.search(r"[A-Z].* (19|20)\d\d$", cell.reference), cell.reference


# ---------------------------------------------------------------- the tree of errors


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Name -> (name above it, builtin it also is), read from the drawing in the docstring of errors.py."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}((?:[│ ] {3})*)((?:[├└]── )?)([A-Z]\w+Error)\b", line)
        if found is None:
            continue
        depth = len(found.group(1)) // 4 + bool(found.group(2))
        del path[depth:]
        also = re.search(r"\(also an? (\w+)\)", line)
        tree[found.group(3)] = (path[-1] if path else None, also.group(1) if also else None)
        path.append(found.group(3))
    return tree


def test_the_tree_of_errors_is_as_drawn() -> None:
    tree = drawn_tree()
    assert set(tree) == set(errors.__all__)
    for name, (above, also) in tree.items():
        kind = getattr(errors, name)
        expected = (above or "Exception", *([also] if also else []))
        assert tuple(base.__name__ for base in kind.__bases__) == expected, name


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_carries_its_message(name: str) -> None:
    with pytest.raises(ostinato.OstinatoError, match="^the fact$"):
        raise getattr(errors, name)("the fact")


# ---------------------------------------------------------------- the import


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Every module that `import ostinato` loads, in a new Python in which a warning is an error."""
    code = "import ostinato, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_import_needs_torch_alone(loaded: set[str], name: str) -> None:
    assert "ostinato" in loaded
    assert name not in loaded


def test_the_heavy_ones_are_all_that_is_asked_for() -> None:
    asked = toml(ROOT / "pyproject.toml")["project"]["dependencies"]
    names = {re.split(r"[<>=!~; ]", entry)[0].replace("-", "_") for entry in asked}
    # torch itself brings numpy in; tomli is the standard library's tomllib for an older Python
    assert names - {"torch", "numpy", "tomli"} == HEAVY


@pytest.mark.parametrize("name", ["cli", "tasks", "training", "models", "data", "bench"])
def test_import_leaves_the_upper_floors_alone(loaded: set[str], name: str) -> None:
    assert f"ostinato.{name}" not in loaded


def test_a_layer_and_a_scan_leave_torch_compile_alone() -> None:
    """Its modules take a second to load, which is no one's but those who call it."""
    code = """
import sys
import torch
from ostinato import RNN, scan
layer = RNN("zoneout(lstm, 0.1)", 2, 3)
layer(torch.ones(4, 1, 2))[0].sum().backward()
layer.step(torch.ones(1, 2))
scan(lambda h, x: (torch.tanh(h + x),) * 2, torch.zeros(2), torch.ones(4, 2))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"
