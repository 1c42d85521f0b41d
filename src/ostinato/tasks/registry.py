"""The tasks by name. Each is loaded when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import RunError
from ..training.options import Config

__all__ = ["TASKS", "Entry", "find_task"]


@dataclass(frozen=True)
class Entry:
    """A task: what it is called, what it does, and where it lives."""

    name: str
    summary: str  # for --help
    folder: str  # of this package
    config: str  # its class in config.py
    task: str  # its class in task.py
    predictor: str  # its class in predict.py
    has_test: bool = True  # a part of the data that no training reads

    def config_type(self) -> type[Config]:
        """The class of its config; it needs no torch."""
        return getattr(import_module(f".{self.folder}.config", __package__), self.config)

    def task_type(self) -> Any:
        """Its class: `begin(config, cell)` and `resume(config, checkpoint)` make a `training.task.Task`."""
        return getattr(import_module(f".{self.folder}.task", __package__), self.task)

    def predictor_type(self) -> Any:
        """The class of its predictor: `load(checkpoint, backend, device)` makes a `tasks.predictor.Predictor`."""
        return getattr(import_module(f".{self.folder}.predict", __package__), self.predictor)


TASKS = {
    entry.name: entry
    for entry in (
        Entry(
            "text",
            "A language model of a text: what comes next.",
            "text",
            "TextConfig",
            "Text",
            "TextPredictor",
            has_test=False,
        ),
        Entry(
            "classify",
            "A label for each sequence: texts, measurements, images.",
            "classify",
            "ClassifyConfig",
            "Classify",
            "ClassifyPredictor",
        ),
        Entry(
            "label",
            "Answers at every step: tags, the keys of a piano, or the moments of events.",
            "label",
            "LabelConfig",
            "Label",
            "LabelPredictor",
        ),
        Entry(
            "forecast",
            "What one or many series do next, with intervals.",
            "forecast",
            "ForecastConfig",
            "Forecasting",
            "ForecastPredictor",
        ),
    )
}


def find_task(name: str) -> Entry:
    """A task by its name.

    Raises:
        RunError: there is none.
    """
    if name not in TASKS:
        raise RunError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}.")
    return TASKS[name]
