"""The step unrolled: the same box three times, with what one hands to the next."""

from __future__ import annotations

from collections.abc import Sequence

_BOX, _HEIGHT, _GAP, _ARROW = 64.0, 34.0, 76.0, 20.0
_TIMES = ("t−1", "t", "t+1")

WIDTH = 3 * _BOX + 4 * _GAP
HEIGHT = _HEIGHT + 2 * _ARROW + 72


def strip(carried: str, left: float, top: float, reads: bool, gives: bool) -> list[str]:
    """The SVG of three steps in a row, `WIDTH` wide and `HEIGHT` high, with its corner at (left, top).

    Args:
        carried: what a step hands to the next, as SVG; empty if there are no states.
        reads: there is an x; gives: there is an output.

    >>> "".join(strip("h, c", 0, 0, True, True)).count("h, c")
    4
    """
    parts = [f'<text class="note" x="{left:g}" y="{top + 12:g}">unrolled: the same step with the same weights</text>']
    y = top + 40 + _ARROW
    middle, bottom = y + _HEIGHT / 2, y + _HEIGHT
    for k, time in enumerate((*_TIMES, "")):
        x = left + _GAP + k * (_BOX + _GAP)
        if carried:
            parts.append(_arrow(x - _GAP + 4, middle, f"H{x - 4:g}"))
            parts.append(_text(x - _GAP / 2, middle - 6, carried))
        if not time:
            break
        centre = x + _BOX / 2
        parts.append(
            f'<g class="product"><rect class="box" x="{x:g}" y="{y:g}" width="{_BOX:g}" height="{_HEIGHT:g}" rx="6"/>'
            f'<text class="name" x="{centre:g}" y="{middle + 5:g}">{time}</text></g>'
        )
        if reads:
            parts += [_arrow(centre, bottom + _ARROW, f"v{4 - _ARROW:g}"), _text(centre, bottom + 32, f"x[{time}]")]
        if gives:
            parts += [_arrow(centre, y - 4, f"v{4 - _ARROW:g}"), _text(centre, y - _ARROW - 5, f"output[{time}]")]
    return parts


def short(states: Sequence[str]) -> str:
    """The names of states, as many as fit above an arrow.

    >>> short(["h", "c"]), short(["y", "y_2", "y_3", "y_4"])
    ('h, c', 'y, y_2, …')
    """
    shown = ", ".join(states)
    kept = list(states)
    while len(shown) > 11 and len(kept) > 1:
        kept.pop()
        shown = ", ".join([*kept, "…"])
    return shown


def _arrow(x: float, y: float, way: str) -> str:
    return f'<path class="edge" marker-end="url(#tip)" d="M{x:g},{y:g} {way}"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:g}" y="{y:g}">{text}</text>'
