"""Peak memory of a training step, each contestant in a fresh process.

Run as a module it is such a process: `python -m ostinato.bench.measure.memory CONTESTANT CELL TxBxH` prints one line
of JSON. The process makes the layer and the data, takes a short step that loads the kernels and starts the
threads, resets the kernel's high-water mark of resident memory, and takes three full training steps.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import RunError
from ..peers.build import build_peer
from ..peers.loops import LOOPS
from ..peers.torch_nn import TORCH_MODULES
from ..task.contest import Contestant, Problem
from ..task.shapes import Shape, parse_shapes

__all__ = ["MEMORY_SHAPE", "measure_memory"]

MEMORY_SHAPE = Shape(1000, 32, 256)
STEPS = 3
METHOD = (
    "Growth of peak resident memory over what was resident before: VmHWM of /proc/self/status, reset through "
    "/proc/self/clear_refs after a step of T = 2; three steps of forward and backward; a fresh process for "
    "each repeat, ours and the peer's in turn; medians."
)


def measure_memory(cell: str, shape: Shape = MEMORY_SHAPE, repeats: int = 3) -> dict[str, Any]:
    """MiB by which training steps raise the peak of resident memory, ours and torch.nn's.

    Returns a row `{cell, backend, T, B, D, H, mib, peer, peer_mib, ratio}`, ratio = peer over ours.
    """
    ours: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    for _ in range(repeats):
        ours.append(_spawn("ostinato", cell, shape))
        if cell in TORCH_MODULES:
            peer.append(_spawn("torch.nn", cell, shape))
    mib = statistics.median(run["mib"] for run in ours)
    peer_mib = statistics.median(run["mib"] for run in peer) if peer else None
    return {
        "cell": cell,
        "backend": ours[0]["backend"],
        "T": shape.T,
        "B": shape.B,
        "D": shape.D,
        "H": shape.H,
        "mib": mib,
        "peer": "torch.nn" if peer else None,
        "peer_mib": peer_mib,
        "ratio": peer_mib / mib if peer_mib else None,
        "repeats": repeats,
    }


def _spawn(contestant: str, cell: str, shape: Shape) -> dict[str, Any]:
    command = [sys.executable, "-m", "ostinato.bench.measure.memory", contestant, cell, str(shape)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RunError(f"measuring {contestant} {cell} failed: {result.stderr.strip()[-500:]}")
    return json.loads(result.stdout)


def _child(contestant: str, cell: str, shape: Shape) -> dict[str, Any]:
    full = Problem.draw(cell, shape)
    short = replace(full, x=full.x[:2].clone(), grad=full.grad[:2].clone())
    backend, build = _builder(contestant, full)
    build(short).call("train")()
    step = build(full).call("train")
    gc.collect()
    before = _reset_peak()
    for _ in range(STEPS):
        step()
    return {"backend": backend, "mib": (_peak() - before) / 2**20}


def _builder(contestant: str, problem: Problem) -> tuple[str, Any]:
    if contestant == "ostinato":
        from ..peers.ours import build_ours

        return build_ours(problem, pass_="train").backend, lambda p: build_ours(p, pass_="train").contestant
    import torch

    # Only the sizes of the weights matter here; our package's layers stay out of the peer's process.
    weights = LOOPS[problem.cell].draw(problem.shape.H, torch.Generator().manual_seed(1))

    def build(p: Problem) -> Contestant:
        return build_peer(contestant, p, weights)

    return "torch", build


def _reset_peak() -> int:
    """Forget the peak so far; bytes resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        # Without the reset the peak so far is the base: growth is then a lower bound, the same for all.
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    peak = _status("VmHWM")
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], parse_shapes(sys.argv[3])[0])))
