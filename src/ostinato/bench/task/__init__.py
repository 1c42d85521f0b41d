"""What is measured: cells, shapes and forms, the work of a call, and what a contestant is."""

from __future__ import annotations
