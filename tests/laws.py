"""What the laws are stated with: layers of any cell, inputs of any layout, and every number a run gives."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import ostinato
from ostinato import RNN, Cell

DTYPES = (torch.float32, torch.float64)
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
NO_COMPILER = "no C compiler on this machine (cc, gcc or clang): the C backend cannot be tested"


def backend_param(name: str) -> Any:
    """A backend as a test's parameter; skipped, visibly, where the machine cannot run it."""
    return pytest.param(name, marks=pytest.mark.skipif(name == "c" and COMPILER is None, reason=NO_COMPILER))


BACKENDS = [backend_param("eager"), backend_param("c")]
needs_c = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


def cells() -> dict[str, Cell]:
    """Every cell of the catalogue, and a variant for every option that is a choice between two.

    A preset has the options of the function it was made from: they are varied there.
    """
    found = dict(ostinato.cells.catalogue())
    for base in [c for c in found.values() if c.code is not None and c.code.co_name == c.name]:
        for option, value in base.options.items():
            other = {"tanh": "relu"}.get(value, not value) if isinstance(value, str | bool) else None
            if isinstance(other, str) or (other is not None and isinstance(value, bool)):
                variant = base(**{option: other})
                found[variant.name] = variant
    return found


CELLS = [pytest.param(c, id=name) for name, c in cells().items()]


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
    """A layer with weights that are the same for every backend and dtype, biases and peepholes included."""
    sizes = arguments.pop("sizes", None) or sizes_for(cell, hidden_size)
    layer = RNN(cell, input_size, hidden_size, backend=backend, sizes=sizes, dtype=dtype, **arguments)
    return fill(layer)


def fill(layer: Any) -> Any:
    """Give a layer's parameters numbers of their own, small enough that no gate is quite open or shut."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            width = parameter.shape[-1] if parameter.dim() == 2 else 4
            parameter.copy_(numbers(name, *parameter.shape, scale=width**-0.5))
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
    for ours, other in zip(twin.parameters(), layer.parameters(), strict=True):
        ours.requires_grad_(other.requires_grad)
    return twin


def inputs(steps: int, batch: int, width: int, dtype: torch.dtype) -> Tensor:
    """x [T, B, D]."""
    return numbers("x", steps, batch, width, dtype=dtype)


def states_for(layer: RNN, batch: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """One state [num_layers * num_directions, B, S] for each of the cell's."""
    count = layer.num_layers * layer.num_directions
    program = layer.programs[0]
    width = {"D": layer.input_size, "H": layer.hidden_size, **layer.sizes}
    shapes = [sum(width[s] for s in size.split("+")) for size in program.state_sizes.values()]
    return tuple(numbers(n, count, batch, s, dtype=dtype) for n, s in zip(program.states, shapes, strict=True))


def ragged(steps: int, batch: int) -> list[int]:
    """Lengths between 0 and T, unsorted, with both ends among them where the batch has room."""
    return [(steps, 0, steps // 2, 1, steps)[(b * 2) % 5] if steps else 0 for b in range(batch)]


def everything(name: str) -> bool:
    """Every result takes part."""
    return True


def measure(
    layer: RNN,
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
            (v * numbers(f"loss {n}", *v.shape, dtype=v.dtype)).sum()
            for n, v in found.items()
            if v is not None and uses(n)
        ),
        x.new_zeros(()),
    )
    if sources and loss.requires_grad:
        gradients = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
        found.update({f"grad {n}": g for n, g in zip(sources, gradients, strict=True)})
    return {n: None if v is None else v.detach() for n, v in found.items()}


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
