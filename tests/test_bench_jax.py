"""The scan in JAX gives what the loop by hand gives: outputs, streams and every gradient.

JAX runs in a process of its own: once loaded, it warns at every fork, and other tests fork.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ostinato.bench.peers.loops import LOOPS
from ostinato.bench.peers.with_jax import why_no_jax
from ostinato.bench.task.shapes import PASSES

pytestmark = pytest.mark.skipif(why_no_jax() is not None, reason="JAX is not installed")

CHILD = """
import json
import sys
import torch
from ostinato.bench.task.contest import Problem, difference
from ostinato.bench.peers.loops import LOOPS
from ostinato.bench.peers.build import build_peer
from ostinato.bench.peers.with_jax import limit_jax_threads
from ostinato.bench.task.shapes import PASSES, Shape

limit_jax_threads(1)
found = {}
for cell, loop in LOOPS.items():
    problem = Problem.draw(cell, Shape(5, 3, 6))
    weights = loop.draw(6, torch.Generator().manual_seed(1))
    by_hand, scan = (build_peer(peer, problem, weights) for peer in ("eager-loop", "jax"))
    for pass_ in PASSES:
        ours, theirs = by_hand.outcome(pass_), scan.outcome(pass_)
        scan.call(pass_)()
        found[f"{cell} {pass_}"] = [sorted(theirs), difference(ours, theirs)]
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[list[str], str | None]]:
    result = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("cell", sorted(LOOPS))
@pytest.mark.parametrize("pass_", PASSES)
def test_lax_scan_agrees_with_the_loop_by_hand(outcomes: dict, cell: str, pass_: str) -> None:
    names, difference = outcomes[f"{cell} {pass_}"]
    assert difference is None
    weights = [name for parts in LOOPS[cell].fused.values() for name in parts]
    expected = ["output", "dx", *(f"d {name}" for name in weights)] if pass_ == "train" else ["output"]
    assert names == sorted(expected)
