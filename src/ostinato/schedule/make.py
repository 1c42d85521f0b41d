"""The schedule: from the graph of a step and its derivative to a Plan."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from ..ir import Program
from .graph import Graph, acc_number, build_graph
from .keep import Keep, decide
from .order import arrange, runs
from .plan import BatchMean, Column, Entry, Place, Plan, Run, Slot, StepLoop, Store, WeightGrad
from .ready import Ready, once_for_the_step, reached, reads, reductions
from .write import Writer

_Loads = dict[int, Place]


@lru_cache(maxsize=256)
def make_plan(core: Program) -> Plan:
    """The Plan of a core Program (see `split_prologue`).

    Five passes: products are gathered into accumulators (`graph`), slots follow from what waits for what (`ready`), the
    tape is laid out so that packed products are contiguous (`order`), what backward reads is kept or recomputed
    (`keep`), and the slots are written down (here).
    """
    graph = build_graph(core)
    return _Maker(core, graph).plan()


class _Maker:
    def __init__(self, core: Program, graph: Graph) -> None:
        self.core, self.graph = core, graph
        self.nodes = graph.nodes
        self.ready = Ready(graph)
        self.ready_back = Ready(graph, backward=True)
        self.forward_accs = len(graph.acc_grads)
        self.order = arrange(graph)  # accumulator -> column
        self.columns: list[Column] = [Column("", "")] * self.forward_accs
        for acc, column in self.order.items():
            self.columns[column] = Column(graph.accs[acc].size, f"sum {acc}")
        self.temps: list[str] = []
        self.temp_of: dict[int, int] = {}
        self.temp_of_node: dict[int, tuple[Place, Place]] = {}
        self.writer = Writer(self.nodes, core, self.columns, self.temps)
        self.operand_column: dict[int, int] = {}
        self.steps: list[str] = []
        self.base = self._base_loads()
        self.reduced = self._reduced()
        self.base |= {i: place for i, (_, place) in self.reduced.items()}
        self.alike = once_for_the_step(graph)
        forward = reached(graph)
        self.alike_forward = {i: self._step(self.nodes[i].shape[0]) for i in self.alike if i in forward}
        self.base |= self.alike_forward
        self.alike_backward: dict[int, Place] = {}
        self.kept_steps = len(self.steps)

    def _column(self, size: str, name: str) -> int:
        self.columns.append(Column(size, name))
        return len(self.columns) - 1

    def _reduced(self) -> dict[int, tuple[Place, Place]]:
        """Each reduction of forward: where its operand is written for it (a total needs none), and where it lies."""
        found: dict[int, tuple[Place, Place]] = {}
        for i in reductions(self.graph):
            node = self.nodes[i]
            if node.op == "total":
                place = Place("col", str(self._column("1", "total")))
                found[i] = place, place
            else:
                found[i] = self._source(node.args[0]), self._step(node.shape[0])
        return found

    def _source(self, operand: int) -> Place:
        """Where a mean reads what it is of: a sum of products where it is, else a temporary vector."""
        if self.nodes[operand].op == "acc":
            return self.base[operand]
        self.temps.append(self.nodes[operand].shape[0])
        return Place("temp", str(len(self.temps) - 1))

    def _step(self, size: str) -> Place:
        self.steps.append(size)
        return Place("step", str(len(self.steps) - 1))

    def _base_loads(self) -> _Loads:
        """Leaves: where each lies, in forward and backward alike."""
        loads: _Loads = {}
        for i, n in enumerate(self.nodes):
            name = str(n.attr)
            if n.op == "state":
                loads[i] = Place("prev", name)
            elif n.op == "input":
                loads[i] = Place("x")
            elif n.op == "param":
                loads[i] = Place("vector" if n.shape else "scalar", name)
            elif n.op in ("mask", "size"):
                loads[i] = Place(n.op, name)
            elif n.op == "grad":
                kind, _, which = name.partition(":")
                loads[i] = Place("grad_out" if kind == "output" else "grad_next", which)
            elif n.op == "acc":
                number = acc_number(n)
                if number < self.forward_accs:
                    loads[i] = Place("col", str(self.order[number]))
        return loads

    # Forward

    def _operand(self, position: int) -> Place:
        """Where the operand of a forward product lies."""
        if self.nodes[position].op in ("state", "input"):
            return self.base[position]
        if position not in self.operand_column:
            name = self.nodes[position].name
            self.operand_column[position] = self._column(self.nodes[position].shape[0], name or "operand")
        return Place("col", str(self.operand_column[position]))

    def _forward_runs(self) -> tuple[tuple[Run, ...], tuple[Entry, ...], dict[int, list[Run]]]:
        groups: dict[tuple[int, int], list[tuple[int, str]]] = {}
        for number in range(self.forward_accs):
            for product in self.graph.accs[number].products:
                slot = self.ready.of(product.operand) + 1
                if self.nodes[product.operand].op == "input":
                    slot = -1
                groups.setdefault((slot, product.operand), []).append((number, product.matrix))
        hoist: list[Run] = []
        started: set[int] = set()
        later: dict[int, list[Run]] = {}
        for (slot, operand), members in sorted(groups.items()):
            source = self._operand(operand)
            for part in runs([(self.order[acc], matrix) for acc, matrix in members]):
                again = any(column in started for column, _ in part) or slot >= 0
                bias = {} if again else {self.order[a]: self.graph.accs[a].bias for a, _ in members}
                entries = tuple(Entry(matrix, column, bias.get(column, ())) for column, matrix in part)
                run = Run(source, Place("tape"), entries, again, False)
                if slot < 0:
                    hoist.append(run)
                    started.update(column for column, _ in part)
                else:
                    later.setdefault(slot, []).append(run)
        fills = tuple(
            Entry("", self.order[a], self.graph.accs[a].bias)
            for a in range(self.forward_accs)
            if self.order[a] not in started
        )
        return tuple(hoist), fills, later

    def _forward_stores(self, keep: Keep | None) -> dict[int, list[Store]]:
        """What each slot writes; with `keep`, also what backward needs."""
        stores: dict[int, list[Store]] = {}

        def put(node: int, place: Place, slot: int) -> None:
            stores.setdefault(slot, []).append(Store(place, node))

        for position in self.operand_column:
            put(position, self._operand(position), self.ready.of(position))
        for position, (place, _) in self.reduced.items():
            operand = self.nodes[position].args[0]
            total = self.nodes[position].op == "total"
            if place == self.base.get(operand):
                continue
            stores.setdefault(self.ready.of(operand), []).append(Store(place, operand, total=total))
        for (state, _), node in zip(self._states(), self.graph.next_states, strict=True):
            put(node, Place("next", state), self.ready.of(node))
        for offset, node in self.graph.output:
            put(node, Place("out", offset), self.ready.of(node))
        if keep is not None:
            for place, node in zip(keep.history, self.graph.next_states, strict=True):
                if place is not None and place.kind == "col":
                    put(node, place, self.ready.of(node))
            for node, column in keep.kept.items():
                put(node, Place("col", str(column)), keep.slot[node])
        return stores

    def _states(self) -> list[tuple[str, str]]:
        return list(self.core.state_sizes.items())

    # Backward

    def _backward(
        self, grad_column: dict[int, int]
    ) -> tuple[dict[int, list[Store]], dict[int, list[Slot]], tuple[Run, ...], _Loads]:
        stores: dict[int, list[Store]] = {}
        products: dict[int, list[Slot]] = {}
        loads: _Loads = dict(self.base)

        def put(node: int, place: Place, add: bool = False) -> None:
            stores.setdefault(self.ready_back.of(node), []).append(Store(place, node, add))

        for acc, grad in enumerate(self.graph.acc_grads):
            if grad >= 0:
                put(grad, Place("col", str(grad_column[acc])))
        zero = next(i for i, n in enumerate(self.nodes) if n.op == "const" and n.attr == 0.0)
        deferred: list[Run] = []
        whole = [
            (Place("grad_prev", s), total) for (s, _), total in zip(self._states(), self.graph.state_grads, strict=True)
        ]
        for place, total in [*whole, (Place("grad_x"), self.graph.input_grad)]:
            terms = sorted(total.terms, key=self.ready_back.of)
            for k, term in enumerate(terms):
                put(term, place, k > 0)
            if total.acc >= 0:
                parts = self._transposed(total.acc, place, bool(terms), grad_column)
                if place.kind == "grad_x":
                    deferred = parts
                else:
                    slot = 1 + max(
                        [self.ready_back.of(t) for t in terms]
                        + [self.ready_back.of(p.operand) for p in self.graph.accs[total.acc].products]
                    )
                    products.setdefault(slot, []).extend(parts)
            elif not terms:
                stores.setdefault(-1, []).append(Store(place, zero))
        for i, n in enumerate(self.nodes):
            number = acc_number(n) if n.op == "acc" else -1
            if number >= self.forward_accs:
                self.temp_of.setdefault(number, len(self.temps))
                if self.temp_of[number] == len(self.temps):
                    self.temps.append(self.graph.accs[number].size)
                loads[i] = Place("temp", str(self.temp_of[number]))
                products.setdefault(self.ready_back.of(i), []).extend(
                    self._transposed(number, loads[i], False, grad_column)
                )
        self._reduce_backward(stores, products, loads)
        columns = {grad: grad_column[a] for a, grad in enumerate(self.graph.acc_grads)}
        for name, grad in self.graph.vector_grads:
            if grad not in columns:
                put(grad, Place("grad_vector", name), True)
        for name, grad in self.graph.scalar_grads:
            put(grad, Place("grad_scalar", name), True)
        return stores, products, tuple(deferred), loads

    def _means(self) -> Iterable[BatchMean]:
        """The means over the batch in forward."""
        for i, (source, target) in self.reduced.items():
            if self.nodes[i].op == "batch_mean":
                yield BatchMean(self.nodes[i].shape[0], source, target)

    def _statistics(self) -> tuple[int, ...]:
        """The vector of the step that each statistic is."""
        found = {self.nodes[i].attr: place.column for i, (_, place) in self.reduced.items() if place.kind == "step"}
        return tuple(found[name] for name in self.core.measured)

    def _reduce_backward(self, stores: dict[int, list[Store]], products: dict[int, list[Slot]], loads: _Loads) -> None:
        """The reductions of the derivative: each writes its operand, or its sum, to a temporary."""
        for i, n in enumerate(self.nodes):
            if n.op not in ("total", "batch_mean") or i in self.reduced:
                continue
            total = n.op == "total"
            if i not in self.temp_of_node:
                self.temps.append("1" if total else n.shape[0])
                place = Place("temp", str(len(self.temps) - 1))
                self.temp_of_node[i] = place, place if total else self._step(n.shape[0])
            source, loads[i] = self.temp_of_node[i]
            operand = n.args[0]
            slot = self.ready_back.of(operand)
            stores.setdefault(slot, []).append(Store(source, operand, total=total))
            if not total:
                products.setdefault(slot + 1, []).append(BatchMean(n.shape[0], source, loads[i]))
        for i in self.alike:
            if i not in self.alike_forward and i not in self.alike_backward:
                self.alike_backward[i] = self._step(self.nodes[i].shape[0])
        for i, place in self.alike_backward.items():
            slot = self.ready_back.of(i)
            products.setdefault(slot, []).append(self._once(i, place, {**loads, **self.alike_backward}))
        loads.update(self.alike_backward)

    def _once(self, node: int, place: Place, loads: _Loads) -> StepLoop:
        """A value of the step, from those that lie ready."""
        ready = {i: at for i, at in loads.items() if i != node}
        used = sorted(reads(self.nodes, [node], ready))
        return StepLoop(self.nodes[node].shape[0], (Store(place, node),), tuple((i, ready[i]) for i in used))

    def _transposed(self, number: int, target: Place, accumulate: bool, grad_column: dict[int, int]) -> list[Run]:
        members: list[tuple[int, str]] = []
        for product in self.graph.accs[number].products:
            acc = next(
                a
                for a, grad in enumerate(self.graph.acc_grads)
                if grad == product.operand and any(p.matrix == product.matrix for p in self.graph.accs[a].products)
            )
            members.append((grad_column[acc], product.matrix))
        made: list[Run] = []
        for part in runs(members):
            entries = tuple(Entry(matrix, column) for column, matrix in part)
            made.append(Run(Place("tape"), target, entries, accumulate or bool(made), True))
        return made

    def plan(self) -> Plan:
        hoist, fills, later = self._forward_runs()
        loads = self.base
        between: dict[int, list[Slot]] = {slot: list(group) for slot, group in later.items()}
        for mean in self._means():
            slot = next(self.ready.of(i) for i, (_, place) in self.reduced.items() if place == mean.target)
            between.setdefault(slot, []).append(mean)
        for i, place in self.alike_forward.items():
            between.setdefault(self.ready.of(i), []).append(self._once(i, place, loads))
        plain = self._forward_stores(None)
        infer = self.writer.slots(plain, between, loads, {})
        grad_column = dict(self.order)
        first = self._backward(grad_column)
        stored = {n: Place("col", str(c)) for n, c in self.operand_column.items()}
        stored.update((i, place) for i, (_, place) in self.reduced.items())
        stored.update(self.alike_forward)
        keep = decide(self.graph, self.ready, self.core, self.order, stored, infer, first[0], self._column)
        loads_back: _Loads = {**first[3], **keep.loads}
        moved = self._conflicts(first[0], loads_back, grad_column)
        for acc in moved:
            grad_column[acc] = self._column(self.graph.accs[acc].size, f"gradient of sum {acc}")
        stores, products, deferred, loads_back = self._backward(grad_column)
        loads_back.update(keep.loads)
        kept = {node: (keep.slot[node], Place("col", str(column))) for node, column in keep.kept.items()}
        columns = {grad: grad_column[a] for a, grad in enumerate(self.graph.acc_grads)}
        params = self.core.params
        grads = [
            WeightGrad(p.matrix, grad_column[a], self._operand(p.operand))
            for a in range(self.forward_accs)
            if self.graph.acc_grads[a] >= 0
            for p in self.graph.accs[a].products
        ]
        return Plan(
            self.core.name,
            self.nodes,
            tuple(self._states()),
            self.core.input_size,
            self.core.output_size,
            tuple((name, shape[0], shape[1]) for name, shape in params.items() if len(shape) == 2),
            tuple((name, shape[0]) for name, shape in params.items() if len(shape) == 1),
            tuple(name for name, shape in params.items() if not shape),
            tuple(self.columns),
            hoist,
            fills,
            infer,
            self.writer.slots(self._forward_stores(keep), between, loads, kept),
            keep.history,
            self.writer.slots(stores, products, loads_back, {}),
            deferred,
            tuple(grads),
            tuple((name, columns[grad]) for name, grad in self.graph.vector_grads if grad in columns),
            tuple(self.temps),
            tuple(self.steps),
            self.kept_steps,
            tuple((mask.name, self.core.mask_shapes[mask.name][0]) for mask in self.core.masks),
            self._statistics(),
        )

    def _conflicts(self, stores: dict[int, list[Store]], loads: _Loads, grad_column: dict[int, int]) -> Iterable[int]:
        """Accumulators whose column is still read in a slot behind the one that writes their gradient."""
        last: dict[Place, int] = {}
        carried = self.writer.carry(stores, loads, {})
        for slot, group in carried.stores.items():
            fresh = carried.loads[slot]  # where the gradient stands already, that is what is read
            for node in reads(self.nodes, [s.node for s in group], {**loads, **fresh}):
                if node not in fresh:
                    last[loads[node]] = max(last.get(loads[node], -1), slot)
        return [
            acc
            for acc, grad in enumerate(self.graph.acc_grads)
            if grad >= 0 and last.get(Place("col", str(grad_column[acc])), -2) > self.ready_back.of(grad)
        ]
