"""The rates a kernel is held against: the best library matrix product, and the arithmetic units."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...backends.c.compiler import find
from ...errors import CompileError
from .fma_source import FMA_SOURCE

__all__ = ["SGEMM_SIZES", "best_sgemm", "compiler", "fma_peak", "merge_peaks", "sgemm_peaks"]

SGEMM_SIZES: tuple[int, ...] = (512, 1024, 2048)


def sgemm_peaks(sizes: tuple[int, ...] = SGEMM_SIZES, seconds: float = 0.3) -> dict[str, float]:
    """GFLOP/s of square float32 products: `{"torch.mm 1024": 212.0, "onednn linear 1024": 430.0}`.

    torch.mm calls the BLAS torch was built with; the other way is oneDNN's linear, which torch reaches
    through its mkldnn operators and which on some machines is twice as fast. `seconds` is spent on each.
    """
    rates: dict[str, float] = {}
    with torch.no_grad():
        for n in sizes:
            a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
            flops = 2.0 * n**3

            def product(a: Tensor = a, b: Tensor = b, out: Tensor = out) -> object:
                return torch.mm(a, b, out=out)

            rates[f"torch.mm {n}"] = flops / _fastest(product, seconds) / 1e9
            linear = _onednn_linear(a, b)
            if linear is not None:
                rates[f"onednn linear {n}"] = flops / _fastest(linear, seconds) / 1e9
    return rates


def best_sgemm(rates: dict[str, float]) -> float:
    """The greatest rate of a library product among `rates`."""
    return max(rate for name, rate in rates.items() if name != "fma")


def merge_peaks(*runs: dict[str, float]) -> dict[str, float]:
    """The greater of each rate: a peak measured while the machine was busy elsewhere is no peak."""
    merged: dict[str, float] = {}
    for run in runs:
        for name, rate in run.items():
            merged[name] = max(rate, merged.get(name, 0.0))
    return merged


def compiler() -> str | None:
    """The path of the C compiler that builds the kernels, or None."""
    try:
        return find()
    except CompileError:
        return None


def fma_peak(threads: int) -> float | None:
    """GFLOP/s of fused multiply-adds in registers on `threads` threads; None where no C compiler can say."""
    cc = compiler()
    if cc is None:
        return None
    with tempfile.TemporaryDirectory(prefix="ostinato-bench-") as folder:
        source, binary = Path(folder, "fma.c"), Path(folder, "fma")
        source.write_text(FMA_SOURCE, encoding="utf-8")
        build = [cc, "-O3", "-march=native", "-pthread", str(source), "-o", str(binary)]
        try:
            subprocess.run(build, check=True, capture_output=True, timeout=60)
            result = subprocess.run([str(binary), str(threads)], check=True, capture_output=True, text=True, timeout=60)
            return float(result.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            # A machine whose compiler cannot build this has no such figure; the rows go without it.
            return None


def _onednn_linear(a: Tensor, b: Tensor) -> Callable[[], object] | None:
    """A call that multiplies a by the transpose of b through oneDNN, if this torch can and it is right."""
    if not torch.backends.mkldnn.is_available():
        return None

    def linear() -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    try:
        right = torch.allclose(linear(), a @ b.T, rtol=1e-3, atol=1e-2)
    except (AttributeError, RuntimeError):
        return None
    return linear if right else None


def _fastest(call: Callable[[], object], seconds: float) -> float:
    call()
    best, begin = float("inf"), time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds or best == float("inf"):
        call()
        best = min(best, time.perf_counter() - now)
    return best
