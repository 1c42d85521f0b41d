"""How far apart the rows of a series are: found, checked, and gone on with."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError, OptionError

__all__ = ["Frequency", "shown"]

_DAY = 86_400_000_000_000  # nanoseconds
_NO_STAMP = np.iinfo(np.int64).min  # as a time it is NaT
_LONGEST = 1440  # rows of a day, of a minute each: with more, a day is no season to look back to
_STRETCH = 4  # neighbouring stamps by which a frequency is guessed where gaps hide it
_SPOTS = 200  # stretches that are looked at
_SEASONS = {"B": 5, "C": 5, "W": 52, "M": 12, "SM": 24, "Q": 4}


@dataclass(frozen=True)
class Frequency:
    """The distance of neighbouring rows.

    Args:
        kind: "time" (stamps on a grid), "number" (numbered steps), or "rows" (whatever the stamps say).
        text: of time, as pandas writes it ("h", "15min", "MS"); of numbers, their distance.
    """

    kind: str
    text: str

    @classmethod
    def of(cls, stamps: Sequence[np.ndarray], asked: str | None) -> Frequency:
        """That of some series: what was asked for, or what most neighbours have.

        Raises:
            OptionError: what was asked for is no frequency.
            DataError: too few stamps to find one.

        >>> Frequency.of([np.array(["2016-07-01T00", "2016-07-01T01", "2016-07-01T02"], "datetime64[ns]")], None).text
        'h'
        """
        if asked == "rows":
            return cls("rows", "rows")
        if stamps[0].dtype.kind != "M":
            if asked is not None and not (asked.isdecimal() and int(asked) > 0):
                raise OptionError(f"frequency is {asked!r}, but the steps are numbers; pass a whole number, or rows.")
            return cls("number", asked or str(_usual(stamps)))
        if asked is not None:
            return cls("time", _offset(asked).freqstr)
        return cls("time", _found(stamps))

    def steps(self, first: Any, last: Any) -> np.ndarray:
        """All stamps from the first to the last."""
        if self.kind == "number":
            return np.arange(first, last + 1, int(self.text))
        import pandas as pd

        return pd.date_range(first, last, freq=self.text).to_numpy(dtype="datetime64[ns]")

    def ahead(self, last: Any, count: int) -> np.ndarray:
        """The next stamps after the last one; where rows are counted, what is no stamp."""
        if self.kind == "rows":
            nothing = np.full(count, _NO_STAMP, np.int64)
            return nothing.view("datetime64[ns]") if isinstance(last, np.datetime64) else nothing
        if self.kind == "number":
            return last + int(self.text) * np.arange(1, count + 1)
        import pandas as pd

        found = pd.date_range(last, periods=count + 1, freq=self.text).to_numpy(dtype="datetime64[ns]")
        return found[found > last][:count]

    def check(self, stamps: np.ndarray, at: Callable[[int], str], gaps: bool) -> None:
        """See that the stamps, which rise, are on the grid.

        Args:
            stamps: of one series.
            at: where a row stands, as errors say it.
            gaps: whether some may be missing.

        Raises:
            DataError: one is off the grid, or missing.
        """
        if self.kind == "rows":
            return
        grid = self.steps(stamps[0], stamps[-1])
        if np.array_equal(grid, stamps):
            return
        off = np.flatnonzero(~np.isin(stamps, grid))
        unit = f"a frequency of {self.text!r}" if self.kind == "time" else f"steps of {self.text}"
        if len(off):
            row = int(off[0])
            raise DataError(
                f"{at(row)}: the stamp {shown(stamps[row])} does not fit {unit} from {shown(stamps[0])} on; correct "
                "it, or train with another --frequency (rows counts rows, whatever the stamps)."
            )
        if not gaps:
            row = int(np.flatnonzero(~np.isin(grid, stamps))[0])  # as many rows stand before it
            raise DataError(
                f"{at(row)}: {len(grid) - len(stamps)} stamps are missing by {unit}, the first is {shown(grid[row])}; "
                "fill them in, or train with --missing interpolate or another --frequency (rows counts rows, whatever "
                "the stamps)."
            )

    def season(self) -> int:
        """How many rows a season has, as far as the calendar says: a day, of days a week, of months a year; else 1."""
        if self.kind != "time":
            return 1
        offset = _offset(self.text)
        name, count = _name(offset), offset.n
        if name == "D":
            return {1: 7, 7: 52}.get(count, 1)
        if name in _SEASONS:
            return _SEASONS[name] // count if _SEASONS[name] % count == 0 else 1
        steps = _DAY // offset.nanos if _within_a_day(offset) and _DAY % offset.nanos == 0 else 1
        return steps if steps <= _LONGEST else 1

    def calendar(self) -> tuple[str, ...]:
        """What of the calendar says something at this frequency."""
        if self.kind != "time":
            return ()
        offset = _offset(self.text)
        name = _name(offset)
        if _within_a_day(offset):
            return ("hour", "weekday")
        if name in ("D", "B", "C") and offset.n == 1:
            return ("weekday", "month")
        return ("month",) if name in ("D", "B", "C", "W", "M", "SM", "Q") else ()


def shown(stamp: Any, days: bool = False) -> str:
    """A stamp as people write it; its day alone where that is asked for."""
    if not isinstance(stamp, np.datetime64):
        return "" if stamp == _NO_STAMP else str(stamp)
    import pandas as pd

    text = "" if np.isnat(stamp) else str(pd.Timestamp(stamp))
    return text.partition(" ")[0] if days else text


def _found(stamps: Sequence[np.ndarray]) -> str:
    import pandas as pd

    for each in stamps[:20]:
        if len(each) >= 3 and (whole := _inferred(each)):
            return whole
    stretches = [
        each[start : start + _STRETCH]
        for each in stamps[:20]
        for start in range(0, max(len(each) - _STRETCH, 0) + 1, max(1, len(each) // _SPOTS))
        if len(each) >= _STRETCH
    ]
    guesses = Counter(filter(None, map(_inferred, stretches)))
    if guesses:
        return guesses.most_common(1)[0][0]
    return _offset(pd.Timedelta(int(_usual(stamps)), "ns")).freqstr


def _inferred(stamps: np.ndarray) -> str | None:
    """What pandas finds; None where the stamps have no frequency."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from pandas 3.1 on it says that it will give an offset and no text
        found = pd.infer_freq(pd.DatetimeIndex(stamps))
    return None if found is None else _offset(found).freqstr


def _usual(stamps: Sequence[np.ndarray]) -> int:
    """The distance that most neighbours have."""
    distances = Counter(int(d) for each in stamps[:20] for d in np.diff(each.astype(np.int64)).tolist())
    if not distances:
        raise DataError("no series has two rows, so none can be learned from; pass a longer one.")
    return distances.most_common(1)[0][0]


def _offset(text: Any) -> Any:
    from pandas.tseries.frequencies import to_offset

    try:
        found: Any = to_offset(text)
    except ValueError:
        found = None
    if found is None or found.n < 1:
        raise OptionError(f"frequency is {text!r}; pass one as pandas writes it: 15min, h, D, B, W, MS, or rows.")
    return found


def _name(offset: Any) -> str:
    """What an offset counts, without its anchor and without beginning or end."""
    name = offset.base.freqstr.partition("-")[0].lstrip("-0123456789")
    if name not in ("MS", "BMS", "SMS", "QS", "BQS", "ME", "BME", "SME", "QE", "BQE", "BM", "BQ"):
        return name
    return name.removeprefix("B").rstrip("SE") or name


def _within_a_day(offset: Any) -> bool:
    try:
        return offset.nanos < _DAY
    except ValueError:  # months and their like have no fixed length
        return False
