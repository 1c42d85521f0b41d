"""Compiles the Triton kernels of every catalogue cell for sm_90, and says what each takes: no GPU is needed.

    python benchmarks/sm90.py [--cells lstm gru] [--hidden-size 32] [--warps 4] [--json FILE]

Needs triton (3.6). Registers and spills are what ptxas says, shared memory what Triton asks for. The exit status is 1
where a kernel does not compile or asks for more shared memory than a program of the card may have.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ostinato import cells
from ostinato.backends.triton import Form
from ostinato.backends.triton.load import load
from ostinato.backends.triton.render import CONSTANTS, arguments, render
from ostinato.lang import Cell
from ostinato.runtime.step import Step

SHARED = 227 * 1024  # bytes that one program may have
KERNELS = ("infer", "train", "backward")


def main() -> int:
    """Compile, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", help="names; default: the catalogue")
    parser.add_argument("--hidden-size", type=int, default=32)
    parser.add_argument("--warps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    names = asked.cells or sorted(name for name, value in vars(cells).items() if isinstance(value, Cell))
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += measured(name, asked.hidden_size, Form(warps=asked.warps))
        for row in rows[-len(KERNELS) :]:
            taken_by = f"{row['registers']:4} registers {row['spilled']:5} B spilled {row['shared']:7} B shared"
            print(f"{row['cell']:24} {row['kernel']:9} {taken_by}")
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    spilled = [row for row in rows if row["spilled"]]
    print(f"{len(rows)} kernels, {len(spilled)} with spills, at most {max(row['shared'] for row in rows):,} B shared")
    return int(any(row["shared"] > SHARED for row in rows))


def measured(name: str, hidden: int, form: Form) -> list[dict[str, Any]]:
    """What each kernel of a cell takes, where all its sizes are H, or half of it beside D and H."""
    program = getattr(cells, name).program()
    sizes = {symbol: hidden if symbol in ("D", "H") else max(1, hidden // 2) for symbol in program.symbols}
    step = Step.of(program, True, {"D": hidden, "H": hidden, **sizes})
    plan = step.plan.anonymous()
    module = load(render(plan, step.plan_sizes, form)[0])
    return [
        {"cell": name, "hidden_size": hidden, "kernel": kernel, **taken(getattr(module, kernel), names, form)}
        for kernel in KERNELS
        for names in [arguments(plan, kernel == "backward")]
    ]


def taken(function: Any, names: list[str], form: Form) -> dict[str, int]:
    """Registers, bytes that are spilled, and bytes of shared memory of a kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {name: kind(name) for name in names} | dict.fromkeys(CONSTANTS, "constexpr")
    values = dict(zip(CONSTANTS, (False, False, False, True), strict=True))
    constants = {(len(names) + i,): values[name] for i, name in enumerate(CONSTANTS)}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if kinds[name].startswith("*")}
    source = ASTSource(fn=function, signature=kinds, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": form.warps})
    said = assembled(made.asm["ptx"])
    found = {what: re.search(pattern, said) for what, pattern in PATTERNS.items()}
    return {what: int(match.group(1)) if match else 0 for what, match in found.items()} | {
        "shared": made.metadata.shared
    }


PATTERNS = {"registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores"}


def kind(name: str) -> str:
    """The type of an argument, as Triton writes it."""
    if name in ("lengths", "begin"):
        return "*i64"
    if name == "counters":
        return "*i32"
    numbers = name in ("T", "B", "rows", "patience") or name.startswith("ld") or name.endswith("_steps")
    return "i32" if numbers else "*fp32"


def assembled(ptx: str) -> str:
    """What the assembler that Triton brings says of a kernel."""
    from triton.backends import nvidia

    program = Path(next(iter(nvidia.__path__))) / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx, encoding="utf-8")
        command = [str(program), "-v", "--gpu-name=sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


if __name__ == "__main__":
    sys.exit(main())
