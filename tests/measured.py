"""Layers of any cell, inputs of any layout, and every number that a run gives: no pytest, no compiler, any device."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves

from ostinato import RNN, Cell, cell
from ostinato.ir import size_value


def sizes_for(cell: Cell, hidden: int) -> dict[str, int]:
    """Numbers for the sizes a cell has beside D and H: about half of H, each another."""
    extra = [s for s in cell.program().symbols if s not in ("D", "H")]
    return {s: max(1, (hidden + 1) // 2 - k) for k, s in enumerate(extra)}


def numbers(name: str, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers that depend on the name and shape alone, the same in every dtype (they fit float32)."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name}{shape}".encode()))
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def build(
    cell: Cell,
    input_size: int,
    hidden_size: int,
    backend: str,
    dtype: torch.dtype = torch.float64,
    **arguments: Any,
) -> RNN:
    """A layer with weights that are the same for every backend and dtype, biases and peepholes included.

    A cell whose sizes would not fit the layer's stands behind a matrix (`fitted`).
    """
    if not fits(cell, input_size, hidden_size, arguments.get("num_layers", 1)):
        cell = fitted(cell)
    sizes = arguments.pop("sizes", None) or sizes_for(cell, hidden_size)
    layer = RNN(cell, input_size, hidden_size, backend=backend, sizes=sizes, dtype=dtype, **arguments)
    return fill(layer)


def fits(cell: Cell, input_size: int, hidden_size: int, num_layers: int) -> bool:
    """Whether a layer may have these sizes, and states of one size: x may be used elementwise, or kept as a state."""
    program = cell.program()
    elementwise, kept = program.input_size != "D", "D" in program.state_sizes.values()
    return not (elementwise and input_size != hidden_size) and (num_layers == 1 or not (elementwise or kept))


def fitted(inner: Cell) -> Cell:
    """The cell behind a matrix that makes x as wide as H."""

    def equations(p: Any, x: Any, *states: Any) -> Any:
        return inner(p, p.W_fit @ x, *states)

    equations.__name__, equations.__doc__ = inner.name, inner.doc
    sizes = {k: v for k, v in inner.sizes.items() if k != "x" and v != "D"} | {"W_fit": ("H", "D")}
    made = cell(sizes=sizes, init=dict(inner.init), fixed=inner.fixed, states=lambda _: inner.states)
    return made(equations)


def fill(layer: Any) -> Any:
    """Give a layer's parameters numbers of their own, small enough that no gate is quite open or shut.

    What is not trained keeps its rule, drawn again so that it is the same for every layer. Scalars lie around where
    they start; A, the matrix of a linear recurrence, is small enough that the state does not grow without end.
    """
    if isinstance(layer, RNN) and (any(True for _ in layer.buffers()) or any(not p.dim() for p in layer.parameters())):
        layer.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            width = parameter.shape[-1] if parameter.dim() == 2 else 4
            scale = width**-0.5 * (0.5 if name.startswith("A_l") else 1.0)
            parameter.copy_(numbers(name, *parameter.shape, scale=scale) + (0.0 if parameter.dim() else parameter))
    return layer


def reference(layer: RNN) -> RNN:
    """The same layer in eager and float64: the meaning."""
    twin = RNN(
        layer.cell,
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        layer.bias,
        layer.batch_first,
        layer.dropout,
        layer.bidirectional,
        "eager",
        sizes=layer.sizes,
        dtype=torch.float64,
    )
    twin.load_state_dict({k: v.double() for k, v in layer.state_dict().items()})
    for value in layer.state_dict().values():
        twin.to(value.device)
    for ours, other in zip(twin.parameters(), layer.parameters(), strict=True):
        ours.requires_grad_(other.requires_grad)
    return twin


def inputs(steps: int, batch: int, width: int, dtype: torch.dtype) -> Tensor:
    """x [T, B, D]."""
    return numbers("x", steps, batch, width, dtype=dtype)


def states_for(layer: RNN, batch: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """One state [num_layers * num_directions, B, S] for each of the cell's; a normaliser n is positive."""
    count = layer.num_layers * layer.num_directions
    program = layer.programs[0]
    width = {"D": layer.input_size, "H": layer.hidden_size, **layer.sizes}
    shapes = [size_value(size, width) for size in program.state_sizes.values()]
    drawn = [numbers(n, count, batch, s, dtype=dtype) for n, s in zip(program.states, shapes, strict=True)]
    return tuple(s.abs() if n == "n" else s for n, s in zip(program.states, drawn, strict=True))


