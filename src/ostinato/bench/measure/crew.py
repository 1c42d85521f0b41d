"""Tasks in child processes, each with a limit of time: what hangs or crashes is ended, and the rest goes on."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

__all__ = ["BROKEN", "Crew", "Ended"]

LOG = "said"
SAID = 600  # characters of what a process said last that a report of its end holds
BROKEN = ("CUDA error", "device-side assert")  # behind these a process can use its GPU no more


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Args:
        task: what was given.
        how: "done"; "error" (it raised); "late" (its limit passed, and its process was ended); "died" (its process
            ended by itself); "not run" (there was no time left to begin it).
        value: what it returned, where it is done; said: what is to be said of it otherwise.
        seconds: how long it ran.
    """

    task: Any
    how: str
    value: Any = None
    said: str = ""
    seconds: float = 0.0


@dataclass
class _Member:
    """One process, and the task that it is at."""

    process: Any
    pipe: Connection
    folder: Path
    ready: bool = False
    task: Any = None
    busy: bool = False
    since: float = field(default_factory=time.monotonic)
    limit: float = math.inf

    def said(self) -> str:
        """The end of what it wrote."""
        try:
            return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")[-SAID:].strip()
        except OSError as error:
            return f"(nothing to be read of it: {error})"

    def end(self) -> None:
        """End the process and all that it started, a group of their own that is known by its number, and remove what
        they left in their folder for what is passing.
        """
        self.pipe.close()
        for kill in (os.killpg, os.kill):
            try:
                kill(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended, or has not yet made its group
                continue
        self.process.join(5.0)
        shutil.rmtree(self.folder, ignore_errors=True)


class Crew:
    """Processes that each do one task after another; close it, or use it in a `with`.

    Args:
        target: "module:function"; the function takes a task and returns what can be pickled. The module is imported in
            the processes.
        workers: how many processes at most.
        environment: variables of the processes that differ from ours; None removes one.
        start_s: how long importing may take.
    """

    def __init__(
        self,
        target: str,
        workers: int,
        environment: Mapping[str, str | None] | None = None,
        start_s: float = 120.0,
    ) -> None:
        self.target, self.workers, self.start_s = target, max(1, workers), start_s
        self._environment = dict(environment or {})
        self._members: list[_Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        while self._members:
            self._members.pop().end()

    def run(
        self, tasks: Iterable[Any], limit_s: float | Callable[[Any], float], until: float = math.inf
    ) -> Iterator[Ended]:
        """Give out the tasks in order, and what became of each as it ends.

        Args:
            tasks: what the function takes.
            limit_s: how long a task may take, from when its process has it; a function is asked for each.
            until: when all must end, of `time.monotonic`.
        """
        waiting = deque(tasks)
        while waiting or any(member.busy for member in self._members):
            now = time.monotonic()
            if now >= until:
                for member in [m for m in self._members if m.busy]:
                    self._members.remove(member)
                    member.end()
                    yield Ended(member.task, "late", said="the time for all ran out", seconds=now - member.since)
                for task in waiting:
                    yield Ended(task, "not run", said="there was no time left")
                return
            self._hand_out(waiting, limit_s)
            yield from self._hear(until)
            yield from self._end_late()

    def _hand_out(self, waiting: deque[Any], limit_s: float | Callable[[Any], float]) -> None:
        free = sum(not member.busy for member in self._members)
        for _ in range(min(self.workers - len(self._members), len(waiting) - free)):
            self._members.append(self._started())
        for member in self._members:
            if waiting and member.ready and not member.busy:
                member.task, member.busy, member.since = waiting.popleft(), True, time.monotonic()
                member.limit = limit_s(member.task) if callable(limit_s) else limit_s
                member.pipe.send(member.task)

    def _hear(self, until: float) -> Iterator[Ended]:
        soonest = min((m.since + self._allowed(m) for m in self._members if m.busy or not m.ready), default=math.inf)
        pause = min(soonest, until) - time.monotonic()
        heard = wait([m.pipe for m in self._members], timeout=min(max(pause, 0.0), 60.0))
        for member in [m for m in self._members if m.pipe in heard]:
            try:
                kind, value = member.pipe.recv()
            except (EOFError, OSError, ConnectionError):
                yield from self._dead(member)
                continue
            if kind == "ready":
                member.ready = True
                continue
            seconds, member.busy = time.monotonic() - member.since, False
            done = kind == "done"
            yield Ended(member.task, kind, value if done else None, "" if done else value, seconds)
            if not done and any(sign in value for sign in BROKEN):
                self._members.remove(member)
                member.end()

    def _dead(self, member: _Member) -> Iterator[Ended]:
        self._members.remove(member)
        member.process.join(5.0)
        said, code = member.said(), member.process.exitcode
        member.end()
        if not member.ready:
            self._without(f"a process for {self.target} ended as it began (exit status {code}): {said}")
        elif member.busy:
            why = f"its process ended with status {code}: {said}"
            yield Ended(member.task, "died", said=why, seconds=time.monotonic() - member.since)

    def _end_late(self) -> Iterator[Ended]:
        now = time.monotonic()
        for member in [m for m in self._members if (m.busy or not m.ready) and now - m.since > self._allowed(m)]:
            said = member.said()
            self._members.remove(member)
            member.end()
            if not member.ready:
                self._without(f"a process for {self.target} had not begun after {self.start_s:g} s: {said}")
                continue
            why = f"it was ended after {member.limit:g} s" + (f": {said}" if said else "")
            yield Ended(member.task, "late", said=why, seconds=now - member.since)

    def _without(self, why: str) -> None:
        """Go on with one process less, if there is another that has begun."""
        if not any(member.ready for member in self._members):
            raise RuntimeError(why)
        self.workers = max(1, self.workers - 1)

    def _allowed(self, member: _Member) -> float:
        return member.limit if member.ready else self.start_s

    def _started(self) -> _Member:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        folder = tempfile.mkdtemp(prefix="ostinato-crew-")
        process = context.Process(target=_serve, args=(theirs, self.target, str(Path(folder, LOG))), daemon=True)
        before = dict(os.environ)
        try:
            for key, value in {"TMPDIR": folder, **self._environment}.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()
        return _Member(process, ours, Path(folder))


def _serve(pipe: Connection, target: str, log: str) -> None:
    """What a process does: import, then one task after another until nobody gives any."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", function(task)))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the task's and is reported as such)
            pipe.send(("error", _told(error)))


def _told(error: Exception) -> str:
    """An error, and the last line of code that it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}"[: 4 * SAID] + f" ({Path(last.filename).name}:{last.lineno})"
