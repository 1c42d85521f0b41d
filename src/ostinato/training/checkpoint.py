"""A checkpoint is one safetensors file, so its tensors and its JSON are always of the same moment.

`last.safetensors` holds the tensors and, under the key "ostinato" of the format's own metadata, the JSON
document: the model's spec with its Programs, the vocabulary, the config and the position of the training.
A SHA-256 over both stands beside it, so that a truncated or altered file is found out before it is used.
`last.json` repeats the document for people and other tools; nothing here ever reads it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import RunError
from .files import write_atomically, write_json

__all__ = ["FORMAT", "Checkpoint", "find_checkpoint", "read_checkpoint", "write_checkpoint"]

FORMAT = 1
"""The version of everything in a run folder; it grows when an older reader would misread it."""


@dataclass(frozen=True)
class Checkpoint:
    """What `read_checkpoint` found: a JSON document and tensors by name, on the CPU."""

    path: Path
    document: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix.`, without it."""
        start = prefix + "."
        return {name[len(start) :]: value for name, value in self.tensors.items() if name.startswith(start)}


def write_checkpoint(folder: Path, names: list[str], document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write the same checkpoint under each of `names`, each file replaced as one step.

    Args:
        folder: the run's `checkpoints`.
        names: such as `["best", "last"]`, in the order of writing.
        document: plain JSON values.
        tensors: by name; copied, so that views and shared storage are no matter.
    """
    text = json.dumps({"format": FORMAT, **document}, ensure_ascii=False, allow_nan=False)
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    digest = _digest(text, safetensors.torch.save(whole))
    data = safetensors.torch.save(whole, {"ostinato": text, "sha256": digest})
    for name in names:
        write_atomically(folder / f"{name}.safetensors", data)
    beside = {"format": FORMAT, "sha256": digest, **document}
    for name in names:
        write_json(folder / f"{name}.json", {"tensors": f"{name}.safetensors", **beside})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        RunError: missing, truncated, altered, not a checkpoint, or of another format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}; {_beside(path)}.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; check the path and its permissions.") from None
    try:
        metadata = dict(_header(data).get("__metadata__", {}))
    except ValueError as error:
        raise RunError(_damaged(path, f"its header is not whole: {error}")) from None
    if "ostinato" not in metadata or "sha256" not in metadata:
        raise RunError(f"{path} is no checkpoint of Ostinato; pass a run folder or a file of its checkpoints.")
    text = metadata["ostinato"]
    try:
        document = json.loads(text)
        version = document["format"]
        if version == FORMAT and metadata["sha256"] != _digest(text, data):
            raise ValueError("its SHA-256 does not fit its content")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(_damaged(path, str(error))) from None
    if version != FORMAT:
        raise RunError(
            f"{path} is of format {version!r}, this Ostinato reads format {FORMAT}; "
            f"use the version that wrote it ({document.get('ostinato', 'unknown')})."
        )
    try:
        return Checkpoint(path, document, safetensors.torch.load(data))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise RunError(_damaged(path, str(error))) from None


def find_checkpoint(run: Path, name: str | None = None) -> Path:
    """The checkpoint file that a run folder, or a path to such a file, stands for.

    Args:
        run: a run folder, or a `.safetensors` file.
        name: "best" or "last"; None is the best, or the last while there is no best yet.

    Raises:
        RunError: nothing there.
    """
    if run.is_file():
        return run
    if not run.exists():
        raise RunError(f"there is no run {run} (looked from {Path.cwd()}); check the name.")
    folder = run / "checkpoints"
    for candidate in (name,) if name else ("best", "last"):
        path = folder / f"{candidate}.safetensors"
        if path.is_file():
            return path
    if not folder.is_dir():
        raise RunError(f"{run} is not a run folder: it has no checkpoints; pass what `--out` named in training.")
    missing = folder / f"{name or 'last'}.safetensors"
    raise RunError(f"there is no checkpoint {missing}; {_beside(missing)}.")


def _header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError(f"{len(data)} bytes")
    header = json.loads(data[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError("not a table")
    return header


def _digest(text: str, data: bytes) -> str:
    """SHA-256 over the document, the table of tensors without the metadata, and the tensors' bytes."""
    table = _header(data)
    table.pop("__metadata__", None)
    digest = hashlib.sha256(text.encode("utf-8"))
    digest.update(json.dumps(table, sort_keys=True).encode("utf-8"))
    digest.update(memoryview(data)[8 + int.from_bytes(data[:8], "little") :])
    return digest.hexdigest()


def _beside(path: Path) -> str:
    others = sorted(other.stem for other in path.parent.glob("*.safetensors") if other != path)
    if others:
        return f"there is {' and '.join(others)}: pass --checkpoint {others[0]}"
    return "the run stopped before it wrote one: begin it anew with --force"


def _damaged(path: Path, reason: str) -> str:
    others = any(other != path for other in path.parent.glob("*.safetensors"))
    remedy = _beside(path) if others else "bring back a copy of it, or train again with --force"
    return f"{path} is damaged: {reason}. It was not used; {remedy}."
