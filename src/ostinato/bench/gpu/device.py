"""What a process at the device does: compile the kernels of a case, or measure it, checked first."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...ir import size_value
from ..measure.crew import BROKEN
from ..measure.timing import Samples
from ..peers.ours import Ours, build_ours, rounding
from ..peers.torch_nn import build_torch_module
from ..task.cells import cell_named, extra_sizes
from ..task.contest import Problem, difference, distances
from ..task.forms import FORMS, Form
from .clock import METHOD, Clock, DeviceClock, HostClock, ceilings, interleave, no_tf32
from .grid import Case
from .ours import compile_form, form_of, need_of
from .vendor import ran_by

__all__ = ["CEILINGS", "compiled", "measured"]

CEILINGS = "ceilings"  # the task that measures them
FLUSH = "OSTINATO_BENCH_FLUSH"  # 1: empty the second-level cache before each sample
TUNE = "OSTINATO_TUNE"  # when the backend measures forms
FORM = {"float32": FORMS["plain"], "bfloat16": FORMS["bfloat16"]}
EXACT = Form("float64", torch.float64)


def compiled(task: tuple[Case, bool, int]) -> str:
    """Run the kernels of a case over a few steps, so that Triton's cache on the disk holds them; the form they have.

    task: the case; whether it is a rehearsal; the number of the form, 0 for that which the model chooses.
    """
    case, rehearse, number = task
    os.environ[TUNE] = "0"  # other processes use the GPU meanwhile
    try:
        ours = build_ours(drawn(case, place(rehearse)), "triton", pass_=case.pass_, form=FORM[case.dtype])
        with torch.set_grad_enabled(case.pass_ == "train"):
            if number:
                compile_form(ours, case, number)
            else:
                ours.contestant.call(case.pass_)()
        clock_for(rehearse).settle()
        return form_of(ours, case)
    finally:
        free()


def measured(task: tuple[Case | str, bool]) -> dict[str, Any]:
    """A case's columns: what ours takes and each peer, and what ours would have to do at least."""
    case, rehearse = task
    clock = clock_for(rehearse)
    try:
        with no_tf32() as switches:
            if isinstance(case, str):
                rates = ceilings(clock, place(rehearse), small=rehearse)
                method = METHOD.format(clock=clock.name, cache=clock.cache)
                return {"ceilings": rates, "method": method, "switches_before": switches}
            return _measured(case, place(rehearse), clock)
    finally:
        free()


def place(rehearse: bool) -> torch.device:
    """Where tensors are."""
    return torch.device("cpu" if rehearse else "cuda:0")


def clock_for(rehearse: bool) -> Clock:
    """What time is read from."""
    return HostClock() if rehearse else DeviceClock(place(False), os.environ.get(FLUSH) == "1")


