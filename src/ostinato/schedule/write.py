"""The slots of a section, written down in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir import Node, Program
from .carry import Carried, carry
from .plan import Column, Loop, Place, Slot, Store
from .ready import reads

_Loads = dict[int, Place]


class Writer:
    """Writes sections of one Plan; temporaries are added to `temps` as they are needed."""

    def __init__(self, nodes: Sequence[Node], core: Program, columns: Sequence[Column], temps: list[str]) -> None:
        self.nodes, self.core, self.columns, self.temps = nodes, core, columns, temps
        self.carried: dict[int, Place] = {}

    def slots(
        self,
        stores: dict[int, list[Store]],
        products: Mapping[int, Sequence[Slot]],
        loads: _Loads,
        kept: dict[int, tuple[int, Place]],
    ) -> tuple[Slot, ...]:
        """The slots in order; a kept value is loaded in the slots behind the one that stores it."""
        slots: list[Slot] = []
        carried = self.carry(stores, loads, kept)
        for k in sorted({*stores, *products}):
            slots += products.get(k, [])
            ready = {**_ready(loads, kept, k), **carried.loads.get(k, {})}
            sizes: dict[str, list[Store]] = {}
            for store in carried.stores.get(k, []):
                sizes.setdefault(self._size(store), []).append(store)
            for size, group in sizes.items():
                used = reads(self.nodes, [s.node for s in group], ready)
                slots.append(Loop(size, tuple(group), tuple((n, ready[n]) for n in sorted(used))))
        return tuple(slots)

    def carry(self, stores: Mapping[int, list[Store]], loads: _Loads, kept: Mapping[int, tuple[int, Place]]) -> Carried:
        """What the slots of a section leave for one another; arguments as of `slots`."""
        return carry(self.nodes, stores, lambda slot: _ready(loads, kept, slot), self._temporary)

    def _temporary(self, node: int) -> Place:
        """Where a node is carried from loop to loop; one place in all sections."""
        if node not in self.carried:
            self.temps.append(self.nodes[node].shape[0])
            self.carried[node] = Place("temp", str(len(self.temps) - 1))
        return self.carried[node]

    def _size(self, store: Store) -> str:
        shape = self.nodes[store.node].shape
        if shape:
            return shape[0]
        kind, name = store.place.kind, store.place.name
        if kind == "grad_scalar":
            return "1"
        if kind in ("next", "grad_prev"):
            return self.core.state_sizes[name]
        if kind == "out":
            return self.core.output_size
        if kind == "grad_x":
            return self.core.input_size
        if kind == "grad_vector":
            return self.core.params[name][0]
        return self.columns[store.place.column].size


def _ready(loads: _Loads, kept: Mapping[int, tuple[int, Place]], slot: int) -> _Loads:
    """Where a slot finds values: a kept one only behind the slot that stores it."""
    return {**loads, **{n: place for n, (stored, place) in kept.items() if stored < slot}}
