"""`Program`: a cell's step as a list of values, frozen and hashable; what checkpoints hold and compilers read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ProgramError
from .node import Attr, Mask, Node, Shape, Statistic
from .ops import OPS

FORMAT = 2  # 2 adds masks, statistics and parameters that are not trained; 1 is read as well


@dataclass(frozen=True)
class Program:
    """One step of a cell: ``next_states, output = program(parameters, x, states)``.

    Args:
        name: the cell's name.
        nodes: the values, each after its operands.
        states: the names of the states, in order.
        next_states: position of each state's next value.
        output: position of what the step puts out; -1 if it puts out nothing.
        init: how parameters start, (name, rule) pairs; a rule is a number or the name of an initialiser.
        masks: the random numbers that the step is given, one for each ``mask`` leaf.
        fixed: the parameters that are not trained.
        statistics: the means over the batch that a layer keeps, one for each ``batch_mean`` node with a name; in
            evaluation each is a ``mask`` leaf of that name instead.
        auxiliary: the states that are bookkeeping of the cell, as a counter or a normaliser, and no activations.
    """

    name: str
    nodes: tuple[Node, ...]
    states: tuple[str, ...]
    next_states: tuple[int, ...]
    output: int
    init: tuple[tuple[str, float | str], ...] = ()
    masks: tuple[Mask, ...] = ()
    fixed: tuple[str, ...] = ()
    statistics: tuple[Statistic, ...] = ()
    auxiliary: tuple[str, ...] = ()

    @property
    def params(self) -> dict[str, Shape]:
        """The parameters and their shapes, in the order of the equations."""
        return {str(n.attr): n.shape for n in self.nodes if n.op == "param"}

    @property
    def state_sizes(self) -> dict[str, str]:
        """The size of each state."""
        return {name: self.nodes[out].shape[0] for name, out in zip(self.states, self.next_states, strict=True)}

    @property
    def input_size(self) -> str:
        """The size of x, "D" where the cell never looks at it."""
        return next((n.shape[0] for n in self.nodes if n.op == "input"), "D")

    @property
    def output_size(self) -> str:
        """The size of what the step puts out, "0" for nothing."""
        return "0" if self.output < 0 else self.nodes[self.output].shape[0]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The size symbols that occur, D and H first; numbers are none."""
        found = {s for n in self.nodes for size in n.shape for s in size.split("+")}
        return ("D", "H", *sorted(s for s in found - {"D", "H"} if not s.isdigit()))

    @property
    def mask_shapes(self) -> dict[str, Shape]:
        """The shape of each mask."""
        return {str(n.attr): n.shape for n in self.nodes if n.op == "mask"}

    @property
    def statistic_shapes(self) -> dict[str, Shape]:
        """The shape of each statistic, in their order."""
        shapes = {n.attr: n.shape for n in self.nodes if n.op in ("batch_mean", "mask")}
        return {s.name: shapes[s.name] for s in self.statistics}

    @property
    def measured(self) -> dict[str, int]:
        """The position of the mean that each statistic is, in their order; none in evaluation, where it is given."""
        found = {n.attr: i for i, n in enumerate(self.nodes) if n.op == "batch_mean"}
        return {s.name: found[s.name] for s in self.statistics if s.name in found}

    def check(self) -> Program:
        """Itself, if every node is a legal row of the table; else a ProgramError."""
        for i, node in enumerate(self.nodes):
            op = OPS.get(node.op)
            if op is None:
                raise ProgramError(f"node {i} has the unknown operation {node.op!r}; it was written by another version")
            if op.arity >= 0 and len(node.args) != op.arity:
                raise ProgramError(f"node {i}: {node.op} takes {op.arity} operands, got {len(node.args)}")
            if any(not 0 <= a < i for a in node.args):
                raise ProgramError(f"node {i}: operands {node.args} do not come before it")
            for place, a in enumerate(node.args):
                if OPS[self.nodes[a].op].kind == "compare" and (node.op != "where" or place):
                    raise ProgramError(f"node {i}: a comparison may only stand first in where(...)")
            if OPS[node.op].kind in ("pointwise", "compare"):
                shapes = {self.nodes[a].shape for a in node.args} - {()}
                if shapes - {node.shape}:
                    raise ProgramError(f"node {i}: {node.op} of shapes {sorted(shapes)} cannot give {node.shape}")
        if len(self.states) != len(self.next_states):
            raise ProgramError(f"{len(self.states)} states, but {len(self.next_states)} next states")
        stray = set(self.auxiliary) - set(self.states)
        if stray:
            raise ProgramError(f"auxiliary names {min(stray)!r}, which is no state")
        stray = set(self.mask_shapes) ^ {mask.name for mask in self.masks}
        if stray:
            raise ProgramError(f"the mask {min(stray)!r} is a leaf without a rule, or a rule without a leaf")
        named = [str(n.attr) for n in self.nodes if n.op == "batch_mean" and n.attr is not None]
        given = [s.name for s in self.statistics if s.name in self.mask_shapes]
        if sorted([*named, *given]) != sorted(s.name for s in self.statistics):
            raise ProgramError(f"the statistics {named} of nodes are not those that are declared")
        for position in self.roots:
            if not 0 <= position < len(self.nodes) or len(self.nodes[position].shape) != 1:
                raise ProgramError(f"position {position} is not a vector of this Program")
        return self

    @property
    def roots(self) -> tuple[int, ...]:
        """The next states, and the output if there is one."""
        return self.next_states if self.output < 0 else (*self.next_states, self.output)

    def __str__(self) -> str:
        lines = [f"program {self.name}({', '.join(('x', *self.states))})"]
        for i, n in enumerate(self.nodes):
            what = " ".join([n.op, *(f"%{a}" for a in n.args), *([] if n.attr is None else [str(n.attr)])])
            lines.append(f"  %{i:<3} {what:<24} [{', '.join(n.shape)}]{'  # ' + n.name if n.name else ''}")
        nexts = ", ".join(f"{s} = %{i}" for s, i in zip(self.states, self.next_states, strict=True))
        return "\n".join([*lines, f"  next {nexts}; output {'none' if self.output < 0 else f'%{self.output}'}"])

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, for a checkpoint."""
        nodes = [[n.op, list(n.args), list(n.shape), _plain(n.attr), n.name] for n in self.nodes]
        return {**asdict(self), "format": FORMAT, "nodes": nodes, "init": [list(pair) for pair in self.init]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Program:
        """The Program that `to_json` gave; a ProgramError if it is damaged or of another version."""
        try:
            if data["format"] not in (1, FORMAT):
                raise ProgramError(f"the Program has format {data['format']}; this version reads 1 to {FORMAT}")
            nodes = tuple(
                Node(op, tuple(map(int, args)), tuple(shape), _attr(attr), name)
                for op, args, shape, attr, name in data["nodes"]
            )
            return cls(
                str(data["name"]),
                nodes,
                tuple(data["states"]),
                tuple(map(int, data["next_states"])),
                int(data["output"]),
                tuple((str(k), v) for k, v in data["init"]),
                tuple(
                    Mask(str(m["name"]), float(m["probability"]), float(m["scale"]), bool(m["locked"]))
                    for m in data.get("masks", ())
                ),
                tuple(map(str, data.get("fixed", ()))),
                tuple(
                    Statistic(str(s["name"]), float(s["momentum"]), int(s["length"]), float(s["start"]))
                    for s in data.get("statistics", ())
                ),
                tuple(map(str, data.get("auxiliary", ()))),
            ).check()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, ProgramError):
                raise
            raise ProgramError(f"this is not a Program ({error!r}); write it with Program.to_json") from error

    def dumps(self) -> str:
        """`to_json` as one line of text: the form in which a registered operator carries it."""
        return json.dumps(self.to_json(), separators=(",", ":"), sort_keys=True)


def _plain(attr: Attr) -> float | str | None:
    """JSON has no infinities: they travel as text."""
    return repr(attr) if isinstance(attr, float) and math.isinf(attr) else attr


def _attr(attr: Any) -> Attr:
    if attr in ("inf", "-inf"):
        return float(attr)
    return float(attr) if isinstance(attr, int | float) else attr
