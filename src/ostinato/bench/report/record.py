"""The record of a run: one JSON file, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import RunError

__all__ = ["ROW_KEYS", "check_writable", "load_record", "write_record", "write_text"]

ROW_KEYS: tuple[str, ...] = (
    "cell",
    "form",
    "backend",
    "pass",
    "T",
    "B",
    "D",
    "H",
    "ms",
    "peer",
    "peer_ms",
    "ratio",
    "flops",
    "operations",
    "gflops",
    "peak_share",
    "fma_share",
    "ms_min",
    "peer_ms_min",
    "spread",
    "peer_spread",
    "others",
    "repeats",
    "error",
)


def check_writable(path: Path) -> None:
    """Raise RunError unless a file can be written at `path`: better known before measuring than after."""
    if path.is_dir():
        raise RunError(f"{path} is a folder, so no JSON can be written there; name a file.")
    if not path.parent.is_dir():
        raise RunError(f"the folder {path.parent} does not exist; make it, or name a file elsewhere.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder you can write to."
        ) from error


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` as JSON, whole or not at all."""
    write_text(path, json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file beside it first, then rename it, so that no half of it is ever seen."""
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner alone; a record is an ordinary file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path} could not be written ({error.strerror}); free space or name another file.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load_record(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a record; raise RunError where it is missing, damaged or of another kind than asked for."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); pass a file written by --json.") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); pass a file written by --json.") from error
    if not isinstance(record, dict) or "kind" not in record:
        raise RunError(f"{path} is no record of a benchmark: it has no kind; pass a file of --json.")
    if kind is not None and record["kind"] != kind:
        raise RunError(f"{path} is a record of {record['kind']!r}; pass one of {kind!r}.")
    if record["kind"] == "bench" and any(set(row) != set(ROW_KEYS) for row in record.get("rows", ())):
        raise RunError(f"{path} has rows of another version; run ostinato bench again to write it anew.")
    return record


def _plain(value: Any) -> Any:
    """JSON has no nan and no infinity; what could not be measured is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
