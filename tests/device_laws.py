"""What the kernels of the Triton backend are held to, in its interpreter and on a GPU: cases, and how one is checked.

Every case compares values and every gradient with eager in float64, over fresh memory that is filled with NaN. No
pytest: `scripts/gpu-check` goes over the same cases on machines that have torch and triton alone.
"""

from __future__ import annotations

import math
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

import ostinato.runtime  # noqa: F401  (its `choose` is a function beside the module)
from interpreted import Forced, products_of_bfloat16
from measured import Asked, ThroughPacked, build, doubled, inputs, measure, ragged, reference, states_for
from ostinato import RNN, cells
from ostinato.backends.triton import Form
from ostinato.named import named
from tolerances import differences, errors, is_gradient, smooth

# pyright: basic

CATALOGUE = tuple(cells.catalogue())
TRANSFORMED = (
    "layer_norm(lstm)",
    "batch_norm(gru, 6)",
    "zoneout(gru, 0.1)",
    "variational_dropout(lstm, 0.3)",
    "recurrent_dropout(lstm, 0.2)",
    "multiplicative_integration(gru)",
    "residual(gru)",
    "skip_in_time(lstm, 2)",
    "deep_transition(elman, 2)",
)
# products that wait for one another, peepholes, sums over a vector, states of several sizes, numbers as vectors
FEW = ("lstm", "gru", "full_peephole_lstm", "layer_norm(lstm)", "projected_lstm", "lmu")
NARROW = ("bfloat16", "float16")
OPTIONS = {"every state": {"return_states": True}, "the last outputs alone": {"return_sequences": False}}  # by law


@dataclass(frozen=True)
class Case:
    """One law at one cell and shape.

    Args:
        law: what is looked at; cell: as `named` reads it.
        steps, batch, width, hidden: T, B, D, H.
        form: how the work is dealt; None: as the backend deals it.
        dtype: of the layer and its input.
        lengths: sequences have unequal lengths; packed: they come as a PackedSequence.
        state: the first states are given; bidirectional: the reverse direction runs beside, with kernels of its own.
    """

    law: str
    cell: str
    steps: int
    batch: int
    width: int
    hidden: int
    form: Form | None = None
    dtype: str = "float32"
    lengths: bool = True
    packed: bool = False
    state: bool = True
    bidirectional: bool = True

    def __str__(self) -> str:
        form = "" if self.form is None else f" {self.form}"
        shape = f"T={self.steps} B={self.batch} D={self.width} H={self.hidden}"
        return f"{self.law}: {self.cell} {shape} {self.dtype}{form}"


def cases(device: str = "cpu") -> list[Case]:
    """All of them; on a GPU also shapes that would take the interpreter too long, in forms that the backend chooses."""
    every, some = (*CATALOGUE, *TRANSFORMED), [name for name in FEW if name != "layer_norm(lstm)"]
    found: list[Case] = []
    for law, form in (("the catalogue and transforms", Form()), ("products by the library", Form(stages=True))):
        # each cell in both directions in one of the two forms
        turns = [(zlib.crc32(f"{n} both ways".encode()) + form.stages) % 2 == 0 for n in every]
        form = replace(form, batch=32)
        found += [Case(law, n, 3, 18, 5, 7, form, bidirectional=t) for n, t in zip(every, turns, strict=True)]
    found += [Case("products in parts side by side", n, 2, 17, 18, 33, Form(batch=32, splits=2)) for n in FEW]
    meeting = Form(slices=2, splits=2)  # two groups of programs, and one
    found += [Case("programs that meet", n, 2, 18 if n == "lstm" else 5, 5, 36, meeting) for n in FEW]
    # sums over a vector are left out: programs that do not meet have no part in them
    dealt_out = Form(batch=16, slices=2, stages=True)
    found += [Case("products by the library, units dealt out", n, 2, 18, 5, 36, dealt_out) for n in some]
    packed = ("lstm", "time_skip", "zoneout(gru, 0.1)")
    for form in (Form(batch=32), Form(batch=32, stages=True)):
        found += [Case("packed sequences", n, 4, 7, 5, 6, form, packed=True) for n in packed]
    for form in (None, Form(batch=8, stages=True)):
        found += [Case("whole sequences from zeros", n, 3, 5, 5, 7, form, lengths=False, state=False) for n in FEW]
    for form in (Form(batch=8), Form(batch=8, stages=True)):
        found += [Case(law, n, 4, 6, 5, 7, form) for law in OPTIONS for n in ("lstm", "gru", "projected_lstm")]
    found += [
        Case("nothing and almost nothing", "lstm", *shape) for shape in [(0, 3, 4, 5), (2, 0, 4, 5), (1, 1, 1, 1)]
    ]
    for form in (None, Form(batch=8, stages=True)):
        found += [Case(f"rounded to {dtype}", n, 3, 6, 5, 7, form, dtype) for dtype in NARROW for n in FEW]
    if torch.device(device).type == "cpu":
        return found
    one = {"bidirectional": False}  # that is half of what is to be compiled
    found += [Case("as the backend deals it", n, 9, 37, 20, 48, **one) for n in every]
    wide = [(40, 3, 63, 100), (17, 65, 64, 128), (5, 16, 257, 300), (6, 70, 512, 512), (3, 16, 1024, 1024)]
    found += [Case("wide layers", n, *shape, **one) for shape in wide for n in FEW]
    for dtype in NARROW:
        found += [Case("wide layers", n, 33, 16, 256, 256, dtype=dtype, state=False, **one) for n in FEW]
    return found


