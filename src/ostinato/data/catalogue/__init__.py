"""Data sets by name: what each is, where it is from, and how its files are got and checked."""

from __future__ import annotations

from .entry import Entry, File, Part
from .get import fetch
from .listing import entries, find

__all__ = ["Entry", "File", "Part", "entries", "fetch", "find"]
