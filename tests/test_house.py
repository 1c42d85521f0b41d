"""What holds for every file: sizes, words, paths, what is imported, and examples that run."""

from __future__ import annotations

import ast
import datetime
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_public import MODULES, toml
from tiny_commands import ostinato

ROOT = Path(__file__).resolve().parent.parent
KINDS = {".py", ".c", ".h", ".sh", ".md", ".toml", ""}
FOLDERS = ("src", "tests", "benchmarks", "scripts", "docs", ".ci")
LONGEST = 400


def house() -> Iterator[Path]:
    """The files of the house, with or without git."""
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in KINDS and "__pycache__" not in path.parts:
                yield path


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


FILES = list(house())
SOURCES = [path for path in FILES if path.suffix == ".py"]


# ---------------------------------------------------------------- sizes and words

# Written in two parts, so that this file keeps to its own rule.
WORDS = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error", "x" + r"fail\b"]
UNFINISHED = re.compile("|".join(WORDS))
# A path of one machine, or a folder of one person.
MACHINE = re.compile(r"(?<![\w.~$}>*-])/(?:root|home|Users|work|opt|mnt|srv)/")
REGISTRY = re.compile(r"\b(?:pypi|pythonhosted|npmjs|debian|ubuntu|pytorch)\.(?:org|com|net)\b")


def lines_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [f"{named(path)}:{n}: {line}" for n, line in lines if pattern.search(line)]


def test_no_file_is_long() -> None:
    lines = {named(p): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES if p.suffix != ".md"}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_nothing_is_left_unfinished() -> None:
    # pytest's own setting has the word in its name
    found = [line for path in FILES for line in lines_with(UNFINISHED, path) if "_strict = true" not in line]
    assert found == []


def test_no_file_knows_a_machine() -> None:
    assert [line for path in FILES for line in lines_with(MACHINE, path) + lines_with(REGISTRY, path)] == []


def test_no_error_is_swallowed() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(s, ast.Pass) for s in node.body)
                assert not silent, f"{named(path)}:{node.lineno}: except with nothing but pass"


# ---------------------------------------------------------------- imports


def imported(path: Path) -> set[str]:
    """The top-level packages that a file names in an import."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_every_package_that_is_imported_is_asked_for() -> None:
    asked = toml(ROOT / "pyproject.toml")["project"]["dependencies"]
    known = {re.split(r"[<>=!~; ]", entry)[0].replace("-", "_") for entry in asked}
    optional = {"jax", "torchrecurrent"}  # peers of the benchmarks, measured against where they are installed
    optional |= {"triton"}  # comes with torch for a GPU
    foreign: dict[str, str] = {}
    for path in house():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "src"):
            foreign.update(dict.fromkeys(imported(path) - set(sys.stdlib_module_names), named(path)))
    for name in known | optional | {"ostinato"}:
        foreign.pop(name, None)
    assert foreign == {}


# ---------------------------------------------------------------- examples


def source(name: str) -> str:
    """The text of a module, which is not imported for it."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")


EXAMPLES = [name for name in ["ostinato", *MODULES] if ">>> " in source(name)]


def test_there_are_examples() -> None:
    assert any(name.startswith("ostinato.nn") for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(importlib.import_module(name), name):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out


# ---------------------------------------------------------------- the README


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The command lines of the README, split as a shell does."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def files_of_the_readme(folder: Path) -> None:
    """The data that its commands name."""
    (folder / "mybook.txt").write_text("The shells she sells are sea shells.\n" * 200, encoding="utf-8")
    praise, blame = ("I like it", "5"), ("I do not", "1")
    rows = [f"{text} {n},{stars}" for n in range(20) for text, stars in (praise, blame)]
    (folder / "reviews.csv").write_text("\n".join(["review,stars", *rows]) + "\n", encoding="utf-8")
    (folder / "new.csv").write_text("review\nI like that\n", encoding="utf-8")
    sentences = [f"the DET\n{noun} NOUN\nsat VERB\n" for noun in ("cat", "dog", "hen", "cow") * 5]
    (folder / "tagged.txt").write_text("\n".join(sentences), encoding="utf-8")
    first = datetime.date(2024, 1, 1)
    days = [f"{first + datetime.timedelta(n)},{100 + 10 * (n % 7) + n % 3}" for n in range(200)]
    (folder / "sales.csv").write_text("\n".join(["day,sales", *days]) + "\n", encoding="utf-8")


def test_every_block_of_the_readme_is_tested() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^```\w*$", text, re.MULTILINE)) == 2 * (len(blocks("python")) + len(blocks("sh")))


@pytest.mark.usefixtures("quickly_compiled")
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """In order, each block seeing what those before it made."""
    files_of_the_readme(tmp_path)
    for n, block in enumerate(blocks("python")):
        (tmp_path / f"block{n}.py").write_text(block, encoding="utf-8")
    names = sorted(tmp_path.glob("block*.py"), key=lambda p: int(p.stem[5:]))
    script = "\n".join(f"exec(compile(open({str(p)!r}).read(), {str(p)!r}, 'exec'))" for p in names)
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=tmp_path, timeout=120, check=True)


@pytest.mark.usefixtures("quickly_compiled")
def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs on a small text for a moment; the scripts, which would run this test, are only there."""
    files_of_the_readme(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        if found := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / found.group(1)).write_text(block, encoding="utf-8")
    ran = 0
    for command in commands():
        if command[0] != "ostinato":
            assert os.access(ROOT / command[0], os.X_OK), command
            continue
        for option, little in (("--minutes", "0.01"), ("--epochs", "2")):
            if option in command:
                command[command.index(option) + 1] = little
        code, out, err = ostinato(*command[1:])
        assert code == 0, (command, out, err)
        ran += 1
    assert ran >= 3
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"mybook", "coupled", "reviews", "tags", "sales"}


def test_the_verbs_of_the_readme_are_those_of_the_command_line() -> None:
    from typer.main import get_command

    from ostinato.cli import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `ostinato (\w+)", text, re.MULTILINE))
    assert listed == set(getattr(get_command(app), "commands", {}))


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)", text) if "://" not in t]
    assert [t for t in targets if not (ROOT / t).exists()] == []
