"""The first call of a layer: with an empty kernel cache, and from the cache, each in a fresh process.

Run as a module it is such a process: `python -m ostinato.bench.measure.startup CONTESTANT CELL TxBxH` prints one line
of JSON. Its torch has already run a product, so that starting the threads is charged to nobody.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from ...errors import RunError
from ..peers.torch_nn import TORCH_MODULES
from ..task.shapes import Shape, parse_shapes

__all__ = ["STARTUP_SHAPE", "measure_startup"]

STARTUP_SHAPE = Shape(100, 16, 128)
METHOD = (
    "Seconds of the first call `layer(x)` with gradients enabled, in a fresh process after `import torch, "
    "ostinato` and one matrix product; `compile` with an empty cache folder, `cache` with the folder the "
    "process before it left, `torch.nn` the peer's first call; `build` is the layer's constructor. Medians, "
    "the three kinds in turn."
)


def measure_startup(cell: str, shape: Shape = STARTUP_SHAPE, repeats: int = 5) -> dict[str, Any]:
    """Seconds of construction and of the first, second and backward calls.

    Returns `{cell, backend, T, B, D, H, kinds: {compile|cache|torch.nn: {build_s, first_s, second_s, ...}}}`.
    """
    runs: dict[str, list[dict[str, Any]]] = {"compile": [], "cache": []}
    if cell in TORCH_MODULES:
        runs["torch.nn"] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="ostinato-bench-") as cache:
            runs["compile"].append(_spawn("ostinato", cell, shape, cache))
            runs["cache"].append(_spawn("ostinato", cell, shape, cache))
            if cell in TORCH_MODULES:
                runs["torch.nn"].append(_spawn("torch.nn", cell, shape, cache))
    kinds = {
        kind: {key: statistics.median(run[key] for run in found) for key in _TIMES} for kind, found in runs.items()
    }
    return {
        "cell": cell,
        "backend": runs["compile"][0]["backend"],
        "T": shape.T,
        "B": shape.B,
        "D": shape.D,
        "H": shape.H,
        "repeats": repeats,
        "kinds": kinds,
    }


_TIMES = ("build_s", "first_s", "backward_s", "second_s")


def _spawn(contestant: str, cell: str, shape: Shape, cache: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ostinato.bench.measure.startup", contestant, cell, str(shape)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise RunError(f"measuring {contestant} {cell} failed: {result.stderr.strip()[-500:]}")
    return json.loads(result.stdout)


def _child(contestant: str, cell: str, shape: Shape) -> dict[str, Any]:
    import torch

    from ... import RNN
    from ..peers.ours import ran_on

    x = torch.randn(shape.T, shape.B, shape.D, requires_grad=True)
    # torch's own libraries start before the clock does: products, and the factorisation that initialisation uses
    torch.mm(torch.randn(512, 512), torch.randn(512, 512))
    torch.linalg.qr(torch.randn(64, 64))
    layer: torch.nn.Module
    begin = time.perf_counter()
    layer = RNN(cell, shape.D, shape.H) if contestant == "ostinato" else TORCH_MODULES[cell].module(shape.D, shape.H)
    built = time.perf_counter()
    output, _ = layer(x)
    first = time.perf_counter()
    torch.autograd.backward(output, torch.ones_like(output))
    backward = time.perf_counter()
    layer(x)
    second = time.perf_counter()
    return {
        "backend": ran_on(layer) if isinstance(layer, RNN) else "torch",
        "build_s": built - begin,
        "first_s": first - built,
        "backward_s": backward - first,
        "second_s": second - backward,
    }


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], parse_shapes(sys.argv[3])[0])))
