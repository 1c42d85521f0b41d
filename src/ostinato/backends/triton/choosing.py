"""Choosing the form of a kernel: what was measured, else what the model says, else the next that can be launched."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch

from ...errors import LaunchError, StalledError, TooLargeError
from ..base import AT_ONCE, Inputs, OutputGradients, Wanted, captured
from . import measured
from .call import Call
from .device import facts, interpreted
from .form import Form, power_of_two
from .forms import Candidate, candidates
from .layout import Layout
from .proof import Held
from .recording import ALONE
from .whole import flags

__all__ = ["Chooser"]

CALLS = 10  # of a kernel and a size of batch, before forms are measured
TRIED = 4  # forms that are measured
LAUNCHED = 8  # that are tried where others could not be launched: each may have to be compiled
KEPT = 256  # sizes of batch whose forms are remembered
FACTOR = 4.0  # no form is, that the model takes for so many times as slow as the best
STEPS = 96  # of a call that is measured
REPEATS = 5
_log = logging.getLogger("ostinato")


class Kernel(Protocol):
    """What is asked of a kernel whose form is chosen: see `TritonKernel`."""

    layout: Layout

    @property
    def factors(self) -> str: ...

    @cached_property
    def digest(self) -> str: ...

    def taking(
        self, name: str, form: Form
    ) -> AbstractContextManager[list[tuple[torch.cuda.Event, torch.cuda.Event]]]: ...

    def prove(self, form: Form, name: str, call: Call, bound: Held) -> None: ...

    def let_go(self, name: str, form: Form) -> None: ...


class Chooser:
    """The forms of one kernel's calls.

    OSTINATO_TUNE says when forms are measured: 0 for never, 1 at the first call of a kernel with a size of batch (to
    the next power of two); at the tenth call if it is not set. What was measured is kept on disk.
    """

    def __init__(self) -> None:
        self._calls: dict[Any, int] = {}
        self._known: dict[Any, list[Form]] = {}
        self._refused: set[tuple[str, Form]] = set()

    def forms(self, kernel: Kernel, name: str, batch: int, device: torch.device) -> list[Form]:
        """The forms that may be taken, the best first."""
        key = (name, batch, device, kernel.factors, AT_ONCE.get())
        known = self._known.get(key)
        if known is None:
            if interpreted():  # one program after the other: none may wait
                known = [Form(batch=power_of_two(batch), factors=kernel.factors)]
            else:
                likely = _first(self._candidates(kernel, name, batch, device), LAUNCHED)
                found = measured.recall(_key(kernel, name, batch, device))
                known = likely if found is None else [found[0], *(f for f in likely if f != found[0])]
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[key] = known
        return [form for form in known if (name, form) not in self._refused]

    def refuse(self, name: str, form: Form) -> None:
        """A form cannot be launched."""
        self._refused.add((name, form))

    def before(self, kernel: Kernel, name: str, call: Call, bound: Held) -> None:
        """Measure, if it is time to."""
        if call.device.type != "cuda" or captured(call.device):
            return
        key = (name, power_of_two(call.batch), call.device, kernel.factors, AT_ONCE.get())
        self._calls[key] = calls = self._calls.get(key, 0) + 1
        when = {"0": 0, "1": 1}.get(os.environ.get("OSTINATO_TUNE", ""), CALLS)
        if calls == when and measured.recall(_key(kernel, name, call.batch, call.device)) is None:
            self.measure(kernel, name, call, bound)

    def measure(self, kernel: Kernel, name: str, call: Call, bound: Held) -> dict[Form, float]:
        """The microseconds of a step in each of the likely forms, over random numbers; the fastest is taken then."""
        flags(call.device).look()  # at what the user did before: what comes now is of the forms
        found: dict[Form, float] = {}
        tried = self.tried(kernel, name, call.batch, call.device)
        for form in tried:
            try:
                found[form] = _timed(kernel, name, form, call, bound)
            except torch.OutOfMemoryError:  # beside what the user has there; the call itself may fit
                _log.info("%s is not measured in %s: out of memory", name, form)
            except TooLargeError as error:
                _log.info("%s is not measured in %s: %s", name, form, error)
            except LaunchError:
                self.refuse(name, form)
            except StalledError as error:
                _log.warning("%s in %s: %s", name, form, error)
                self.refuse(name, form)
        for best in sorted(found, key=lambda form: found[form]):
            try:
                kernel.prove(best, name, call, bound)
            except LaunchError as error:
                _log.warning("%s", error)
                self.refuse(name, best)
                continue
            measured.remember(_key(kernel, name, call.batch, call.device), best, found[best])
            self._known.clear()
            break
        for form in tried:
            kernel.let_go(name, form)
        return found

    def tried(self, kernel: Kernel, name: str, batch: int, device: torch.device) -> list[Form]:
        """The forms that are measured: the most promising ones, and that with the vendor's products."""
        likely = self._candidates(kernel, name, batch, device)
        likely = [c for c in likely if (name, c.form) not in self._refused]
        near = [c for c in likely if c.cycles <= FACTOR * likely[0].cycles or c.form.stages]
        return _first(near, TRIED)

    def _candidates(self, kernel: Kernel, name: str, batch: int, device: torch.device) -> list[Candidate]:
        return candidates(kernel.layout, name, batch, kernel.factors, facts(device))


def _first(likely: Sequence[Candidate], count: int) -> list[Form]:
    """The first so many forms, and that with the vendor's products, which asks for least of the card."""
    few = list(likely[:count])
    return [c.form for c in few + [c for c in likely[count:] if c.form.stages]]


def _timed(kernel: Kernel, name: str, form: Form, call: Call, bound: Held) -> float:
    """The median microseconds of a step."""
    layout, steps, device = kernel.layout, min(STEPS, max(call.steps, 1)), call.device

    drawn = torch.Generator(device).manual_seed(0)  # the user's own stays where it is

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, generator=drawn)

    x = numbers(steps, call.batch, layout.of(layout.plan.input_size))
    masks = [torch.ones(steps, call.batch, layout.of(size), device=device) for _, size in layout.plan.masks]
    inputs = Inputs(x, None, None, False, masks)
    wanted = Wanted(True, True, [True] * len(bound.params))
    times: list[float] = []
    for _ in range(REPEATS + 2):
        with ALONE:
            torch.cuda.synchronize(device)  # nothing else runs beside it
        with kernel.taking(name, form) as spans:
            output, tape = bound.forward(inputs, name != "infer")
            if name == "backward":
                assert tape is not None
                grads = OutputGradients(numbers(*output.output.shape), [None] * len(output.finals))
                bound.backward(tape, inputs, output.output, grads, wanted)
        with ALONE:
            torch.cuda.synchronize(device)
        times.append(sum(begin.elapsed_time(end) for begin, end in spans) * 1e3 / steps)
    return median(times[2:])


def _key(kernel: Kernel, name: str, batch: int, device: torch.device) -> str:
    """What a measurement is filed under: the card, the versions, the renderer, the kernel, the size of batch to a power
    of two.
    """
    size = power_of_two(batch)
    card = facts(device)
    versions = torch.__version__, _triton_version(), _renderer()
    said = (card.name, card.programs, *versions, kernel.digest, kernel.factors, name, size)
    return f"{name} {size} {hashlib.sha256(repr(said).encode()).hexdigest()[:24]}"


@lru_cache(maxsize=1)
def _renderer() -> str:
    """Of what renders kernels and launches them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@lru_cache(maxsize=1)
def _triton_version() -> str:
    import triton  # pyright: ignore[reportMissingImports]

    return str(triton.__version__)