def check(case: Case, device: str = "cpu") -> list[str]:
    """What is off by more than the table of tolerances allows, a line for each result; a refusal is raised."""
    interpreted = torch.device(device).type == "cpu"
    within = products_of_bfloat16() if interpreted else nullcontext()
    with dealt(case.form), fresh_memory_is_nan(), quiet(), within:
        return _narrow(case, device) if case.dtype in NARROW else _whole(case, device)


def _whole(case: Case, device: str) -> list[str]:
    layer, x, state, lengths = _drawn(case, device)
    twin = reference(layer)  # masks are drawn for the rows there are: then eager is packed too
    meant = measure(_laid(twin, case), x.double(), doubled(state), lengths)
    lines = differences(measure(_laid(layer, case), x, state, lengths), meant, torch.float32)
    with torch.no_grad():
        bare = measure(_laid(layer, case), x, state, lengths, wants=lambda _: False)
    values = {name: value for name, value in meant.items() if not is_gradient(name)}
    return lines + [f"without gradients: {line}" for line in differences(bare, values, torch.float32)]


def _narrow(case: Case, device: str) -> list[str]:
    """What comes in and goes out is rounded: where that moves a state, no kernel can be better than eager by much."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    layer, x, state, lengths = _drawn(case, device)
    layer, x, state = layer.to(dtype), x.to(dtype), None if state is None else tuple(s.to(dtype) for s in state)
    program = layer.programs[0]
    meant = smooth(measure(reference(layer), x.double(), doubled(state), lengths), program)
    eager = build(
        layer.cell, x.shape[2], layer.hidden_size, "eager", torch.float32, bidirectional=layer.bidirectional
    ).to(device)
    eager.load_state_dict(layer.state_dict())
    own = errors(smooth(measure(eager.to(dtype), x, state, lengths), program), meant)
    slack = {name: value / 10 for name, value in own.items() if math.isfinite(value)}
    found = measure(layer, x, state, lengths)
    lines = differences(smooth(found, program), meant, dtype, slack)
    with torch.no_grad():
        bare = measure(layer, x, state, lengths, wants=lambda _: False)
    values = {name: value for name, value in meant.items() if not is_gradient(name)}
    return lines + [f"without gradients: {line}" for line in differences(bare, values, dtype, slack)]


def _drawn(case: Case, device: str):
    """The layer of a case, and what it is given."""
    cell = named(case.cell)
    width = case.width if cell.program().input_size == "D" else case.hidden
    layer = build(cell, width, case.hidden, "triton", torch.float32, bidirectional=case.bidirectional).to(device)
    x = inputs(case.steps, case.batch, layer.input_size, torch.float32).to(device)
    state = tuple(s.to(device) for s in states_for(layer, case.batch, torch.float32)) if case.state else None
    lengths = ragged(case.steps, case.batch) if case.lengths else None
    if case.packed and lengths is not None:
        lengths = [max(1, n) for n in lengths]
    return layer, x, state, lengths


def _laid(layer: RNN, case: Case) -> RNN | ThroughPacked | Asked:
    if case.law in OPTIONS:
        return Asked(layer, **OPTIONS[case.law])
    return ThroughPacked(layer) if case.packed else layer


@contextmanager
def dealt(form: Form | None) -> Iterator[None]:
    """Within, kernels are of this form; in the interpreter the programs of a group run as processes."""
    choose = sys.modules["ostinato.runtime.choose"]
    before = choose._TRITON
    if form is not None:
        choose._TRITON = Forced(form)
    try:
        yield
    finally:
        choose._TRITON = before


@contextmanager
def fresh_memory_is_nan() -> Iterator[None]:
    """So that an unwritten output shows."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the interpreter makes numpy say, of lanes that are masked and of its own scalars."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*encountered in.*", RuntimeWarning)
        warnings.filterwarnings("ignore", "Conversion of an array with ndim", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*deterministic.*", UserWarning)  # in backward of eager, on a GPU
        yield
