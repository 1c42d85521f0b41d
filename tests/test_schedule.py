"""What a Plan says of every cell and transform: the order of a step, and what is computed in it."""

from __future__ import annotations

import pytest

import ostinato
from ostinato import Cell, cells, transforms
from ostinato.ir import OPS, simplify
from ostinato.schedule import Loop, Plan, Run, make_plan, split_prologue
from ostinato.schedule.graph import build_graph
from ostinato.schedule.ready import Ready
from transformed import TRANSFORMS, transformed

SECTIONS = ("infer", "forward", "backward")
EVERY = [*cells.catalogue().values(), *transformed().values()]


def plan_of(cell: Cell) -> Plan:
    return make_plan(split_prologue(simplify(cell.program())).core)


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Of every cell and transform."""
    return {cell.name: plan_of(cell) for cell in EVERY}


def computed(plan: Plan, loop: Loop) -> set[int]:
    """The nodes that a loop computes."""
    loads = dict(loop.loads)
    found: set[int] = set()
    stack = [store.node for store in loop.stores]
    while stack:
        i = stack.pop()
        if i not in found and i not in loads:
            found.add(i)
            stack.extend(plan.nodes[i].args)
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_computes_a_dear_vector_twice(section: str, plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        dear = {i for i, node in enumerate(plan.nodes) if node.shape and OPS[node.op].dear}
        seen: set[int] = set()
        for loop in getattr(plan, section):
            if isinstance(loop, Loop):
                now = computed(plan, loop) & dear
                assert not now & seen, name
                seen |= now


@pytest.mark.parametrize("section", SECTIONS)
def test_a_temporary_is_written_before_it_is_read(section: str, plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        written: set[str] = set()
        for slot in getattr(plan, section):
            if isinstance(slot, Loop):
                read = {place.name for _, place in slot.loads if place.kind == "temp"}
                assert read <= written, name
                written |= {store.place.name for store in slot.stores if store.place.kind == "temp"}
            elif isinstance(slot, Run) and slot.target.kind == "temp":
                written.add(slot.target.name)


@pytest.mark.parametrize("transform", ["layer_norm", "batch_norm"])
def test_the_sums_of_a_normalisations_derivative_are_taken_in_one_pass(transform: str) -> None:
    """Σ dy and Σ dy (v - mean(v)): one loop that both are sums of, and one that reads them."""
    plan = plan_of(TRANSFORMS[transform](cells.elman))
    assert sum(isinstance(slot, Loop) for slot in plan.backward) == 2


def test_a_delay_line_is_kept_nowhere_but_where_it_comes_from() -> None:
    """Backward finds the inputs before in x, and the states before in the output."""
    for filter_ in (cells.fir, cells.fir(window=5)):
        plan = plan_of(filter_)
        assert not plan.columns
        assert [str(place) for place in plan.history][:2] == ["x", "prev:x_1"]
    plan = plan_of(cells.time_skip(delays=(2, 3)))
    assert "prev:h" in {str(place) for place in plan.history}
    kept = {place.column for place in plan.history if place is not None and place.kind == "col"}
    assert not kept


def test_states_that_change_places_are_kept() -> None:
    """Neither is a delay line: nothing begins in a ring. Nor is what comes out of one."""

    @ostinato.cell(sizes={"x": "H"})
    def ring(p, x, a, b, c):
        return ostinato.emit(p.v * a + p.w * b * c + x, b, a, a)

    plan = plan_of(ring)
    assert {place.kind for place in plan.history if place is not None} == {"col"}


def test_a_step_may_be_deeper_than_pythons_stack() -> None:
    """200 products, each of which waits for the one before."""
    deep = transforms.deep_transition(cells.elman, 200)
    graph = build_graph(split_prologue(simplify(deep.program())).core)
    assert Ready(graph).of(graph.next_states[0]) == 200
