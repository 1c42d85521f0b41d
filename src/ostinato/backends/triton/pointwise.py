"""Pointwise work of a step, and sums over what it computes."""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import Place, Store
from .expressions import expression
from .form import power_of_two
from .lines import Lines

__all__ = ["Pointwise"]


class Pointwise(Lines):
    """Writes loops, totals, and what is kept of a step."""

    def loop(self, stores: Sequence[Store], places: dict[int, Place], width: int) -> None:
        """Pointwise work over vectors of one size; every load comes before the first store."""
        nodes = self.plan.nodes
        known: dict[int, str] = {}
        stack = [s.node for s in reversed(stores)]
        while stack:
            i = stack[-1]
            waiting = [] if i in places else [a for a in nodes[i].args if a not in known]
            if i in known or waiting:
                stack.extend(reversed(waiting)) if i not in known else stack.pop()
                continue
            stack.pop()
            if i in places:
                known[i] = self._read(i, places[i])
                continue
            text = expression(nodes[i], [known[a] for a in nodes[i].args])
            known[i] = text if nodes[i].op in ("const", "broadcast") else self.define("n", text)
        sums: dict[tuple[Place, bool], str] = {}
        for s in stores:  # what is added to one place is added up before
            key = s.place, s.total
            sums[key] = f"{sums[key]} + {known[s.node]}" if key in sums else known[s.node]
        added = {s.place for s in stores if s.add}
        for (place, total), value in sums.items():
            if total:
                self._total(place, value, width)
            elif place.kind in ("grad_vector", "grad_scalar"):
                self.gather(place, value, width)
            else:
                self._write(place, value, place in added, width)

    def _read(self, node: int, place: Place) -> str:
        if place.kind == "grad_out" and place not in self.env:
            shape = self.plan.nodes[node].shape
            size = self.layout.of(shape[0]) if shape else 1
            width, offset = self.layout.output_size, self.layout.of(place.name)
            self.env[place] = self.define("grad_out", self.ahead(lambda: self.load("grad_out", width, offset, size)))
        return self.value(place)

    def _write(self, place: Place, value: str, add: bool, width: int) -> None:
        if place.kind == "out":
            full = self.whole(value, width)
            self.store("out", self.layout.output_size, self.layout.of(place.name), width, full)
            return
        if place.kind == "step":
            zeros = f"tl.zeros([1, {self.form.lanes(width)}], tl.float32)"
            self.keep_step(place, self.define("once", f"{value} + {zeros}"))
            return
        if add and (place in self.env or self.known_elsewhere(place)):
            value = f"{self.value(place)} + {value}"
        name = self.env[place] = self.whole(value, width)
        self.changed(place)
        if place.kind != "col":
            return
        if place in self.shared:
            self.share(place, f"tl.where(at, {name}, 0.0)" if self.back else name)
        if self.training:
            value = f"tl.where(at, {name}, 0.0)" if self.back else name  # rows past an end add nothing to sums
            rows = "there" if self.back else "at"
            self.store("tape", self.layout.row, self.layout.columns[place.column], width, value, rows)
            self.on_tape.add(place)

    def whole(self, value: str, size: int) -> str:
        """A value with all its rows and lanes: it may be a number, or a vector of the step."""
        return self.define("v", f"{value} + {self.zeros(size)}")

    def keep_step(self, target: Place, name: str) -> None:
        """A vector of the step: in registers, and where it is asked for later."""
        self.env[target] = name
        self.changed(target)
        number, size = target.column, self.layout.place(target)
        j = self.lanes(size)
        if self.name == "train" and number < self.plan.kept_steps:
            self.body.append(f"tl.store(steps + {self.layout.steps[number]} + {j}, {name}, mask=ok{size} & real)")
        if not self.back and number in self.plan.statistics:
            i = self.plan.statistics.index(number)
            where = f"stat{i} + s.to(tl.int64) * {size} + {j}"
            self.body.append(f"tl.store({where}, {name}, mask=ok{size} & (counted > 0))")

    def _total(self, place: Place, value: str, width: int) -> None:
        """A sum over a vector's elements: a vector of one."""
        self.lanes(width)
        full = self.whole(value, width)
        name = self.define("total", f"tl.sum(tl.where(ok{width}, {full}, 0.0), axis=1, keep_dims=True)")
        if self.form.sliced(width):
            name = self._over_slices(place, name)
        self.env[place] = name
        self.changed(place)
        if place.kind == "col" and self.name == "train":
            self.store("tape", self.layout.row, self.layout.columns[place.column], 1, name)
            self.on_tape.add(place)

    def _over_slices(self, place: Place, name: str) -> str:
        """The sum of what the programs of a group have, each of its own part."""
        count = self.form.slices
        where = self.exchange(Place("parts of", str(place)), count, room="totals")
        self.body.append(f"tl.store({where} + b * {count} + part, {name}, mask=inside)")
        self.arrived = False
        self.meet()
        k = self.once("parts", f"tl.arange(0, {power_of_two(count)})[None, :]")
        load = f'tl.load({where} + b * {count} + {k}, mask=inside & ({k} < {count}), other=0.0, cache_modifier=".cg")'
        return self.define("total", f"tl.sum({load}, axis=1, keep_dims=True) + lost")

    def gather(self, place: Place, value: str, width: int) -> None:
        """Add to the gradient of a parameter; what a program has is summed and written behind the last step."""
        name = f"gathered_{place.kind}{self._parameter(place)}_{width}"
        if name not in self.known:
            self.once(name, f"tl.zeros([{self.form.batch}, {self.form.lanes(width)}], tl.float32)")
            self.after.append(self.adding(place, name, width))
        self.body.append(f"{name} += tl.where(at, {self.whole(value, width)}, 0.0)")

    def adding(self, place: Place, full: str, width: int) -> str:
        """Add the sum over a program's sequences to the gradient of a parameter in memory."""
        i, j, own = self._parameter(place), self.lanes(width), self.own(width)
        if place.kind == "grad_scalar":
            where, mask = f"gc{i} + group * {self.form.slices} + part", f"(T > 0){own}"
            total = f"tl.sum(tl.where(ok{width}, {full}, 0.0))"
        else:
            where, mask, total = f"gv{i} + group * {width} + {j}", f"ok{width}{own}", f"tl.sum({full}, axis=0)[None, :]"
        return f"tl.store({where}, tl.load({where}, mask={mask}, other=0.0) + {total}, mask={mask})"

    def _parameter(self, place: Place) -> int:
        return (self.layout.scalars if place.kind == "grad_scalar" else self.layout.vectors)[place.name]
