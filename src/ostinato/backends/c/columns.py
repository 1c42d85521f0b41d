"""Pointwise loops and means over the batch as C, a strip of columns at a time.

Where all of a step has one size and no sum over a vector, nothing but products joins its columns. Then all that lies
between two products goes over a strip of one vector's width together: the rows of the strip stay in the first-level
cache, and sums over the batch in registers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...schedule import BatchMean, Loop, Place, Run, Slot, StepLoop, Store
from .loops import LoopText, Tables

_OF_THE_STEP = ("step", "vector", "scalar")  # the same for all rows
_SUMS = ("grad_vector", "grad_scalar")  # what rows are added to
_OF_A_ROW = ("x", "out", "grad_out", "grad_x", "mask")  # the caller's memory


def over_columns(
    name: str, tables: Tables, slots: Sequence[Slot], section: Sequence[Slot], statistics: Mapping[int, int], back: bool
) -> str:
    """The function that does `slots`, neighbours in `section`.

    Args:
        statistics: the number under which a vector of the step is put out.
        back: the section is the step's derivative.
    """
    strip = _Strip(tables, slots, section, statistics, back)
    whole, part = strip.lines(False), strip.lines(True)
    return "\n".join(
        [
            f"static void {name}(Job *g, Part *p, long t, long n) {{",
            f"    const long width = g->size[{tables.symbols[strip.size]}];",
            "    const long wide = row_of(width), long_row = g->row_size;",
            "    const long first = share(p, padded(width) / LANES, 0) * LANES;",
            "    const long end = share(p, padded(width) / LANES, 1) * LANES;",
            "    (void)wide, (void)long_row;",
            *(f"    real *const {at} = (real *)({base});" for at, base in strip.bases.values()),
            "    for (long j = first; j < end; j += LANES) {",
            "        const long lanes = width - j;",
            "        if (lanes >= LANES) {",
            *whole,
            "        } else {",
            *part,
            "        }",
            "    }",
            "}",
        ]
    )


class _Strip:
    """What the passes over one strip share."""

    def __init__(
        self,
        tables: Tables,
        slots: Sequence[Slot],
        section: Sequence[Slot],
        statistics: Mapping[int, int],
        back: bool,
    ) -> None:
        self.tables, self.slots, self.statistics, self.back = tables, slots, statistics, back
        self.size = next(slot.size for slot in slots if not isinstance(slot, Run))
        self.bases: dict[Place, tuple[str, str]] = {}  # place -> name and address of its first row
        read = [place for slot in section if isinstance(slot, Loop) for _, place in slot.loads]
        self.read = set(read) | {slot.source for slot in section if isinstance(slot, Run)}
        others = [slot for slot in section if slot not in slots]
        self.fetched: set[Place] = set()
        self.elsewhere = {slot.target for slot in section if isinstance(slot, Run)}
        for slot in others:
            self.elsewhere |= _places(slot)

    def base(self, place: Place, address: str) -> str:
        """The name of the place's first row."""
        if place not in self.bases:
            self.bases[place] = f"{place.kind}_{len(self.bases)}", address
        return self.bases[place][0]

    def lines(self, tail: bool) -> list[str]:
        """The passes in order. Means that follow a loop are summed in it; a group may begin with means."""
        self.fetched.clear()
        lines: list[str] = []
        loops: list[Loop] = []
        after: list[BatchMean | StepLoop] = []

        def flush() -> None:
            means = [slot for slot in after if isinstance(slot, BatchMean)]
            if loops or means:
                loop = loops[0] if loops else Loop(self.size, (), ())
                lines.extend(_Pass(self, loop, means).block(tail))
            for slot in after:
                if isinstance(slot, StepLoop):
                    lines.extend(_Pass(self, slot, ()).once(tail))
            loops.clear()
            after.clear()

        for slot in self.slots:
            if isinstance(slot, Loop):
                flush()
                loops.append(slot)
            elif not isinstance(slot, Run):
                after.append(slot)
        flush()
        return lines


