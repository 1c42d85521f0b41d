"""While a cell's equations are read: whose line it is, what is refused there, and the names in its frame."""

from __future__ import annotations

import inspect
import linecache
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from ..errors import CellError

_HERE = __name__.rpartition(".")[0]


def where_in_user_code() -> str:
    """The user's line that is being read: file, line number and text."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_HERE):
        frame = frame.f_back
    if frame is None:
        return ""
    code, line = frame.f_code, frame.f_lineno
    text = linecache.getline(code.co_filename, line).strip()
    return f"\n  {code.co_filename}:{line}, in {code.co_name}" + (f"\n    {text}" if text else "")


def refuse(fact: str, remedy: str) -> NoReturn:
    """Raise a CellError that shows the user's own line."""
    raise CellError(f"{fact}; {remedy}{where_in_user_code()}")


Capture = tuple[Callable[[Any], Any], Callable[[str], Callable[..., Any] | None], Callable[[], None]]


class _Reading(threading.local):
    """What is being read in this thread: the frame that is looked for, and what tensors and functions of torch are.

    The last of `capture` is called for every symbol made.
    """

    watch: FrameWatch | None = None
    capture: Capture | None = None


reading = _Reading()


class FrameWatch:
    """Finds the frame of a cell's function while it runs, so that its local names can be read when it has returned.

    No profile or trace function is set: a profiler, a debugger or a coverage tool goes on undisturbed.
    """

    def __init__(self, code: Any) -> None:
        self.code = code
        self.frame: FrameType | None = None

    def look(self, frame: FrameType | None) -> None:
        """Remember the frame if it is this one or one that called it."""
        while frame is not None and frame.f_code is not self.code:
            frame = frame.f_back
        self.frame = frame

    def __enter__(self) -> FrameWatch:
        self._outer = reading.watch
        reading.watch = self
        return self

    def __exit__(self, *_: object) -> None:
        reading.watch = self._outer

    def names(self) -> dict[str, Any]:
        """The local names of the function, with their last values."""
        return {} if self.frame is None else dict(self.frame.f_locals)
