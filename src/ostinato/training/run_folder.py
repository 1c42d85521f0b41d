"""A run's folder: who may write into it, and where each thing lies."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import RunError
from .checkpoint import FORMAT
from .files import explained, is_leftover, remove_leftovers, write_atomically, write_json
from .options import Config
from .toml import to_toml

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two trainings of one run are not told apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunFolder", "check_new", "is_run"]

_LOCK = ".lock"
_OURS = (
    "run.json",
    "config.toml",
    "results.json",
    "metrics.csv",
    "loss.png",
    "events.out.tfevents.*",
    "checkpoints/*.safetensors",
    "checkpoints/*.json",
    "samples/step-*.txt",
    "pictures/*.png",
    "pictures/test/*.png",
    "pictures/test/*.csv",
    "tables/*.csv",
)
_FOLDERS = ("checkpoints", "samples", "pictures", "tables")


def is_run(path: Path) -> bool:
    """Whether a folder was begun by a training."""
    try:
        begun = "format" in json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        begun = False
    return begun or any((path / "checkpoints").glob("*.safetensors"))


def check_new(path: Path, force: bool) -> None:
    """Refuse a folder that a new run would spoil.

    Raises:
        RunError: a file, a folder that holds a run (without `force`), or one that holds something else.
    """
    try:
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file, a run needs a folder; pass another --out.")
        entries = path.iterdir() if path.is_dir() else ()
        held = sorted(entry.name for entry in entries if not _says_nothing(entry))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; pass another --out.") from None
    if not held:
        return
    if not is_run(path):
        shown = ", ".join(held[:5]) + (" ..." if len(held) > 5 else "")
        raise RunError(f"{path} holds files that are not a run's ({shown}); pass another --out.")
    if not force:
        raise RunError(
            f"{path} already holds a run; go on with it by --resume, overwrite it by --force, or pass another --out."
        )


def _says_nothing(entry: Path) -> bool:
    """Whether an entry is what a run that was killed in its first moment leaves."""
    if entry.name in _FOLDERS and entry.is_dir():
        return not any(entry.iterdir())
    return entry.name == _LOCK or is_leftover(entry)


class RunFolder:
    """A run's folder, held by one training at a time; close it or use it in a `with` statement.

    Args:
        path: made if it is not there.

    Raises:
        RunError: it cannot be made, or another training holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        with explained(path):
            for name in _FOLDERS:
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            remove_leftovers(path)

    def _take_lock(self) -> IO[bytes]:
        lock = open(self.path / _LOCK, "ab")  # noqa: SIM115 - held until close()
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    lock.close()
                    raise RunError(
                        f"another training is at work in {self.path}; wait for it, stop it, or pass another --out."
                    ) from None
                # A network disk without locks: train on, as on Windows.
        return lock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        self._lock.close()

    def clear(self) -> None:
        """Remove what an earlier run left, and nothing else."""
        with explained(self.path):
            for pattern in _OURS:
                for old in self.path.glob(pattern):
                    old.unlink()

    def write_config(self, about: dict[str, Any], config: Config, task: str) -> None:
        """Write `run.json`, for programs, and `config.toml`, from which a run like this one can be begun."""
        write_json(self.path / "run.json", {"format": FORMAT, **about})
        write_atomically(self.path / "config.toml", to_toml(config, task))
