"""Paths that are shorter or longer: residual connections, deeper transitions, skips in time."""

from __future__ import annotations

from dataclasses import replace

from ..ir import STATE, Node
from ..lang import Cell
from .rewrite import Rewriter, call, check_count, multiple_of_state


def residual(cell: Cell, over: str = "depth", state: str | None = None) -> Cell:
    """A residual connection around the step: in depth or in time.

    over = "depth": y[t] = f(x[t], ...) + x[t], what is put out plus what came in (He et al. 2016); the states stay
    as they are. x has then to be as wide as the output, and a layer of another input_size is refused.

    over = "time": h[t] = f(x[t], h[t-1]) + h[t-1], the new state plus the old one (Yue et al. 2018). The output
    follows if it is that state. Within the step the value that the cell computes is read.

    The same in evaluation; nothing is drawn, no parameters are added.

    Args:
        over: "depth" or "time".
        state: which, in time; the first activation if it is not given.

    Raises:
        CellError: output and x have sizes that are declared to differ; a name that is no state or no activation.

    >>> from ostinato import cells, transforms
    >>> cell = transforms.residual(cells.elman)
    >>> cell.program().input_size, cell.program().output_size
    ('H', 'H')
    >>> transforms.residual(cells.elman, over="time")
    <cell residual(elman, over='time')(x, h)>
    """
    shown = {} if over == "depth" else {"over": over}
    r = Rewriter(cell, call("residual", cell, **shown, **({} if state is None else {"state": state})))
    if over == "time":
        k = r.chosen(state)
        r.copy()
        new = r.next_states[k]
        old = r.b.raw("state", (), r.b.nodes[new].shape, r.old.states[k])
        r.replace_state(k, r.b.add(new, old))
        return r.finish()
    if over != "depth":
        r.refuse(f"over is {over!r}", "choose 'depth' or 'time'")
    if state is not None:
        r.refuse("a residual connection in depth is of the output, not of a state", "give state= with over='time'")
    if r.old.output < 0:
        r.refuse(f"cell {cell.name} puts out nothing", "give it an output, or use over='time'")
    wide, narrow = r.old.output_size, r.old.input_size
    if wide != narrow:
        if narrow != "D" or "+" in wide:
            r.refuse(
                f"x has size {narrow} and the output {wide}",
                "declare one size for both, as in @cell(sizes={'x': 'H'}), or project one of them",
            )
        r.old = replace(r.old, nodes=tuple(_renamed(n, narrow, wide) for n in r.old.nodes))
    r.copy()
    r.output = r.b.add(r.output, r.b.raw("input", (), (wide,), "x"))
    return r.finish()


def deep_transition(cell: Cell, depth: int, state: str | None = None) -> Cell:
    """A deep transition: a network of `depth` layers inside the step, on the new state (Pascanu et al. 2014).

    h~ = f(x[t], h[t-1]), z_0 = h~, z_k = tanh(V_k z_{k-1} + b_V_k) for k = 1..depth, h[t] = z_depth.

    The output follows if it is that state; within the step the value that the cell computes is read. The same in
    evaluation; nothing is drawn.

    Not a stack of layers (num_layers), where each has a state of its own.

    Args:
        depth: layers that are added, at least 1.
        state: which; the first activation if it is not given.

    New parameters: ``V_1`` ... [S, S], orthogonal, and ``b_V_1`` ... [S], 0.

    Raises:
        CellError: a depth that is none, a name that is no state or no activation.

    >>> from ostinato import cells, transforms
    >>> list(transforms.deep_transition(cells.elman, 2).program().params)
    ['W', 'U', 'b', 'V_1', 'b_V_1', 'V_2', 'b_V_2']
    """
    r = Rewriter(cell, call("deep_transition", cell, depth, **({} if state is None else {"state": state})))
    check_count("depth of deep_transition", depth, 1, "deep_transition(elman, 2)")
    k = r.chosen(state)
    r.copy()
    b, value = r.b, r.next_states[k]
    (size,) = b.nodes[value].shape
    for layer in range(1, depth + 1):
        product = b.op("matmul", r.param(f"V_{layer}", (size, size)), value)
        value = b.op("tanh", b.add(product, r.param(f"b_V_{layer}", (size,))))
    r.replace_state(k, value)
    return r.finish()


def skip_in_time(cell: Cell, k: int, state: str | None = None, only: bool = False) -> Cell:
    """A skip connection in time: a state reaches the step k later as well (Zhang et al. 2016).

    U h[t-1] -> U h[t-1] + S_U h[t-k] wherever a matrix multiplies the state, or a multiple of it, as in
    U (r ⊙ h[t-1]) -> U (r ⊙ h[t-1]) + S_U (r ⊙ h[t-k]).

    With ``only=True`` h[t-k] stands instead of h[t-1] wherever the step reads it, as in a dilated network (Chang et
    al. 2017); no parameters are added.

    The steps between are k - 1 more states ``h_2`` ... ``h_k``: h_j holds h[t-j]. The same in evaluation; nothing is
    drawn.

    Args:
        k: at least 2.
        state: which; the first if it is not given.
        only: without the state one step back.

    New parameters: ``S_U`` of the shape of U, orthogonal.

    Raises:
        CellError: a k that is none, a name that is no state, a state that no matrix multiplies.

    >>> from ostinato import cells, transforms
    >>> transforms.skip_in_time(cells.elman, 3)
    <cell skip_in_time(elman, 3)(x, h, h_2, h_3)>
    """
    shown = {**({} if state is None else {"state": state}), **({"only": True} if only else {})}
    r = Rewriter(cell, call("skip_in_time", cell, k, **shown))
    check_count("k of skip_in_time", k, 2, "skip_in_time(elman, 8)")
    if not isinstance(only, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        r.refuse(f"only is {only!r}", "give True or False")
    number = r.chosen(state, delays=True)
    name = r.old.states[number]
    shape = (r.old.state_sizes[name],)
    delayed = [r.unused(f"{name}_{j}") for j in range(2, k + 1)]
    b = r.b
    skips = 0

    def far(leaf: Node) -> int | None:
        return b.raw("state", (), shape, delayed[-1]) if leaf.attr == name else None

    def change(i: int, new: int) -> int:
        nonlocal skips
        node, old = b.nodes[new], r.old.nodes[i]
        if only:
            return b.raw("state", (), shape, delayed[-1]) if node.op == "state" and node.attr == name else new
        if node.op != "matmul" or r.level[old.args[1]] != STATE:
            return new
        operand = multiple_of_state(b, node.args[1], far)
        if operand is None:
            return new
        skips += 1
        matrix = r.param(f"S_{r.matrix(i)}", b.nodes[node.args[0]].shape, "orthogonal")
        return b.add(new, b.op("matmul", matrix, operand))

    r.copy(change)
    if not skips and not only:
        r.refuse(
            f"no matrix of cell {cell.name} multiplies the state {name}, or a multiple of it",
            "name a state that one does, state='h', or pass only=True",
        )
    before = [b.raw("state", (), shape, earlier) for earlier in (name, *delayed[:-1])]
    r.states += delayed
    r.next_states += before
    return r.finish()


def _renamed(node: Node, before: str, after: str) -> Node:
    """The node with one size symbol for another, in sums and offsets too."""

    def size(text: str) -> str:
        return "+".join(sorted(after if part == before else part for part in text.split("+")))

    attr = node.attr
    if node.op in ("cols", "rows", "size") and isinstance(attr, str):
        attr = size(attr)
    return Node(node.op, node.args, tuple(map(size, node.shape)), attr, node.name)
