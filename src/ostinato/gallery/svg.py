"""The picture of a step as an SVG that needs nothing else: light and dark, no fonts, no scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from ..ir import Program
from . import strip
from .figure import Figure, Item, figure
from .layout import Layout, lay_out

_MARGIN, _GAP, _HEAD, _PAD = 16.0, 36.0, 26.0, 8.0
_NAME, _LINE = 17.0, 14.0  # heights of a line of text
_STYLE = """
  .panel{fill:#fcfcfb;stroke:#d5d8dc} .band{fill:#eff1f3} text{fill:#1f2328;font-family:ui-sans-serif,system-ui,
  "Segoe UI",Helvetica,Arial,sans-serif;font-size:11px;text-anchor:middle} .name{font-size:13px;font-weight:600}
  .note{fill:#59636e;text-anchor:start} .edge{fill:none;stroke:#7a828c;stroke-width:1.2} .tip{fill:#7a828c}
  .rule{stroke:#d5d8dc} .box{stroke-width:1.3} .plain .box{fill:#ffffff;stroke:#8b949e}
  .gate .box{fill:#fdebd3;stroke:#c9741a}
  .squash .box{fill:#dcecfb;stroke:#2f7fc1} .function .box{fill:#e2f2dc;stroke:#4b9440}
  .reduction .box{fill:#fbe3e4;stroke:#b6474f} .state .box,.output .box,.input .box{fill:#e9e4f7;stroke:#7a5bc0}
  .product .box{fill:#e6e8ea;stroke:#4d5560} .reading .box{fill:#f6f7f8;stroke:#4d5560;stroke-dasharray:4 2}
  @media (prefers-color-scheme:dark){ .panel{fill:#15191f;stroke:#3a414a} .band{fill:#1f252d} text{fill:#e6edf3}
  .note{fill:#9aa4af} .rule{stroke:#3a414a} .edge{stroke:#8a939e} .tip{fill:#8a939e}
  .plain .box{fill:#0d1117;stroke:#8b949e}
  .gate .box{fill:#4a3217;stroke:#e0993f} .squash .box{fill:#17344f;stroke:#5aa7e6} .function .box{fill:#1f3b1c;
  stroke:#6cb75f} .reduction .box{fill:#4a2023;stroke:#e0787f} .state .box,.output .box,.input .box{fill:#332a52;
  stroke:#a78ce8} .product .box{fill:#343b44;stroke:#a5aeb8} .reading .box{fill:#20262e;stroke:#a5aeb8} }
"""


def svg(program: Program) -> str:
    """The picture of a cell's step.

    From left to right: the states before the step, then round by round the products (boxes with their matrices) and
    the values that wait for them, the states after it. x comes from below, and its products, broken boxes, are
    computed for all steps at once; the output leaves at the top. Below it stands the step unrolled, three times in a
    row.

    >>> from ostinato import cells
    >>> svg(cells.lstm.program()).startswith("<svg ")
    True
    """
    return _Picture(figure(program), program.states).text()


class _Picture:
    def __init__(self, drawn: Figure, states: Sequence[str]) -> None:
        self.drawn = drawn
        self.states = states
        above = [i for i in drawn.items if i.kind != "reading"]
        columns = [[i for i in above if i.column == k] for k in range(drawn.columns)]
        fixed = frozenset({0, drawn.columns - 1})
        self.layout: Layout[Item] = lay_out(columns, drawn.edges, _height, fixed)
        top = _MARGIN + (_HEAD if drawn.stages else 12.0)
        for item, y in self.layout.y.items():
            item.y = top + y
        for item in above:
            if item.kind == "output":
                item.y = min(item.y, top + _height(item) / 2)
        self.top = top
        self.floor = top + self.layout.height
        self.reading = [i for i in drawn.items if i.kind == "reading"]
        tallest = max((_height(i) for i in self.reading), default=0.0)
        self.strip = self.floor + 20 + tallest / 2
        self.rail = self.floor + 20 + (tallest + 22 if tallest else 8)
        for item in self.reading:
            item.y = self.strip
        self.read = bool(self.reading or drawn.taps)
        self._spread()

    def _spread(self) -> None:
        """Widths of the columns and where they begin."""
        drawn = self.drawn
        self.x = Item("input", "x", (), 0, self.rail)
        items = [*drawn.items, *([self.x] if self.read else [])]
        self.widths = [max((_width(i) for i in items if i.column == k), default=0.0) for k in range(drawn.columns)]
        self.left: list[float] = []
        edge = _MARGIN
        for k, width in enumerate(self.widths):
            self.left.append(edge)
            fan = sum(1 for a, b in (*drawn.edges, *drawn.readings) if a.column <= k < b.column)
            edge += width + min(_GAP + 1.5 * fan, 64.0)
        self.width = max(self._end(-1), _MARGIN + strip.WIDTH) + _MARGIN
        self.below = (self.rail + 26 if self.read else self.floor) + _MARGIN
        self.height = self.below + strip.HEIGHT + 8

    def _centre(self, item: Item) -> float:
        return self.left[item.column] + self.widths[item.column] / 2

    def _side(self, item: Item, left: bool) -> float:
        return self._centre(item) + (-1 if left else 1) * _width(item) / 2

    def _end(self, column: int) -> float:
        return self.left[column] + self.widths[column]

    def _entry(self, item: Item, y: float) -> list[tuple[float, float]]:
        """From the edge of its column to an item's left side."""
        return [(self.left[item.column], y), (self._side(item, True), y)]

    def text(self) -> str:
        n = _number
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {n(self.width)} {n(self.height)}" '
            f'width="{n(self.width)}" height="{n(self.height)}" role="img" xml:space="preserve">',
            f"<title>One step of {escape(self.drawn.name)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0,1 L8,4 L0,7 z"/></marker></defs>',
            f'<rect class="panel" x="0.5" y="0.5" width="{n(self.width - 1)}" height="{n(self.height - 1)}" rx="8"/>',
            *self._bands(),
            *self._edges(),
            *self._rail(),
            *(self._box(item) for item in [*self.drawn.items, *([self.x] if self.read else [])]),
            *self._unrolled(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _unrolled(self) -> list[str]:
        line = f'<path class="rule" d="M{_MARGIN:g},{_number(self.below)} H{_number(self.width - _MARGIN)}"/>'
        gives = any(item.kind == "output" for item in self.drawn.items)
        top = round(self.below + 8, 1)
        return [line, *strip.strip(_subscripted(strip.short(self.states)), _MARGIN, top, self.read, gives)]

    def _bands(self) -> list[str]:
        parts: list[str] = []
        for k, (first, last) in enumerate(self.drawn.stages, 1):
            left = self.left[first] - 12
            width = self._end(last) + 12 - left
            height = self.floor - self.top + _HEAD + 8
            parts.append(
                f'<rect class="band" x="{_number(left)}" y="{_number(self.top - _HEAD)}" width="{_number(width)}" '
                f'height="{_number(height)}" rx="6"/>'
                f'<text class="note" x="{_number(left + 8)}" y="{_number(self.top - _HEAD + 16)}">stage {k}</text>'
            )
        return parts

    def _ports(self) -> dict[tuple[Item, Item], float]:
        """Where on its left side each edge enters an item: in the order in which they come."""
        come: dict[Item, list[tuple[float, Item]]] = {}
        for edge in self.drawn.edges:
            passed = self.layout.passages[edge]
            come.setdefault(edge[1], []).append((passed[-1] + self.top if passed else edge[0].y, edge[0]))
        for box, item in self.drawn.readings:
            come.setdefault(item, []).append((box.y, box))
        for item in self.drawn.taps:
            come.setdefault(item, []).append((self.rail, self.x))
        ports: dict[tuple[Item, Item], float] = {}
        for item, sources in come.items():
            room = min(_height(item) - 12, 9.0 * (len(sources) - 1))
            for k, (_, source) in enumerate(sorted(sources, key=lambda s: s[0])):
                share = k / (len(sources) - 1) - 0.5 if len(sources) > 1 else 0.0
                ports[source, item] = item.y + share * room
        return ports

    def _edges(self) -> list[str]:
        ports = self._ports()
        parts: list[str] = []
        for a, b in self.drawn.edges:
            points = [(self._side(a, False), a.y), (self._end(a.column), a.y)]
            for k, y in enumerate(self.layout.passages[a, b], a.column + 1):
                points += [(self.left[k], y + self.top), (self._end(k), y + self.top)]
            parts.append(_curve([*points, *self._entry(b, ports[a, b])]))
        for box, item in self.drawn.readings:
            points = [(self._side(box, False), box.y), (self._end(box.column), box.y)]
            parts.append(_curve([*points, *self._entry(item, ports[box, item])]))
        for item in self.drawn.taps:
            start = self._end(item.column - 1), self.rail
            parts.append(_curve([start, start, *self._entry(item, ports[self.x, item])]))
        return parts

    def _rail(self) -> list[str]:
        """The line along which x reaches what reads it."""
        if not self.read:
            return []
        ends = [self._centre(box) for box in self.reading]
        ends += [self._end(i.column - 1) for i in self.drawn.taps]
        start = self._side(self.x, False)
        parts = [f'<path class="edge" d="M{_number(start)},{_number(self.rail)} H{_number(max([start, *ends]))}"/>']
        for box in self.reading:
            x, bottom = self._centre(box), box.y + _height(box) / 2
            parts.append(
                f'<path class="edge" marker-end="url(#tip)" d="M{_number(x)},{_number(self.rail)} V{_number(bottom)}"/>'
            )
        if self.reading:
            parts.append(
                f'<text class="note" x="{_number(_MARGIN)}" y="{_number(self.rail + 28)}">'
                "broken boxes: products of x, for all steps at once</text>"
            )
        return parts

    def _box(self, item: Item) -> str:
        width, height, x = _width(item), _height(item), self._centre(item)
        round_ = 2 if item.kind in ("product", "reading") else min(height / 2, 13)
        lines = [("name", item.name, _NAME)] if item.name else []
        lines += [("name" if item.kind in ("product", "reading") else "", line, _LINE) for line in item.lines]
        if item.kind in ("product", "reading"):
            lines = [("", text, _LINE) for _, text, _ in lines]
        y = item.y - sum(size for *_, size in lines) / 2
        parts = [
            f'<g class="{item.kind}"><rect class="box" x="{_number(x - width / 2)}" y="{_number(item.y - height / 2)}" '
            f'width="{_number(width)}" height="{_number(height)}" rx="{_number(round_)}"/>'
        ]
        for style, text, size in lines:
            y += size
            kind = f' class="{style}"' if style else ""
            parts.append(f'<text{kind} x="{_number(x)}" y="{_number(y - 4)}">{_subscripted(text)}</text>')
        if item.kind == "output":
            top = item.y - height / 2
            parts.append(f'<path class="edge" marker-end="url(#tip)" d="M{_number(x)},{_number(top)} v-14"/>')
        return "".join(parts) + "</g>"


def _subscripted(text: str) -> str:
    """Names with their subscripts below the line."""
    parts: list[str] = []
    lowered = False
    for k, part in enumerate(re.split(r"(?<=[^\W\d_])_(\w+)", text)):
        if k % 2:
            parts.append(f'<tspan dy="3" font-size="8.5">{escape(part)}</tspan>')
        elif part:
            parts.append(f'<tspan dy="-3">{escape(part)}</tspan>' if lowered else escape(part))
        lowered = k % 2 == 1
    return "".join(parts)


def _width(item: Item) -> float:
    small = max((len(line) for line in item.lines), default=0) * 6.0
    large = len(item.name) * (6.2 if item.kind in ("product", "reading") else 7.6)
    return max(small, large, 14.0) + 2 * _PAD


def _height(item: Item) -> float:
    if item.kind in ("product", "reading"):
        return _LINE * (1 + len(item.lines)) + 12
    return (_NAME if item.name else 0.0) + _LINE * len(item.lines) + 9


def _curve(points: list[tuple[float, float]]) -> str:
    """Along the points, straight and bent in turn."""
    x, y = points[0]
    path = [f"M{_number(x)},{_number(y)}"]
    for k, (to_x, to_y) in enumerate(points[1:]):
        if k % 2:
            bend = _number((x + to_x) / 2)
            path.append(f"C{bend},{_number(y)} {bend},{_number(to_y)} {_number(to_x)},{_number(to_y)}")
        elif to_x != x:
            path.append(f"H{_number(to_x)}")
        x, y = to_x, to_y
    return f'<path class="edge" marker-end="url(#tip)" d="{" ".join(path)}"/>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
