"""Tables: CSV, TSV, JSON lines and Parquet, with the place of every fault."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .decoding import Source, decode, name_of, read_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "Table", "format_of_bytes", "read_table"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""File name's end to format; the first three may be followed by .gz."""

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table and where each of its rows stands.

    Args:
        frame: its columns by name; those of CSV and TSV are texts as they stand in the file, so that a label "01" or
            "NA" is what it was.
        name: what the errors call it.
        lines: the line on which each row begins, `[N]`; None where there are none (Parquet).
    """

    frame: pd.DataFrame
    name: str
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return [str(column) for column in self.frame.columns]

    def at(self, row: int) -> str:
        """Where a row stands, as errors say it."""
        return f"{self.name}, row {row + 1}" if self.lines is None else f"{self.name}, line {self.lines[row]}"

    def need(self, *columns: str) -> None:
        """See that these columns are there.

        Raises:
            DataError: one is not.
        """
        for column in columns:
            if column in self.frame.columns:
                continue
            near = difflib.get_close_matches(column, self.columns, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            if len(self.columns) == 1 and any(sign in self.columns[0] for sign in ";\t|"):
                hint = " Its header is one column; pass the sign between columns as delimiter."
            raise DataError(f"{self.name} has no column {column!r}; it has {', '.join(map(repr, self.columns))}.{hint}")

    def texts(self, column: str, *, empty: bool = True) -> list[str]:
        """A column's values as texts, N of them.

        Args:
            column: its name.
            empty: whether a text may be empty.

        Raises:
            DataError: no such column, a value that is missing, or a list.
        """
        self.need(column)
        values = self.frame[column].tolist()
        found: list[str] = []
        for row, value in enumerate(values):
            if isinstance(value, (list, dict)):
                raise DataError(f"{self.at(row)}: {column!r} is {_shown(value)}, which is no text; write it as one.")
            if value is None or value != value or (not empty and not str(value).strip()):  # NaN is not itself
                raise DataError(f"{self.at(row)}: {column!r} is missing; fill it in or take the row away.")
            found.append(value if isinstance(value, str) else str(value))
        return found

    def numbers(self, column: str, *, missing: bool = False) -> np.ndarray:
        """A column's values as numbers, `[N]` float64.

        Args:
            column: its name.
            missing: whether a value may be missing (empty, NA, NaN, null, none or ?); it is NaN then.

        Raises:
            DataError: no such column, a value that is no finite number, or one that is missing.
        """
        import pandas as pd

        self.need(column)
        series = self.frame[column]
        numbers = pd.Series(pd.to_numeric(series, errors="coerce")).to_numpy(dtype=np.float64, na_value=np.nan)
        for row in np.flatnonzero(~np.isfinite(numbers)).tolist():
            value = series.iloc[row]
            gone = value is None or value != value or str(value).strip().lower() in _MISSING
            if gone and missing:
                continue
            if gone:
                raise DataError(f"{self.at(row)}: {column!r} is missing ({_shown(value)}); fill it in.")
            comma = _is_number(str(value).replace(",", ".", 1)) and "," in str(value)
            remedy = "write a decimal point instead of the comma" if comma else "correct it"
            raise DataError(f"{self.at(row)}: {column!r} is {_shown(value)}, which is no finite number; {remedy}.")
        return numbers

    def times(self, column: str, format: str | None = None) -> np.ndarray:
        """A column's values as times, `[N]` datetime64[ns]; those with an offset from UTC are brought to UTC.

        Args:
            column: its name.
            format: how they are written, such as "%d/%m/%Y %H:%M"; None: as ISO 8601 says (2016-07-01 00:00:00).

        Raises:
            DataError: no such column, or a value that is no time in this format.
        """
        import pandas as pd

        self.need(column)
        series = self.frame[column]
        if pd.api.types.is_numeric_dtype(series):
            raise DataError(
                f"{self.name}: {column!r} holds numbers, such as {series.iloc[0]}; write times as ISO 8601."
            )
        found = pd.to_datetime(series, errors="coerce", format=format or "ISO8601", utc=True)
        for row in np.flatnonzero(found.isna().to_numpy()).tolist():
            raise DataError(
                f"{self.at(row)}: {column!r} is {_shown(series.iloc[row])}, which is no time as "
                f"{format or 'ISO 8601 writes it'}; pass the format, for example %d/%m/%Y."
            )
        return found.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")


def read_table(
    source: Source,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quotes: bool | None = None,
) -> Table:
    """A table with a header, from a file or a stream.

    Args:
        source: a path, or an open stream.
        format: "csv", "tsv", "jsonl" or "parquet"; None: by the file's name, and of a stream by what it begins with.
        encoding: of CSV, TSV and JSON lines.
        delimiter: the sign between columns; None: a comma in CSV, a tab in TSV.
        quotes: whether a value may stand in double quotes and hold delimiters and line ends there; None: in CSV it may,
            in TSV a quote is a character like others.

    Raises:
        DataError: an unknown format, a file that cannot be read, no rows, a row with more or fewer values than the
            header has names, or Parquet without pyarrow.

    >>> import io
    >>> table = read_table(io.StringIO("text,label\\nso good,1\\n"))
    >>> table.columns, table.texts("label")
    (['text', 'label'], ['1'])
    """
    name = name_of(source)
    if format is None and not isinstance(source, (str, os.PathLike)):
        raw = read_bytes(source)
        format, source = format_of_bytes(raw) if delimiter is None else "csv", io.BytesIO(raw)
    format = format or _format_of(source, name)
    if format not in FORMATS.values():
        raise DataError(f"{format!r} is no format of a table; pass csv, tsv, jsonl or parquet.")
    if format == "parquet":
        return _parquet(source, name)
    text = decode(read_bytes(source), name, encoding)
    if format == "jsonl":
        return _json_lines(text, name)
    tab = format == "tsv"
    return _separated(text, name, delimiter or ("\t" if tab else ","), not tab if quotes is None else quotes)


def format_of_bytes(raw: bytes) -> str:
    """The format of a table by what it begins with: TSV where its first line has a tab.

    >>> format_of_bytes(b'{"a": 1}'), format_of_bytes(b"a\\tb"), format_of_bytes(b"a,b")
    ('jsonl', 'tsv', 'csv')
    """
    if raw.startswith(b"PAR1"):
        return "parquet"
    first = raw.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    return "jsonl" if first.startswith(b"{") else "tsv" if b"\t" in first else "csv"


def _format_of(source: Source, name: str) -> str:
    path = PurePath(name)
    end = PurePath(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if end.lower() not in FORMATS:
        raise DataError(f"{name} does not end in {', '.join(FORMATS)}; pass the format of the table, such as csv.")
    return FORMATS[end.lower()]


def _separated(text: str, name: str, delimiter: str, quotes: bool) -> Table:
    import pandas as pd

    rows = _rows(text, name, delimiter, quotes)
    header_line, header = next(rows)
    header = [column.strip() for column in header]
    if doubled := sorted({column for column in header if header.count(column) > 1}):
        raise DataError(f"{name}, line {header_line}: the column {doubled[0]!r} comes twice; name each once.")
    lines: list[int] = []
    values: list[list[str]] = []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{name}, line {line}: {len(row)} values, but the header has {len(header)} columns "
                f"({', '.join(header)}); a value that holds {delimiter!r} stands in double quotes."
            )
        lines.append(line)
        values.append(row)
    if not values:
        raise DataError(f"{name} has a header ({', '.join(header)}) and no rows; pass a table with one or more.")
    columns = dict(zip(header, map(list, zip(*values, strict=True)), strict=True))
    return Table(pd.DataFrame(columns, dtype=object), name, np.array(lines))


def _rows(text: str, name: str, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, and the line on which it begins."""
    csv.field_size_limit(2**31 - 1)  # a value may be a whole document
    style: dict[str, Any] = {"quoting": csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, "strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **style)
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{name}, line {line}: {error}; a double quote within a quoted value is written twice, and a value "
                "that begins with one ends with one."
            ) from None
        if row is None:
            return
        if len(row) > 1 or (row and row[0].strip()):
            yield line, row
        line = reader.line_num + 1


def _json_lines(text: str, name: str) -> Table:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{name}, line {line}: no JSON ({error}); write one object a line.") from None
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {line}: {_shown(row)} is no object; write one a line, {{...}}.")
        rows.append(row)
        lines.append(line)
    return Table(pd.DataFrame(rows, dtype=object), name, np.array(lines))


def _parquet(source: Source, name: str) -> Table:
    import pandas as pd

    raw = io.BytesIO(read_bytes(source))
    try:
        frame = pd.read_parquet(raw)
    except ImportError:
        remedy = "run: pip install 'ostinato[parquet]'"
        raise DataError(f"{name} is Parquet, for which pyarrow is needed; {remedy}.") from None
    except (OSError, ValueError) as error:  # what pyarrow raises is a ValueError too
        raise DataError(f"{name} is not a whole Parquet file: {error}.") from None
    if not len(frame):
        raise DataError(f"{name} has no rows; pass a table with one or more.")
    return Table(frame, name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