class _Pass(LoopText):
    """A loop over the rows of a strip, with the sums over them."""

    def __init__(self, strip: _Strip, loop: Loop | StepLoop, means: Collection[BatchMean]) -> None:
        super().__init__(strip.tables, loop, strip.back)
        self.strip, self.means = strip, means
        self.of_the_step: list[str] = []  # loads before the loop
        self.of_a_row: dict[Place, tuple[str, str]] = {}  # name, address
        self.sums: dict[Place, str] = {}
        self.fetches: list[str] = []  # of the next strip: its rows lie too far apart for the processor to foresee them

    def block(self, tail: bool) -> list[str]:
        """All rows of the strip, and the means of them."""
        rows = self._body(tail)
        stored = {s.place: s.node for s in self.loop.stores}
        for mean in self.means:
            value = f"v{stored[mean.source]}" if mean.source in stored else f"load({self._at(mean.source)})"
            rows.append(f"                {self._sum(mean.target)} += {value};")
        ends: list[str] = []
        for place, name in self.sums.items():
            if place.kind == "step":
                ends += self._mean(place, name, tail)
            else:
                to = self._at(place)
                ends.append(f"            store({to}, load({to}) + {f'first_lanes({name}, lanes)' if tail else name});")
        return [
            "            {",
            *self.row_values,
            *self.of_the_step,
            *(f"            vec {name} = splat(0);" for name in self.sums.values()),
            "            for (long k = 0; k < n; k++) {",
            "                const long at = k * wide + j, at_row = k * long_row + j, at_strip = k * LANES;",
            "                (void)at, (void)at_row, (void)at_strip;",
            *(f"                real *{name} = (real *)({address});" for name, address in self.of_a_row.values()),
            *([] if tail else self.fetches),
            *rows,
            "            }",
            *ends,
            "            }",
        ]

    def once(self, tail: bool) -> list[str]:
        """A loop over vectors of the step has no rows."""
        rows = self._body(tail)
        return ["            {", *self.row_values, *self.of_the_step, *rows, "            }"]

    def _mean(self, place: Place, name: str, tail: bool) -> list[str]:
        lines = [f"            {name} = {name} / splat((real)n);"]
        lines.append(f"            store({self._at(place)}, {f'first_lanes({name}, lanes)' if tail else name});")
        number = self.strip.statistics.get(place.column)
        if number is not None:
            to = f"g->statistic[{number}] + t * width + j"
            lines.append(f"            {f'store_part({to}, {name}, lanes)' if tail else f'store({to}, {name})'};")
        return lines

    def _sum(self, place: Place) -> str:
        if place not in self.sums:
            self.sums[place] = f"sum_{place.kind}_{place.name}".replace("%", "_")
        return self.sums[place]

    def _at(self, place: Place, write: bool = False) -> str:
        """The strip's part of a place; the next strip's is fetched where this one is first met."""
        at = self._address_of(place)
        if (at.endswith("at_row") or place in self.of_a_row) and place not in self.strip.fetched:
            self.strip.fetched.add(place)
            self.fetches.append(f"                __builtin_prefetch({at} + LANES, {int(write)});")
        return at

    def _address_of(self, place: Place) -> str:
        address, _ = self._address(place)
        kind = place.kind
        if kind in _OF_A_ROW or (kind in ("prev", "next") and self.back):
            if place not in self.of_a_row:
                self.of_a_row[place] = f"{kind}_of_row_{len(self.of_a_row)}", address
            return f"{self.of_a_row[place][0]} + j"
        if kind == "temp" and place not in self.strip.elsewhere:  # no one else reads it: its rows lie together
            return f"{self.strip.base(place, f'p->temp[{place.name}] + first * n')} + at_strip"
        if kind == "grad_scalar":
            return self.strip.base(place, address)
        if kind in (*_OF_THE_STEP, *_SUMS):
            return f"{self.strip.base(place, address)} + j"
        if kind == "col":
            return f"{self.strip.base(place, f'tape_row(g, p, t, 0) + g->column[{place.name}]')} + at_row"
        first, _, row = address.partition(" + k * ")
        assert row, place
        return f"{self.strip.base(place, first)} + at"

    def _load(self, place: Place, scalar: bool, tail: bool) -> str:
        if place.kind == "size":
            return super()._load(place, scalar, tail)
        at = self._at(place)
        if scalar:
            return f"splat(*({self.strip.base(place, '')}))"
        padded = self._address(place)[1]
        return f"load_part({at}, lanes)" if tail and not padded else f"load({at})"

    def _lines_of(self, key: int | str, lines: list[str]) -> list[str]:
        fixed = isinstance(key, int) and key in self.loads and self.loads[key].kind in _OF_THE_STEP
        return self.of_the_step if fixed else lines

    def _store(self, s: Store, value: str, tail: bool) -> str:
        if s.place.kind in _SUMS:
            return f"{self._sum(s.place)} += {value};"
        if any(s.place == mean.source for mean in self.means) and s.place not in self.strip.read:
            return ""
        at, padded = self._at(s.place, True), self._address(s.place)[1]
        if s.add:
            value = f"{self._load(s.place, False, tail)} + {value}"
        if tail and not padded:
            return f"store_part({at}, {value}, lanes);"
        return f"store({at}, {f'first_lanes({value}, lanes)' if tail else value});"


def _places(slot: Slot) -> set[Place]:
    """What a slot writes, and reads of other slots."""
    if isinstance(slot, Loop | StepLoop):
        return {s.place for s in slot.stores} | {place for _, place in slot.loads}
    return {slot.source, slot.target}
