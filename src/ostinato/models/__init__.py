"""A model per kind of task, each built on the layers of `ostinato.nn`."""

from __future__ import annotations

from .language_model import LanguageModel
from .state import State, detach_state

__all__ = ["LanguageModel", "State", "detach_state"]
