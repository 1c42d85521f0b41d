"""What the processes of a crew are asked to do in tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def work(task: tuple[str, str]) -> str:
    """One of the things that can happen to a task."""
    kind, value = task
    if kind == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(value).write_text(f"{os.getpid()} {child.pid} {tempfile.mkdtemp()}")
        time.sleep(600)
    if kind == "wait":
        time.sleep(float(value))
    if kind == "die":
        print(value, flush=True)
        os._exit(3)
    if kind == "raise":
        raise ValueError(value)
    return f"{value} in {os.environ.get('CREW')} at {os.getpid()}"