def free() -> None:
    """Give memory back, which what comes next may want in other pieces."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def drawn(case: Case, device: torch.device) -> Problem:
    """Numbers drawn where they are needed, the same for the same case."""
    shape, program = case.shape, cell_named(case.cell).program()
    numbers = {"D": shape.D, "H": shape.H, **extra_sizes(program, shape.H)}
    generator = torch.Generator(device).manual_seed(0)
    widths = (size_value(size, numbers) for size in (program.input_size, program.output_size))
    x, grad = (torch.randn(shape.T, shape.B, width, generator=generator, device=device) for width in widths)
    return Problem(case.cell, shape, x, grad, torch.full((shape.B,), shape.T))


def _measured(case: Case, device: torch.device, clock: Clock) -> dict[str, Any]:
    with torch.set_grad_enabled(case.pass_ == "train"):
        os.environ[TUNE] = "1" if case.tuned else "0"  # at the first call, or never: not in the middle of a sample
        problem, form = drawn(case, device), FORM[case.dtype]
        ours = build_ours(problem, "triton", pass_=case.pass_, form=form)
        expected = ours.contestant.outcome(case.pass_)
        need = need_of(ours, case)
        row: dict[str, Any] = {"form": form_of(ours, case), "tuned": case.tuned, "peers": {}, **need._asdict()}
        calls: dict[str, Callable[[], object]] = {"ours": ours.contestant.call(case.pass_)}
        for name in case.peers:
            try:
                peer = PEERS[name](problem, ours, case)
                wrong = peer.wrong(case, ours, expected)
            except RuntimeError as error:  # out of memory, not there, not possible: ours has a time all the same
                if any(sign in str(error) for sign in BROKEN):
                    raise
                row["peers"][name] = {"ms": None, "ratio": None, "error": str(error).partition("\n")[0]}
                free()
                continue
            row["peers"][name] = {"ms": None, "ratio": None, "error": wrong, "by": peer.by}
            if wrong is None:
                calls[name] = peer.call
                row["peers"][name]["scale"] = peer.scale
        del expected
        samples = interleave(calls, clock)
    return row | _columns(row, samples)


def _columns(row: Mapping[str, Any], samples: Mapping[str, Samples]) -> dict[str, Any]:
    own = samples["ours"]
    for name, found in row["peers"].items():
        if name in samples:
            ms, scale = samples[name].median, found.pop("scale")
            ratio = None if scale is None else ms * scale / own.median
            found |= {"ms": ms, "ratio": ratio, "spread": samples[name].spread, "samples": len(samples[name].values)}
    counts = {"samples": len(own.values), "calls": own.inner}
    return {"ms": own.median, "ms_min": own.least, "spread": own.spread, **counts}


class Unfit(RuntimeError):
    """A peer that cannot be had here, and why."""


@dataclass(frozen=True)
class Peer:
    """Somebody to be timed beside ours.

    Args:
        call: does the pass once.
        outcome: what it gives; None where it does other work than ours.
        exact: the same in float64, asked for where the numbers differ more than is usual.
        scale: what its time is multiplied by before it is held against ours; None: there is nothing to compare.
        by: whose kernels it runs, where that is not plain.
    """

    call: Callable[[], object]
    outcome: Callable[[], Mapping[str, Tensor]] | None
    exact: Callable[[], Mapping[str, Tensor]] | None = None
    scale: float | None = 1.0
    by: str | None = None

    def wrong(self, case: Case, ours: Ours, expected: Mapping[str, Tensor]) -> str | None:
        """Why its numbers are not ours, or None. What is wrong has no speed."""
        if self.outcome is None:
            return None
        found, tolerance = self.outcome(), ours.form.tolerance
        wrong = difference(expected, found, tolerance)
        if wrong is None:
            return None
        usual = distances(found, self.exact()) if self.exact else rounding(ours, case.pass_)
        return difference(expected, found, tolerance, usual)


def _cudnn(problem: Problem, ours: Ours, case: Case) -> Peer:
    """torch.nn's module with our weights: cuDNN's kernels on a GPU."""
    module = build_torch_module(problem, ours.weights, ours.form)

    def exact() -> Mapping[str, Tensor]:
        return build_torch_module(problem, ours.weights, EXACT).outcome(case.pass_)

    by = ran_by(module)
    return Peer(module.call(case.pass_), lambda: module.outcome(case.pass_), exact, by=by)


def _eager(problem: Problem, ours: Ours, case: Case) -> Peer:
    """Our own equations, one torch operation after another."""
    eager = build_ours(problem, "eager", pass_=case.pass_, form=ours.form).contestant
    return Peer(eager.call(case.pass_), lambda: eager.outcome(case.pass_))


def _graph(problem: Problem, ours: Ours, case: Case) -> Peer:
    """The same, the whole sequence recorded once and replayed."""
    if problem.x.device.type != "cuda":
        raise Unfit("there are no CUDA graphs on a CPU")
    eager = build_ours(problem, "eager", pass_=case.pass_, form=ours.form).contestant
    try:
        graph = Recorded(eager, case.pass_)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Unfit(f"it could not be recorded: {str(error).partition(chr(10))[0]}") from error
    masks = bool(ours.program.masks)  # a replay draws others
    return Peer(graph.replay, None if masks else graph.outcome)


def _lstm(problem: Problem, ours: Ours, case: Case) -> Peer:
    """Our lstm at the same shape; the ratio is of times per operation in products."""
    beside = Case(case.stage, "lstm", case.shape, case.dtype, case.pass_, ())
    lstm = build_ours(drawn(beside, problem.x.device), "triton", pass_=case.pass_, form=ours.form)
    own, other = ours.work(case.pass_).flops, lstm.work(case.pass_).flops
    return Peer(lstm.contestant.call(case.pass_), None, scale=own / other if own else None)


PEERS: Mapping[str, Callable[[Problem, Ours, Case], Peer]] = {
    "cudnn": _cudnn,
    "eager": _eager,
    "eager, graph": _graph,
    "lstm": _lstm,
}


class Recorded:
    """A contestant's pass as a CUDA graph."""

    def __init__(self, contestant: Any, pass_: str) -> None:
        self.contestant, self.pass_ = contestant, pass_
        call = contestant.call(pass_)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        for leaf in (contestant.x, *contestant.parameters):
            leaf.grad = None  # so that the graph's own memory takes them
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = call()

    def replay(self) -> None:
        """Do it again."""
        self.graph.replay()

    def outcome(self) -> dict[str, Tensor]:
        """What a replay gives, under the names that contestants share."""
        self.replay()
        found = {"output": self.output.detach().float().clone()}
        if self.pass_ == "train":
            found["dx"] = self.contestant.x.grad.float().clone()
            found |= {f"d {name}": grad.float().clone() for name, grad in self.contestant.gradients().items()}
        return found
