"""A loop in PyTorch for any cell, as a careful user would write it: the peer eager-loop of cells not written by hand.

From the Program comes the text of a Python function, so that no interpreter of ours stands in its way:

- what depends on parameters only is computed once a call, what depends on x only for all steps before the loop;
- recurrent products of the same vector are one product with stacked matrices, `addmm` onto the stacked terms that were
  computed before the loop;
- gates that come from one product stay side by side as long as the same is done to them (one sigmoid for all that have
  one), and are then cut by one `split`, whose gradient is one operation;
- a normalisation over units or over the batch is torch's own operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..backends.eager.run import evaluate
from ..ir import INPUT, STATE, Program, levels, size_value
from .norms import NORMS, with_early_sums, with_norms

__all__ = ["WrittenLoop"]

Early = Callable[[int], Any]  # the value of a node that is known before the loop
Make = Callable[[Early], Any]

_OPERATORS = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}"}
_CALLS = ("sigmoid", "tanh", "relu", "exp", "sin", "cos", "floor", "log", "sqrt", "abs")


@dataclass(frozen=True)
class _Sum:
    """A recurrent product and the sum it stands in: terms that are known early, and terms of the step."""

    top: int
    early: tuple[int, ...]
    late: tuple[int, ...]


@dataclass
class _Pack:
    """Values side by side in one tensor [B, sum of their sizes]; `parts` is what becomes of them, in order."""

    members: list[int]
    source: _Pack | None = None
    parts: list[_Pack | int] = field(default_factory=list)
    name: str = ""
    place: str = ""  # where its source's values for it lie
    cut: bool = False


class WrittenLoop:
    """The loop of one Program, and its `text`.

    Args:
        program: simplified.
        sizes: a number for each size symbol.

    Call:
        ``output, states = loop(x, states, params, masks)``: x [T, B, D]; states None or each [B, S]; the parameters by
        name; the masks in the order of the Program's. The output is [T, B, O].
    """

    def __init__(self, program: Program, sizes: dict[str, int]) -> None:
        self.program = with_norms(with_early_sums(program))
        self.sizes = sizes
        self._level = levels(self.program)
        self._users = _users(self.program)
        self._sums: dict[int, _Sum] = {}  # by product
        self._product_of: dict[int, int] = {}  # by the top of its sum
        self._packs: dict[int, _Pack] = {}
        self._once: list[tuple[str, Make]] = []
        self._each: list[tuple[str, Make]] = []
        self._lines: list[str] = []
        self._known: dict[int, str] = {}
        self._gather()
        self.text = self._write()
        space: dict[str, Any] = {"torch": torch, "functional": functional, "evaluate": evaluate}
        space.update(nodes=self.program.nodes, sizes=sizes)
        # The text is made of positions and of the tables above; no word of a user's stands in it.
        exec(compile(self.text, f"<loop of {program.name}>", "exec"), space)  # noqa: S102
        self._loop: Callable[..., tuple[list[Tensor], tuple[Tensor, ...]]] = space["loop"]

    def __call__(
        self, x: Tensor, states: Sequence[Tensor] | None, params: dict[str, Tensor], masks: Sequence[Tensor] = ()
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        T, B = x.shape[0], x.shape[1]
        if states is None:
            states = [x.new_zeros(B, size_value(s, self.sizes)) for s in self.program.state_sizes.values()]
        early = self._early_values(x, params, masks)
        once = [make(early) for _, make in self._once]
        each = [_by_step(make(early), T) for _, make in self._each]
        rows = list(zip(*each, strict=True)) if each else [()] * T
        outputs, last = self._loop(once, rows, tuple(states))
        return torch.stack([_rows(y, B) for y in outputs]), tuple(_rows(s, B) for s in last)

    def _early_values(self, x: Tensor, params: dict[str, Tensor], masks: Sequence[Tensor]) -> Early:
        given = {mask.name: tensor for mask, tensor in zip(self.program.masks, masks, strict=True)}
        found: dict[int, Any] = {}

        def value(i: int) -> Any:
            if i not in found:
                node = self.program.nodes[i]
                if node.op == "const":
                    found[i] = node.attr
                elif node.op == "param":
                    found[i] = params[str(node.attr)]
                elif node.op == "input":
                    found[i] = x
                elif node.op == "mask":
                    found[i] = given[str(node.attr)]
                elif node.op in NORMS:
                    found[i] = NORMS[node.op](value(node.args[0]), float(node.attr or 0.0))
                else:
                    found[i] = evaluate(node, [value(a) for a in node.args], self.sizes)
            return found[i]

        return value

    # What stands side by side

    def _only_user(self, i: int) -> int | None:
        users = self._users.get(i, [])
        return users[0] if len(users) == 1 and users[0] >= 0 else None

    def _gather(self) -> None:
        """Recurrent products, each with its sum, and those of the same vector together."""
        nodes = self.program.nodes
        groups: dict[tuple[int, str], list[int]] = {}
        for i in sorted(self._users):
            if nodes[i].op != "matmul" or self._level[i] != STATE:
                continue
            top = self._top(i)
            # the second product of a sum is a term of the step for the first one
            self._sums[i] = _Sum(i, (), ()) if top == i or top in self._product_of else self._split(top, i)
            self._product_of.setdefault(self._sums[i].top, i)
            groups.setdefault((nodes[i].args[1], self._kind(i)), []).append(i)
        for products in groups.values():
            if len(products) > 1:
                pack = _Pack(sorted(products, key=lambda i: str(self._future(i))))
                self._packs.update(dict.fromkeys(pack.members, pack))
                self._grow(pack)

    def _top(self, product: int) -> int:
        top = product
        while (user := self._only_user(top)) is not None and self.program.nodes[user].op == "add":
            top = user
        return top

    def _split(self, top: int, product: int) -> _Sum:
        terms: list[int] = []
        stack = list(self.program.nodes[top].args)
        while stack:
            i = stack.pop(0)
            if self.program.nodes[i].op == "add" and self._level[i] == STATE and self._only_user(i) is not None:
                stack = [*self.program.nodes[i].args, *stack]
            elif i != product:
                terms.append(i)
        shape = self.program.nodes[product].shape
        early = tuple(t for t in terms if self._level[t] < STATE and self.program.nodes[t].shape == shape)
        return _Sum(top, early, tuple(t for t in terms if t not in early))

    def _kind(self, product: int) -> str:
        early = self._sums[product].early
        if any(self._level[t] == INPUT for t in early):
            return "each step"
        return "once" if early else "none"

    def _next(self, i: int) -> tuple[Any, ...] | None:
        """What is done to a value, if it can be done to its neighbours in the same operation; else None."""
        if i in self._sums:
            if self._sums[i].late:
                return None
            i = self._sums[i].top
        user = self._only_user(i)
        if user is None or user in self._product_of:
            return None
        node = self.program.nodes[user]
        if node.op in _CALLS or node.op == "neg":
            return (node.op,)
        if node.op in NORMS:
            return node.op, node.attr, node.shape
        if node.op not in _OPERATORS:
            return None
        place = node.args.index(i)
        other = node.args[1 - place]
        if self._level[other] == STATE or node.args[0] == node.args[1]:
            return None
        # vectors known early are stacked as well; of numbers there is one for all
        return node.op, place, self._level[other] if self.program.nodes[other].shape else f"%{other}"

    def _after(self, i: int) -> int:
        user = self._only_user(self._sums[i].top if i in self._sums else i)
        assert user is not None
        return user

    def _future(self, i: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while (on := self._next(i)) is not None:
            found.append(on)
            i = self._after(i)
        return found

    def _grow(self, pack: _Pack) -> None:
        for on, group in groupby(pack.members, self._next):
            members = list(group)
            if on is None or len(members) == 1:
                pack.parts += members
                continue
            grown = _Pack([self._after(m) for m in members], source=pack)
            self._packs.update(dict.fromkeys(grown.members, grown))
            pack.parts.append(grown)
            self._grow(grown)

    # The text

    def _write(self) -> str:
        program = self.program
        for i, node in enumerate(program.nodes):
            if node.op == "state":
                self._known[i] = f"s{program.states.index(str(node.attr))}"
        nexts = [self._need(i) for i in program.next_states]
        output = self._need(program.output)
        held = _tuple(f"s{k}" for k in range(len(nexts)))
        lines = [
            "def loop(once, each, states):",
            f"    {_tuple(name for name, _ in self._once)} = once",
            f"    {held} = states",
            "    outputs = []",
            f"    for {_tuple(name for name, _ in self._each)} in each:",
            *(f"        {line}" for line in self._lines),
            f"        outputs.append({output})",
            f"        {held} = {_tuple(nexts)}",
            f"    return outputs, {held}",
        ]
        return "\n".join(lines) + "\n"

    def _need(self, i: int) -> str:
        """The name of a value, behind the lines that compute it."""
        if i not in self._known:
            node = self.program.nodes[i]
            if node.op == "const":
                self._known[i] = repr(node.attr)
            elif self._level[i] < STATE:
                self._known[i] = self._early(f"v{i}", lambda early: early(i), self._level[i] == INPUT)
            elif i in self._product_of:
                product = self._product_of[i]
                late = self._sums[product].late
                value = self._sum_of(product)
                self._known[i] = self._line(f"v{i}", _added([value, *map(self._need, late)])) if late else value
            elif i in self._packs:
                self._cut(self._packs[i])
            else:
                self._known[i] = self._line(f"v{i}", self._operation(i, [self._need(a) for a in node.args]))
        return self._known[i]

    def _sum_of(self, product: int) -> str:
        """A recurrent product with the early terms of its sum."""
        top, late = self._sums[product].top, self._sums[product].late
        if product in self._packs:
            self._cut(self._packs[product])
            return self._known[product]
        name = f"p{product}" if late or top == product else f"v{top}"
        return self._line(name, self._product([product], name))

    def _early(self, name: str, make: Make, moves: bool) -> str:
        (self._each if moves else self._once).append((name, make))
        return name

    def _line(self, name: str, expression: str) -> str:
        self._lines.append(f"{name} = {expression}")
        return name

    def _operation(self, i: int, args: list[str]) -> str:
        node = self.program.nodes[i]
        if node.op in _OPERATORS:
            return _OPERATORS[node.op].format(*args)
        if node.op in _CALLS:
            return f"torch.{node.op}({args[0]})"
        if node.op == "layer_norm":
            width = size_value(node.shape[0], self.sizes)
            return f"functional.layer_norm({args[0]}, ({width},), None, None, {node.attr!r})"
        if node.op == "batch_norm":
            return f"functional.batch_norm({args[0]}, None, None, None, None, True, 0.0, {node.attr!r})"
        return f"evaluate(nodes[{i}], [{', '.join(args)}], sizes)"

    def _product(self, products: list[int], name: str) -> str:
        nodes = self.program.nodes
        operand = self._need(nodes[products[0]].args[1])
        matrices = [nodes[p].args[0] for p in products]
        terms = [self._sums[p].early for p in products]
        stack = self._early(f"{name}_U", lambda early: _stacked(map(early, matrices), 0).t(), False)
        if not terms[0]:
            return f"torch.mm({operand}, {stack})"
        moves = any(self._level[t] == INPUT for own in terms for t in own)
        start = self._early(f"{name}_x", lambda early: self._starts(early, terms), moves)
        return f"torch.addmm({start}, {operand}, {stack})"

    def _starts(self, early: Early, terms: Sequence[Sequence[int]]) -> Tensor:
        """The early terms of several sums side by side; where each has one product of x, these are one product too."""
        nodes = self.program.nodes
        moving = [[t for t in own if self._level[t] == INPUT] for own in terms]
        still = [[t for t in own if self._level[t] != INPUT] for own in terms]
        alone = all(len(own) == 1 and nodes[own[0]].op == "matmul" for own in moving)
        if alone and len({nodes[own[0]].args[1] for own in moving}) == 1 and len({bool(own) for own in still}) == 1:
            weight = _stacked((early(nodes[own[0]].args[0]) for own in moving), 0)
            bias = _stacked((sum(map(early, own)) for own in still), 0) if still[0] else None
            return functional.linear(early(nodes[moving[0][0]].args[1]), weight, bias)
        return _stacked((sum(map(early, own)) for own in terms), -1)

    def _cut(self, pack: _Pack) -> None:
        """Compute a pack and cut it: values that stand alone get names, packs made of it find their places."""
        self._compute(pack)
        if pack.cut:
            return
        pack.cut = True
        names = [pack.name]
        if len(pack.parts) > 1:
            parts = [part.members if isinstance(part, _Pack) else [part] for part in pack.parts]
            widths = [sum(self._width(m) for m in members) for members in parts]
            names = [f"{pack.name}_{k}" for k in range(len(pack.parts))]
            self._lines.append(f"{', '.join(names)} = {pack.name}.split({widths}, 1)")
        for part, name in zip(pack.parts, names, strict=True):
            if isinstance(part, _Pack):
                part.place = name
            else:
                self._known[part] = name

    def _width(self, i: int) -> int:
        return size_value(self.program.nodes[i].shape[0], self.sizes)

    def _compute(self, pack: _Pack) -> None:
        if pack.name:
            return
        pack.name = f"g{pack.members[0]}"
        nodes = self.program.nodes
        if pack.source is None:
            self._line(pack.name, self._product(pack.members, pack.name))
            return
        self._cut(pack.source)
        node = nodes[pack.members[0]]
        if node.op == "layer_norm":
            shape = f"({len(pack.members)}, {self._width(pack.members[0])})"
            whole = f"{pack.place}.unflatten(1, {shape})"
            self._line(pack.name, f"{self._operation(pack.members[0], [whole])}.flatten(1)")
            return
        if len(node.args) == 1:
            self._line(pack.name, self._operation(pack.members[0], [pack.place]))
            return
        sides = [self._is_within(pack, m) for m in pack.members]
        others = [nodes[m].args[1 - side] for m, side in zip(pack.members, sides, strict=True)]
        if nodes[others[0]].shape:
            moves = any(self._level[o] == INPUT for o in others)
            other = self._early(f"{pack.name}_o", lambda early: _stacked(map(early, others), -1), moves)
        else:
            other = self._need(others[0])
        args = [other, pack.place] if sides[0] else [pack.place, other]
        self._line(pack.name, self._operation(pack.members[0], args))

    def _is_within(self, pack: _Pack, member: int) -> int:
        """Which operand of a member comes from its pack's source."""
        assert pack.source is not None
        own = {self._sums[m].top if m in self._sums else m for m in pack.source.members}
        return 0 if self.program.nodes[member].args[0] in own else 1


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


def _tuple(names: Iterable[str]) -> str:
    return "(" + "".join(f"{name}, " for name in names).rstrip(" ") + ")"


def _added(terms: Sequence[str]) -> str:
    return " + ".join(terms)


def _stacked(parts: Iterable[Tensor], dim: int) -> Tensor:
    found = list(parts)
    if len(found) == 1:
        return found[0]
    lead = max((p.shape[:-1] for p in found), key=len)
    if dim == -1 and lead:  # vectors of parameters beside those of every step, locked masks beside others
        rows = [max(p.shape[k] for p in found if p.dim() == len(lead) + 1) for k in range(len(lead))]
        found = [p.expand(*rows, p.shape[-1]) for p in found]
    return torch.cat(found, dim)


def _by_step(value: Tensor, steps: int) -> Sequence[Tensor]:
    """The value of each step; a mask that is the same for all of them is not copied."""
    return [value[0]] * steps if value.shape[0] == 1 else value.unbind(0)


def _rows(value: Tensor, batch: int) -> Tensor:
    """What depends on parameters only is the same for every sequence."""
    return value if value.dim() == 2 else value.expand(batch, -1)
