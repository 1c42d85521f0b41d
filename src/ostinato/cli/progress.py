"""What a person sees of a training: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..training.report import Outcome, Reporter, RunInfo
from .console import is_terminal, printable

__all__ = ["Live", "Plain", "watching"]

_REFRESH = 0.25  # seconds between two pictures of the bar
_PARTS = 10_000  # in which the bar counts
_LINE = 15.0  # seconds between two plain lines


@contextmanager
def watching() -> Iterator[Reporter]:
    """The reporter that suits standard output; the terminal is as it was afterwards, whatever happens."""
    if not is_terminal():
        yield Plain(Console(highlight=False, soft_wrap=True))
        return
    live = Live(Console(highlight=False, soft_wrap=True))
    try:
        yield live
    finally:
        live.stop()


class Pace:
    """Speed and time left, from the steps of the last half minute; the loss, a mean over the last few."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float, int]] = deque()  # time, progress, data seen
        self.unit = ""
        self._told: Callable[[float], str] = str
        self.loss = math.nan

    def start(self, info: RunInfo) -> None:
        """What is counted, and how a loss is told; what an earlier run did is forgotten."""
        self.unit, self._told = info.unit, info.told_loss
        self._marks.clear()
        self.loss = math.nan

    def mark(self, progress: float, seen: int, loss: float) -> None:
        """A step is done."""
        now = time.monotonic()
        self._marks.append((now, progress, seen))
        while now - self._marks[0][0] > 30.0 and len(self._marks) > 2:
            self._marks.popleft()
        self.loss = loss if math.isnan(self.loss) else 0.9 * self.loss + 0.1 * loss

    def describe(self) -> tuple[str, str, str]:
        """Data per second, the loss, time left."""
        loss = "" if math.isnan(self.loss) else self._told(self.loss)
        if len(self._marks) < 2:
            return "", loss, "--:--"
        (t0, p0, c0), (t1, p1, c1) = self._marks[0], self._marks[-1]
        seconds = max(t1 - t0, 1e-9)
        left = (1.0 - p1) * seconds / (p1 - p0) if p1 > p0 else math.inf
        return f"{_short((c1 - c0) / seconds)} {self.unit}/s", loss, _clock(left)


class Plain:
    """Lines for a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace = Pace()
        self._spoke = 0.0

    def started(self, info: RunInfo) -> None:
        """Say what is trained on what."""
        _introduce(self.console, info)
        self.pace.start(info)
        self._spoke = time.monotonic()

    def stepped(self, progress: float, seen: int, loss: float) -> None:
        """Say something every now and then."""
        self.pace.mark(progress, seen, loss)
        if time.monotonic() - self._spoke >= _LINE:
            self._spoke = time.monotonic()
            speed, told, left = self.pace.describe()
            self.console.print(f"{progress:4.0%}  {told}  {speed}  {left} left")

    def evaluated(self, step: int, seen: int, validation: str, training: str, shown: str, best: bool) -> None:
        """Say how well it does, and show a sample."""
        place = f"step {step:,}, {_short(seen)} {self.pace.unit}"
        _show_evaluation(self.console, place, validation, training, shown, best)

    def ended(self, outcome: Outcome) -> None:
        """Say how it ended and what to do next."""
        _conclude(self.console, outcome)


class Live:
    """A bar at the foot of a terminal, evaluations and samples above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace = Pace()
        # Drawn from the training's own thread: another one would take its turns from the kernels.
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("[cyan]{task.fields[speed]}"),
            TextColumn("[green]{task.fields[loss]}"),
            TextColumn("ETA {task.fields[left]}"),
            console=console,
            auto_refresh=False,
            expand=True,
        )
        self._task: TaskID | None = None
        self._drawn = 0.0

    def started(self, info: RunInfo) -> None:
        """Say what is trained on what, and show the bar."""
        _introduce(self.console, info)
        self.pace.start(info)
        if self._task is not None:  # of the run before
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(
            "", total=_PARTS, completed=int(_PARTS * info.progress), speed="", loss="compiling", left="--:--"
        )
        self._bar.start()
        self._bar.refresh()

    def stepped(self, progress: float, seen: int, loss: float) -> None:
        """Move the bar."""
        self.pace.mark(progress, seen, loss)
        now = time.monotonic()
        if now - self._drawn >= _REFRESH and self._task is not None:
            self._drawn = now
            speed, told, left = self.pace.describe()
            self._bar.update(self._task, completed=int(_PARTS * progress), speed=speed, loss=told, left=left)
            self._bar.refresh()

    def evaluated(self, step: int, seen: int, validation: str, training: str, shown: str, best: bool) -> None:
        """Show how well it does, and a sample, above the bar."""
        place = f"step {step:,}, {_short(seen)} {self.pace.unit}"
        _show_evaluation(self.console, place, validation, training, shown, best)

    def ended(self, outcome: Outcome) -> None:
        """Take the bar away and say how it ended."""
        self.stop()
        _conclude(self.console, outcome)

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def _introduce(console: Console, info: RunInfo) -> None:
    for k, fact in enumerate(info.facts):
        console.print(escape(fact), style="bold" if k == 0 else None)
    begun = "into" if info.resumed_at is None else f"going on from step {info.resumed_at:,} in"
    console.print(f"{begun} {escape(str(info.out))}; Ctrl-C stops, --resume goes on; * marks the best so far\n")


def _show_evaluation(console: Console, place: str, validation: str, training: str, shown: str, best: bool) -> None:
    parts = [place, f"[bold]{escape(validation)}[/bold]", *([f"training {escape(training)}"] if training else [])]
    console.print(", ".join(parts) + (" [green]*[/green]" if best else ""))
    if shown:
        lines = printable(shown).strip("\n").split("\n")
        console.print("\n".join("    " + line for line in lines), style="dim", markup=False)
        console.print()


def _conclude(console: Console, outcome: Outcome) -> None:
    out = shlex.quote(str(outcome.out))
    seen = f"{_short(outcome.seen)} {outcome.unit}"
    if not outcome.finished:
        console.print(f"stopped after step {outcome.steps:,}; everything is in {escape(out)}. To go on:")
        console.print(f"    ostinato train {outcome.task} --out {out} --resume", style="bold", markup=False)
        return
    console.print(f"\ndone: {outcome.steps:,} steps, {seen} in {_clock(outcome.seconds)}")
    lines = [("parameters", f"{outcome.parameters:,}")]
    if outcome.best is not None:
        lines.append(("best", f"{outcome.best_told}, at step {outcome.best_step:,}"))
    lines += outcome.files
    width = max(len(word) for word, _ in lines)
    for word, value in lines:
        console.print(f"{word:<{width}}  {value}", markup=False)


def _short(number: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "--:--"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
