"""The task forecast: what a series does next, with intervals."""

from __future__ import annotations
