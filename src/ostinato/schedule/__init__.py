"""Program to Plan: small passes over immutable values. No torch here."""

from __future__ import annotations

from .graph import Graph, build_graph, describe
from .make import make_plan
from .plan import TAPE_NOTES, BatchMean, Column, Entry, Loop, Place, Plan, Run, Slot, StepLoop, Store, WeightGrad
from .prologue import Prologue, split_prologue

__all__ = [
    "TAPE_NOTES",
    "BatchMean",
    "Column",
    "Entry",
    "Graph",
    "Loop",
    "Place",
    "Plan",
    "Prologue",
    "Run",
    "Slot",
    "StepLoop",
    "Store",
    "WeightGrad",
    "build_graph",
    "describe",
    "make_plan",
    "split_prologue",
]
