"""The task classify: one label for each sequence."""

from __future__ import annotations
