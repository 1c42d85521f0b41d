"""What stands side by side in a loop written for a cell: products of one vector, and what is done to all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from ...ir import INPUT, STATE, Program, levels
from .norms import NORMS

__all__ = ["CALLS", "OPERATORS", "Arrangement", "Pack"]

OPERATORS = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}"}
CALLS = ("sigmoid", "tanh", "relu", "exp", "sin", "cos", "floor", "log", "sqrt", "abs")


@dataclass(frozen=True)
class Sum:
    """A recurrent product and the sum it stands in: terms that are known early, and terms of the step."""

    top: int
    early: tuple[int, ...]
    late: tuple[int, ...]


@dataclass
class Pack:
    """Values side by side in one tensor [B, sum of their sizes]; `parts` is what becomes of them, in order."""

    members: list[int]
    source: Pack | None = None
    parts: list[Pack | int] = field(default_factory=list)
    name: str = ""
    place: str = ""  # where its source's values for it lie
    cut: bool = False


class Arrangement:
    """The recurrent products of a Program with their sums, and the packs that they begin.

    Attributes:
        level: of each node.
        users: the nodes that read each live node; -1 stands for a result.
        sums: by recurrent product; product_of: the product by the top of its sum.
        packs: by member.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.level = levels(program)
        self.users = _users(program)
        self.sums: dict[int, Sum] = {}
        self.product_of: dict[int, int] = {}
        self.packs: dict[int, Pack] = {}
        self._gather()

    def _only_user(self, i: int) -> int | None:
        users = self.users.get(i, [])
        return users[0] if len(users) == 1 and users[0] >= 0 else None

    def _gather(self) -> None:
        """Recurrent products, each with its sum, and those of the same vector together."""
        nodes = self.program.nodes
        groups: dict[tuple[int, str], list[int]] = {}
        for i in sorted(self.users):
            if nodes[i].op != "matmul" or self.level[i] != STATE:
                continue
            top = self._top(i)
            # the second product of a sum is a term of the step for the first one
            self.sums[i] = Sum(i, (), ()) if top == i or top in self.product_of else self._split(top, i)
            self.product_of.setdefault(self.sums[i].top, i)
            groups.setdefault((nodes[i].args[1], self._kind(i)), []).append(i)
        for products in groups.values():
            if len(products) > 1:
                pack = Pack(sorted(products, key=lambda i: str(self._future(i))))
                self.packs.update(dict.fromkeys(pack.members, pack))
                self._grow(pack)

    def _top(self, product: int) -> int:
        top = product
        while (user := self._only_user(top)) is not None and self.program.nodes[user].op == "add":
            top = user
        return top

    def _split(self, top: int, product: int) -> Sum:
        terms: list[int] = []
        stack = list(self.program.nodes[top].args)
        while stack:
            i = stack.pop(0)
            if self.program.nodes[i].op == "add" and self.level[i] == STATE and self._only_user(i) is not None:
                stack = [*self.program.nodes[i].args, *stack]
            elif i != product:
                terms.append(i)
        shape = self.program.nodes[product].shape
        early = tuple(t for t in terms if self.level[t] < STATE and self.program.nodes[t].shape == shape)
        return Sum(top, early, tuple(t for t in terms if t not in early))

    def _kind(self, product: int) -> str:
        early = self.sums[product].early
        if any(self.level[t] == INPUT for t in early):
            return "each step"
        return "once" if early else "none"

    def _next(self, i: int) -> tuple[Any, ...] | None:
        """What is done to a value, if it can be done to its neighbours in the same operation; else None."""
        if i in self.sums:
            if self.sums[i].late:
                return None
            i = self.sums[i].top
        user = self._only_user(i)
        if user is None or user in self.product_of:
            return None
        node = self.program.nodes[user]
        if node.op in CALLS or node.op == "neg":
            return (node.op,)
        if node.op in NORMS:
            return node.op, node.attr, node.shape
        if node.op not in OPERATORS:
            return None
        place = node.args.index(i)
        other = node.args[1 - place]
        if self.level[other] == STATE or node.args[0] == node.args[1]:
            return None
        # vectors known early are stacked as well; of numbers there is one for all
        return node.op, place, self.level[other] if self.program.nodes[other].shape else f"%{other}"

    def after(self, i: int) -> int:
        user = self._only_user(self.sums[i].top if i in self.sums else i)
        assert user is not None
        return user

    def _future(self, i: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while (on := self._next(i)) is not None:
            found.append(on)
            i = self.after(i)
        return found

    def _grow(self, pack: Pack) -> None:
        for on, group in groupby(pack.members, self._next):
            members = list(group)
            if on is None or len(members) == 1:
                pack.parts += members
                continue
            grown = Pack([self.after(m) for m in members], source=pack)
            self.packs.update(dict.fromkeys(grown.members, grown))
            pack.parts.append(grown)
            self._grow(grown)


def _users(program: Program) -> dict[int, list[int]]:
    """The nodes that read each live node; -1 stands for a result."""
    users: dict[int, list[int]] = {}
    stack = list(program.roots)
    for root in stack:
        users.setdefault(root, []).append(-1)
    seen: set[int] = set()
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            for a in program.nodes[i].args:
                users.setdefault(a, []).append(i)
                stack.append(a)
    return users
