"""The task text: characters to come, from all that came before."""

from __future__ import annotations
