"""The numbers of a run: `metrics.csv` and TensorBoard events."""

from __future__ import annotations

import csv
import io
import math
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from .files import explained, write_atomically

__all__ = ["EventFile", "Metrics", "Row"]

Row = dict[str, float]


class Metrics:
    """The rows of `metrics.csv`, one for each stretch of `log_every` steps and one for each evaluation.

    The file is written as a whole and atomically, before each checkpoint; so it is never behind the
    checkpoint, and where a kill leaves it ahead, `load` cuts it back.

    Args:
        path: the file.
        columns: their names; "step" is one of them.
        rows: what it holds.
    """

    def __init__(self, path: Path, columns: Sequence[str], rows: list[Row] | None = None) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.rows: list[Row] = [] if rows is None else rows

    @classmethod
    def load(cls, path: Path, columns: Sequence[str], step: int) -> Metrics:
        """The rows up to and with `step`.

        Raises:
            RunError: a file that is not what `write` wrote.
        """
        try:
            with open(path, newline="", encoding="utf-8") as stream:
                table = list(csv.reader(stream))
        except FileNotFoundError:
            return cls(path, columns)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RunError(f"{path} cannot be read: {error}; {_REMEDY}.") from None
        if not table or table[0] != list(columns):
            raise RunError(f"{path} does not begin with the names of its columns; {_REMEDY}.")
        rows: list[Row] = []
        for number, line in enumerate(table[1:], start=2):
            if len(line) != len(columns):
                raise RunError(f"{path}, line {number}, has {len(line)} fields of {len(columns)}; {_REMEDY}.")
            try:
                rows.append({name: _number(value) for name, value in zip(columns, line, strict=True) if value})
            except ValueError as error:
                raise RunError(f"{path}, line {number}: {error}; {_REMEDY}.") from None
        return cls(path, columns, [row for row in rows if row.get("step", math.inf) <= step])

    def add(self, row: Row) -> Row:
        """Add a row, or complete the last one where it is of the same step."""
        if self.rows and self.rows[-1]["step"] == row["step"]:
            self.rows[-1].update(row)
        else:
            self.rows.append(dict(row))
        return self.rows[-1]

    def write(self) -> None:
        """Write the whole file, atomically."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([_field(row.get(name)) for name in self.columns])
        write_atomically(self.path, stream.getvalue())


_REMEDY = "remove it to go on without its rows"


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def _field(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))


class EventFile:
    """TensorBoard events, appended one whole record at a time from this thread.

    torch's own writer appends from a second thread, which cannot say that the disk is full.

    Args:
        folder: the run folder.
        purge_step: what earlier files say of this step and later ones is void; None for a new run.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2  # the messages' classes are made when the module is run
        self._summary: Any = summary_pb2
        name = f"events.out.tfevents.{time.time_ns() // 1000:020d}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        with explained(self.path):
            self._stream = open(self.path, "xb")  # noqa: SIM115 - closed by close()
        self._writer = RecordWriter(self._stream)
        self._write(self._event.Event(wall_time=time.time(), step=0, file_version="brain.Event:2"))
        if purge_step is not None:
            log = self._event.SessionLog(status=self._event.SessionLog.START)
            self._write(self._event.Event(wall_time=time.time(), step=purge_step, session_log=log))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write scalars of one step."""
        summary = self._summary.Summary(
            value=[self._summary.Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()]
        )
        self._write(self._event.Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _write(self, event: Any) -> None:
        with explained(self.path):
            self._writer.write(event.SerializeToString())
            self._stream.flush()
