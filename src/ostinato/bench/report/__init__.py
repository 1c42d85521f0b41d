"""What is said of it: the record, the tables, the goals, the page."""

from __future__ import annotations
