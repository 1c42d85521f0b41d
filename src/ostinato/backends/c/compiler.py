"""The system's C compiler: which one, with which flags."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from ...errors import CompileError

CANDIDATES = ("cc", "gcc", "clang")
KINDS = {
    "f32": ("-DREAL_BITS=32",),
    "f64": ("-DREAL_BITS=64",),
    "bf16": ("-DREAL_BITS=32", "-DHALF_PRODUCTS"),
}
REMEDY = "install one (Debian and Ubuntu: apt install gcc libc6-dev; macOS: xcode-select --install), or name it in CC"


def flags() -> list[str]:
    """NaN and infinities keep their meaning, so no -ffast-math. OSTINATO_CFLAGS adds to the end."""
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    own = ["-O2", native, "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-w"]
    if platform.machine() in ("x86_64", "AMD64"):
        own.append("-mprefer-vector-width=512")
    if os.environ.get("OSTINATO_POISON"):
        own.append("-DPOISON")
    return own + os.environ.get("OSTINATO_CFLAGS", "").split()


def find() -> str:
    """The path of the compiler: CC, else the first of `CANDIDATES` on the PATH.

    Raises:
        CompileError: there is none.
    """
    chosen = os.environ.get("CC")
    for name in [chosen] if chosen else CANDIDATES:
        path = shutil.which(name)
        if path:
            return path
    what = (
        f"CC={chosen} is not a program" if chosen else f"no C compiler on the PATH (looked for {', '.join(CANDIDATES)})"
    )
    raise CompileError(f"{what}; {REMEDY}")


def identity() -> str:
    """What a kernel depends on beside its source: compiler, flags, processor, C library."""
    path = Path(find()).resolve()
    stat = path.stat()
    return "|".join([str(path), str(stat.st_size), str(stat.st_mtime_ns), *flags(), _processor(), *platform.libc_ver()])


@lru_cache(maxsize=1)
def _processor() -> str:
    """-march=native code runs only where the processor can do as much; a home folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(next((line for line in lines if line.startswith(w)), "") for w in wanted)


def compile_file(source: Path, target: Path, kind: str, linked: Path | None = None) -> None:
    """Compile `source` to the shared library `target`, together with the object `linked`; without one, to an object.

    Args:
        kind: one of `KINDS`.

    Raises:
        CompileError: the compiler is missing, failed or hung.
    """
    output = ["-c"] if linked is None else ["-shared", str(linked), "-lm", "-lpthread"]
    command = [find(), *flags(), *KINDS[kind], "-o", str(target), str(source), *output]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",  # it may speak in another encoding
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"the C compiler {command[0]} could not be run ({error}); {REMEDY}") from error
    if result.returncode:
        said = "\n  ".join((result.stderr or result.stdout).strip().splitlines()[-8:])
        raise CompileError(
            f"the C compiler failed with exit status {result.returncode}: {' '.join(command[:2])} ...\n  {said}\n"
            f"check that it compiles a C file at all, or use another: {REMEDY}"
        )
    if not target.exists():
        raise CompileError(f"the C compiler {command[0]} said nothing and wrote nothing; {REMEDY}")
