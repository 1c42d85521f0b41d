"""What a figure was measured on: the GPU, its driver, the versions. Clocks are read, never set."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import Any

__all__ = ["describe", "facts"]

PACKAGES = ("torch", "triton", "numpy", "ostinato")
READ = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "pstate")
WAIT_S = 20.0  # for nvidia-smi to answer


def facts(_: object = None) -> dict[str, Any]:
    """The machine; `device` is "cuda" where torch finds a GPU, else "cpu"."""
    import torch

    from ..measure.machine import describe_machine

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "machine": describe_machine(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    if found["device"] == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "multiprocessors": gpu.multi_processor_count,
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "l2_mib": round(gpu.L2_cache_size / 2**20, 1),
            "cudnn": torch.backends.cudnn.version(),
            "read": said_by_the_driver(),
        }
    return found


def versions() -> dict[str, str]:
    """Of what is installed."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def said_by_the_driver() -> dict[str, str]:
    """Its version and the clocks, as nvidia-smi reads them; why there are none, where it cannot be asked."""
    command = ["nvidia-smi", f"--query-gpu={','.join(READ)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"not read: {error}"}
    return dict(zip(READ, (value.strip() for value in said.strip().split(",")), strict=False))


def describe(found: dict[str, Any]) -> str:
    """The facts in a line."""
    held = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version != "not installed")
    gpu = found.get("gpu")
    if gpu is None:
        machine = found["machine"]
        return f"no GPU; {machine['cpu']}, {machine['cores']} cores; Python {found['python']}, {held}"
    clocks = ", ".join(f"{name} {value}" for name, value in gpu["read"].items())
    return (
        f"{gpu['name']} (sm_{gpu['capability'].replace('.', '')}, {gpu['multiprocessors']} multiprocessors, "
        f"{gpu['memory_gib']} GiB, L2 {gpu['l2_mib']} MiB); {clocks} (read, not set); CUDA {found['cuda']}, "
        f"cuDNN {gpu['cudnn']}; Python {found['python']}, {held}"
    )
