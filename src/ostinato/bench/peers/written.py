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
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...backends.eager.run import evaluate
from ...ir import INPUT, STATE, Program, size_value
from .arrange import CALLS, OPERATORS, Arrangement, Pack
from .norms import NORMS, with_early_sums, with_norms

__all__ = ["WrittenLoop"]

Early = Callable[[int], Any]  # the value of a node that is known before the loop
Make = Callable[[Early], Any]


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
        self._arranged = arranged = Arrangement(self.program)
        self._level, self._sums, self._packs = arranged.level, arranged.sums, arranged.packs
        self._once: list[tuple[str, Make]] = []
        self._each: list[tuple[str, Make]] = []
        self._lines: list[str] = []
        self._known: dict[int, str] = {}
        self._stacked: set[int] = set()  # products of x that are made with their sums
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
        nodes = self.program.nodes

        def value(i: int) -> Any:
            if i not in found:
                node = nodes[i]
                if node.op == "const":
                    found[i] = node.attr
                elif node.op == "param":
                    found[i] = params[str(node.attr)]
                elif node.op == "input":
                    found[i] = x
                elif node.op == "mask":
                    found[i] = given[str(node.attr)]
                elif node.op == "matmul" and self._level[i] == INPUT:
                    # all products of x that are wanted by themselves are one
                    group = self._beside(i)
                    weight = _stacked((value(nodes[k].args[0]) for k in group), 0)
                    whole = functional.linear(value(node.args[1]), weight)
                    found.update(zip(group, whole.split([self._width(k) for k in group], -1), strict=True))
                elif node.op in NORMS:
                    found[i] = NORMS[node.op](value(node.args[0]), float(node.attr or 0.0))
                else:
                    found[i] = evaluate(node, [value(a) for a in node.args], self.sizes)
            return found[i]

        return value

    def _beside(self, product: int) -> list[int]:
        """The products of the same early vector that are not made with a sum."""
        nodes, operand = self.program.nodes, self.program.nodes[product].args[1]
        return [
            i
            for i in sorted(self._arranged.users)
            if nodes[i].op == "matmul" and nodes[i].args[1] == operand and i not in self._stacked
        ]

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
            elif i in self._arranged.product_of:
                product = self._arranged.product_of[i]
                late = self._sums[product].late
                value = self._sum_of(product)
                self._known[i] = self._line(f"v{i}", " + ".join([value, *map(self._need, late)])) if late else value
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
        if node.op in OPERATORS:
            return OPERATORS[node.op].format(*args)
        if node.op in CALLS:
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
        fed = self._fed(terms)
        self._stacked.update(fed)
        start = self._early(f"{name}_x", lambda early: self._starts(early, terms, fed), moves)
        return f"torch.addmm({start}, {operand}, {stack})"

    def _fed(self, terms: Sequence[Sequence[int]]) -> list[int]:
        """The products of x in several sums, if each sum has just one, of the same vector; else none."""
        nodes = self.program.nodes
        moving = [[t for t in own if self._level[t] == INPUT] for own in terms]
        if any(len(own) != 1 or nodes[own[0]].op != "matmul" for own in moving):
            return []
        same = len({nodes[own[0]].args[1] for own in moving}) == 1 and len({len(own) > 1 for own in terms}) == 1
        return [own[0] for own in moving] if same else []

    def _starts(self, early: Early, terms: Sequence[Sequence[int]], fed: Sequence[int]) -> Tensor:
        """The early terms of several sums side by side; the products of x that they are fed by are one."""
        if not fed:
            return _stacked((_total(early, own) for own in terms), -1)
        nodes = self.program.nodes
        still = [[t for t in own if t not in fed] for own in terms]
        weight = _stacked((early(nodes[product].args[0]) for product in fed), 0)
        bias = _stacked((_total(early, own) for own in still), 0) if still[0] else None
        return functional.linear(early(nodes[fed[0]].args[1]), weight, bias)

    def _cut(self, pack: Pack) -> None:
        """Compute a pack and cut it: values that stand alone get names, packs made of it find their places."""
        self._compute(pack)
        if pack.cut:
            return
        pack.cut = True
        names = [pack.name]
        if len(pack.parts) > 1:
            parts = [part.members if isinstance(part, Pack) else [part] for part in pack.parts]
            widths = [sum(self._width(m) for m in members) for members in parts]
            names = [f"{pack.name}_{k}" for k in range(len(pack.parts))]
            self._lines.append(f"{', '.join(names)} = {pack.name}.split({widths}, 1)")
        for part, name in zip(pack.parts, names, strict=True):
            if isinstance(part, Pack):
                part.place = name
            else:
                self._known[part] = name

    def _width(self, i: int) -> int:
        return size_value(self.program.nodes[i].shape[0], self.sizes)

    def _compute(self, pack: Pack) -> None:
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

    def _is_within(self, pack: Pack, member: int) -> int:
        """Which operand of a member comes from its pack's source."""
        assert pack.source is not None
        own = {self._sums[m].top if m in self._sums else m for m in pack.source.members}
        return 0 if self.program.nodes[member].args[0] in own else 1


def _tuple(names: Iterable[str]) -> str:
    return "(" + "".join(f"{name}, " for name in names).rstrip(" ") + ")"


def _total(early: Early, terms: Sequence[int]) -> Tensor:
    total = early(terms[0])
    for term in terms[1:]:
        total = total + early(term)
    return total


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