def ragged(steps: int, batch: int) -> list[int]:
    """Lengths between 0 and T, unsorted, with both ends among them where the batch has room."""
    return [(steps, 0, steps // 2, 1, steps)[(b * 2) % 5] if steps else 0 for b in range(batch)]


def everything(name: str) -> bool:
    """Every result takes part."""
    return True


def measure(
    layer: RNN | ThroughPacked | Asked,
    x: Tensor,
    state: Sequence[Tensor] | None = None,
    lengths: Any = None,
    wants: Callable[[str], bool] = everything,
    uses: Callable[[str], bool] = everything,
) -> dict[str, Tensor | None]:
    """Outputs, final states and gradients of a run, by name.

    Args:
        wants: which of "x", "state h", ... and the parameters' names require a gradient.
        uses: which of "output", "state h", ... enter the loss.
    """
    names = layer.programs[0].states
    x = x.detach().requires_grad_(wants("x"))
    given = (
        None
        if state is None
        else tuple(s.detach().requires_grad_(wants(f"state {n}")) for n, s in zip(names, state, strict=True))
    )
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(wants(name))
    # a cell with one state takes it bare
    passed = given[0] if given is not None and len(given) == 1 else given
    torch.manual_seed(0)  # the same masks for every backend and dtype
    output, final = layer(x, passed, lengths)
    finals = (final,) if isinstance(final, Tensor) else final
    found: dict[str, Tensor | None] = {"output": output}
    found.update({f"state {n}": s for n, s in zip(names, finals, strict=True)})
    sources = {"x": x, **{f"state {n}": s for n, s in zip(names, given or (), strict=bool(given))}}
    sources.update(layer.named_parameters())
    sources = {name: value for name, value in sources.items() if value.requires_grad}
    loss = sum(
        (
            (v * numbers(f"loss {n}", *v.shape, dtype=v.dtype).to(v.device)).sum()
            for n, v in found.items()
            if v is not None and uses(n)
        ),
        x.new_zeros(()),
    )
    part = uses is not everything  # what does not enter a part of the loss: eager says None, a kernel writes zeros
    if sources and (loss.requires_grad or part):
        wanted = list(sources.values())
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        if part:
            gradients = [torch.zeros_like(s) if g is None else g for s, g in zip(wanted, gradients, strict=True)]
        found.update({f"grad {n}": g for n, g in zip(sources, gradients, strict=True)})
    return {n: None if v is None else v.detach() for n, v in found.items()}


class ThroughPacked:
    """A layer that is called with a PackedSequence, and takes and gives padded tensors; for `measure`."""

    def __init__(self, layer: RNN, sort: bool = False) -> None:
        self.layer, self.sort = layer, sort
        self.programs, self.named_parameters = layer.programs, layer.named_parameters

    def __call__(self, x: Tensor, state: Any, lengths: Any) -> tuple[Any, ...]:
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=self.sort)
        output, *rest = self.layer(packed, state)
        return pad_packed_sequence(output, total_length=x.shape[0])[0], *rest


class Asked:
    """A layer that is called with options, for `measure`; what they add is given beside the output, as part of it."""

    def __init__(self, layer: RNN, **options: Any) -> None:
        self.layer, self.options = layer, options
        self.programs, self.named_parameters = layer.programs, layer.named_parameters

    def __call__(self, x: Tensor, state: Any, lengths: Any) -> tuple[Any, ...]:
        output, state, *more = self.layer(x, state, lengths, **self.options)
        return torch.cat([output, *tree_leaves(more)], -1), state


def doubled(values: Sequence[Tensor] | None) -> tuple[Tensor, ...] | None:
    """The same numbers in float64."""
    return None if values is None else tuple(v.double() for v in values)


def expected(
    layer: RNN, x: Tensor, state: Sequence[Tensor] | None = None, lengths: Any = None, **how: Any
) -> dict[str, Tensor | None]:
    """What `measure` gives in eager and float64."""
    return measure(reference(layer), x.double(), doubled(state), lengths, **how)


def without(found: dict[str, Tensor | None], names: Collection[str]) -> dict[str, Tensor | None]:
    """The results but for some."""
    return {n: v for n, v in found.items() if n not in names}


def flat(state: Any) -> tuple[Tensor, ...]:
    """The states as a tuple, one or several."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def results(module: Any, x: Tensor, *more: Any) -> dict[str, Tensor]:
    """Values and every gradient."""
    x = x.clone().requires_grad_()
    output, state = module(x, *more)
    found = {"output": output, **{f"state {k}": s for k, s in enumerate(flat(state))}}
    loss = sum((v * numbers(n, *v.shape, dtype=v.dtype)).sum() for n, v in found.items())
    weights = list(module.parameters())
    # backward belongs outside of autocast, which would have torch's own steps back in half precision
    with torch.autocast("cpu", enabled=False):
        gradients = torch.autograd.grad(loss, [x, *weights])
    return {**found, **{f"grad {k}": g for k, g in enumerate(gradients)}}
