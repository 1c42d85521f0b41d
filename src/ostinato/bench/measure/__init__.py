"""How it is measured: times taken in turn, the machine's peaks, memory, the first call."""

from __future__ import annotations
