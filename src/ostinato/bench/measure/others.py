"""How much of the machine other processes took while we measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["BUSY", "Others"]

# Cores that others may take before a figure is called unreliable.
BUSY = 0.1


class Others:
    """Counts, from its making on, the processor time that was neither idle nor this process's own.

    Time stolen by a hypervisor counts as taken by others. Where the system does not tell, nothing is known.
    """

    def __init__(self) -> None:
        self._system = _system_seconds()
        self._own = _own_seconds()
        self._begin = time.perf_counter()

    def cores(self) -> float | None:
        """How many cores others kept busy on average; None where that cannot be known."""
        system = _system_seconds()
        wall = time.perf_counter() - self._begin
        # The system counts in hundredths of a second: over less than ten of them it says nothing.
        if system is None or self._system is None or wall < 0.1:
            return None
        return max(0.0, (system - self._system) - (_own_seconds() - self._own)) / wall


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system


def _system_seconds() -> float | None:
    """Seconds the processors were busy since the start: user, nice, system, irq, softirq and steal."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
