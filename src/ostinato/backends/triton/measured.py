"""Which form was the fastest: a small file beside the kernels, by card, versions, kernel and size of batch."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from .form import Form

__all__ = ["LIMIT", "recall", "remember"]

LIMIT = 2000  # entries; the oldest go
_KIND = 1  # of the file


def path() -> Path:
    """``$XDG_CACHE_HOME/ostinato/triton-forms.json``, else in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "ostinato" / "triton-forms.json"


def recall(key: str) -> tuple[Form, float] | None:
    """The form that was measured for this key, and its microseconds a step; None where there is none."""
    entry = _entries().get(key)
    if not isinstance(entry, dict):
        return None
    try:
        form = Form(**entry["form"])
        microseconds = float(entry["microseconds"])
    except (KeyError, TypeError, ValueError):
        return None
    return (form, microseconds) if _sound(form) else None


def _sound(form: Form) -> bool:
    """Whether a form that was read is one: the file may have been damaged or edited."""
    powers = (form.batch, form.splits, form.warps)
    if not all(isinstance(n, int) and 1 <= n <= 65536 for n in (*powers, form.slices)):
        return False
    whole = not any(n & (n - 1) for n in powers)
    return whole and form.factors in ("float32", "tf32", "bfloat16", "float16") and isinstance(form.stages, bool)


def remember(key: str, form: Form, microseconds: float) -> None:
    """Write down what was measured; where nothing can be written it is known to this process alone."""
    entries = _entries()
    entries.pop(key, None)
    entries[key] = {"form": asdict(form), "microseconds": round(microseconds, 3)}
    place = path()
    with contextlib.suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        merged = _read(place) | entries  # what other processes measured meanwhile stays
        while len(merged) > LIMIT:
            merged.pop(next(iter(merged)))
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=".forms-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"kind": _KIND, "forms": merged}, file, indent=1)
            os.replace(name, place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@lru_cache(maxsize=1)
def _entries() -> dict[str, Any]:
    """Of the file, read once in a process."""
    return _read(path())


def _read(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is measured anew
        return {}
    forms = found.get("forms") if isinstance(found, dict) and found.get("kind") == _KIND else None
    return forms if isinstance(forms, dict) else {}
