"""Measuring Ostinato against its peers: both sides in one run, in turn, checked before they are timed."""

from __future__ import annotations
