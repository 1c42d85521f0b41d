"""What a figure was measured on: the machine, the versions, and how long the imports take."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .peak import compiler

__all__ = ["NARROW", "describe_machine", "describe_run", "describe_versions", "import_times"]

# The instructions that multiply bfloat16.
NARROW = ("avx512_bf16", "amx_tile", "amx_bf16")


def describe_run(kind: str, command: str, threads: int) -> dict[str, Any]:
    """The head of a record: what was measured, by which command, when, and on what."""
    return {
        "kind": kind,
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "threads": threads,
    }


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and load; nothing that names the machine or its user."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info, flags=re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", info, flags=re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), flags=re.MULTILINE)
    return {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vectors": [f for f in ("sse4_2", "avx", "avx2", "fma", "avx512f", *NARROW) if f in present],
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python, of the packages a figure depends on, and of the C compiler."""
    versions = {"python": platform.python_version()}
    for package in ("ostinato", "torch", "jax", "jaxlib", "torchrecurrent"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cc = compiler()
    if cc is not None:
        said = subprocess.run([cc, "--version"], capture_output=True, text=True, check=False).stdout
        versions["compiler"] = said.splitlines()[0] if said else Path(cc).name
    return versions


def import_times(repeats: int = 3) -> dict[str, float]:
    """Seconds for `import torch` and for that with `from ostinato import RNN`, each in fresh processes, in turn.

    Returns the medians `torch_s` and `both_s`, and `added_s`, the median of the differences pair by pair.
    """
    torch_only: list[float] = []
    both: list[float] = []
    # The first process of each kind also reads the files from disk and may write .pyc files: not counted.
    for turn in range(repeats + 1):
        pair = (_time("import torch"), _time("import torch; from ostinato import RNN"))
        if turn:
            torch_only.append(pair[0])
            both.append(pair[1])
    added = [b - t for t, b in zip(torch_only, both, strict=True)]
    return {
        "torch_s": statistics.median(torch_only),
        "both_s": statistics.median(both),
        "added_s": statistics.median(added),
    }


def _time(statements: str) -> float:
    code = f"import time; t = time.perf_counter(); {statements}; print(time.perf_counter() - t)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(result.stdout)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
