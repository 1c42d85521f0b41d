"""What the laws of transforms are stated with: every transform, and a step of any Program run and differentiated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from measured import numbers
from ostinato import Cell, CellError, cells, transforms
from ostinato.ir import Program, size_value
from ostinato.runtime import Inputs, Runner, Step

Transform = Callable[[Cell], Cell]

TRANSFORMS: dict[str, Transform] = {
    "layer_norm": transforms.layer_norm,
    "layer_norm input": lambda c: transforms.layer_norm(c, on="input"),
    "layer_norm state": lambda c: transforms.layer_norm(c, on="state"),
    "batch_norm": lambda c: transforms.batch_norm(c, 10),
    "zoneout": lambda c: transforms.zoneout(c, 0.3),
    "variational_dropout": lambda c: transforms.variational_dropout(c, 0.25, 0.3, 0.35),
    "recurrent_dropout": lambda c: transforms.recurrent_dropout(c, 0.3),
    "weight_drop": lambda c: transforms.weight_drop(c, 0.3),
    "residual": transforms.residual,
    "residual time": lambda c: transforms.residual(c, "time"),
    "deep_transition": lambda c: transforms.deep_transition(c, 2),
    "multiplicative_integration": transforms.multiplicative_integration,
    "skip_in_time": lambda c: transforms.skip_in_time(c, 3),
    "skip_in_time only": lambda c: transforms.skip_in_time(c, 2, only=True),
}


@functools.cache
def transformed() -> Mapping[tuple[str, str], Cell]:
    """Every transform of every cell of the catalogue that it can be applied to."""
    found: dict[tuple[str, str], Cell] = {}
    for name, cell in cells.catalogue().items():
        for which, transform in TRANSFORMS.items():
            try:
                found[name, which] = transform(cell)
            except CellError as error:  # a refusal says what to do instead
                assert ";" in str(error), error
    return found


def sizes_of(program: Program, width: int = 3, hidden: int = 6) -> dict[str, int]:
    """Numbers for the sizes of a Program."""
    return {symbol: {"D": width, "H": hidden}.get(symbol, 4) for symbol in program.symbols}


def values_of(step: Step, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The parameters by name; gains about 1."""
    found: dict[str, Tensor] = {}
    for name, shape in zip(step.program.params, step.param_shapes, strict=True):
        found[name] = numbers(name, *shape, scale=0.5, dtype=dtype) + float(name.startswith(("g_", "gamma_")))
    return found


def masks_of(step: Step, steps: int, batch: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random masks that depend on their names and shapes alone."""
    found: list[Tensor] = []
    for mask, shape in zip(step.program.masks, step.mask_shapes, strict=True):
        whole = tuple(shape) if len(shape) == 2 else (1 if mask.locked else steps, batch, *shape)
        uniform = torch.special.ndtr(numbers(mask.name, *whole))
        found.append((uniform < mask.probability).to(dtype) * mask.scale)
    return found


def run(
    program: Program,
    backend: str = "eager",
    reverse: bool = False,
    lengths: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    steps: int = 5,
    batch: int = 4,
    masks: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Outputs, final states, statistics and every gradient of a Program run over a sequence, by name."""
    sizes = sizes_of(program)
    step = Step.of(program, True, sizes)
    x = numbers("x", steps, batch, size_value(step.program.input_size, sizes), dtype=dtype)
    starts = [
        numbers(f"start {n}", 1, batch, s, dtype=dtype)
        for n, s in zip(step.program.states, step.state_sizes, strict=True)
    ]
    params = values_of(step, dtype)
    given = masks_of(step, steps, batch, dtype)
    if masks is not None:
        given = [masks[mask.name] for mask in step.program.masks]
    sources = {"x": x, **dict(zip(step.program.states, starts, strict=True)), **params}
    for value in sources.values():
        value.requires_grad_()
    ends = None if lengths is None else torch.tensor(lengths)
    inputs = Inputs(x, starts, ends, reverse, given)
    output, finals, measured = Runner(step)(inputs, list(params.values()), backend)
    states = dict(zip((f"state {n}" for n in step.program.states), finals, strict=True))
    statistics = dict(zip(step.program.measured, measured, strict=True))
    assert not any(s.requires_grad for s in statistics.values())
    found = {"output": output, **states}
    loss = sum(((v * numbers(f"loss {n}", *v.shape, dtype=dtype)).sum() for n, v in found.items()), x.new_zeros(()))
    gradients = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
    for (name, value), gradient in zip(sources.items(), gradients, strict=True):
        found[f"grad {name}"] = torch.zeros_like(value) if gradient is None else gradient
    found |= {f"statistic {n}": s for n, s in statistics.items()}
    return {name: value.detach() for name, value in found.items()}
