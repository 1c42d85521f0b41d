"""Compare thousands of cells drawn at random with eager; the command is `scripts/fuzz`.

A failure is shrunk, and printed as the source of a cell with the command that replays it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

SHRINKS = 200  # programs tried to make a failure smaller
FORMS = ("whole", "stages", "meeting", "first-late", "others-late")  # of Triton's kernels; the last three meet


@dataclass(frozen=True)
class Outcome:
    """One program: its number, its text, what was wrong, or why it was refused."""

    number: int
    source: str
    wrong: tuple[str, ...] = ()
    refused: str = ""
    compared: int = 0

    def replay(self, seed: str, backend: str) -> str:
        """The command that runs this program again, and shrinks it."""
        return f"replay: scripts/fuzz --seed {seed} --only {self.number} --backend {backend}"


def numbered(seed: str, number: int, backend: str, dtypes: Sequence[str]) -> Outcome:
    """Compare the program that has this number among those of a seed."""
    return check(random.Random(f"{seed}:{number}"), backend, dtypes, number)


def check(picks: Sequence[int] | random.Random, backend: str, dtypes: Sequence[str], number: int = 0) -> Outcome:
    """Draw a program and compare it; `picks` are its choices, or where they come from."""
    import torch

    from agreement import compare
    from programs import draw

    drawn = draw(picks.randrange if isinstance(picks, random.Random) else replay(picks))
    name, _, form = backend.partition(":")
    try:
        with dealt_as(form) if name == "triton" else contextlib.nullcontext():
            verdict = compare(drawn, name, [getattr(torch, d) for d in dtypes])
    except Exception as error:  # noqa: BLE001 - any exception is a finding
        return Outcome(number, drawn.source, (f"{type(error).__name__}: {error}",))
    return Outcome(number, drawn.source, tuple(verdict.wrong), verdict.refused, verdict.compared)


@contextlib.contextmanager
def dealt_as(form: str):
    """Within, the Triton backend's kernels are of this form, or as it deals them; `FORMS` says which there are."""
    from device_laws import dealt, quiet
    from interpreted import late
    from ostinato.backends.triton import Form

    forms = {"": None, "whole": Form(batch=16), "stages": Form(batch=16, stages=True)}
    behind = {"first-late": lambda part: part == 0, "others-late": lambda part: part > 0}
    with dealt(forms.get(form, Form(slices=2, splits=2))), late(behind.get(form, lambda part: False)), quiet():
        yield


def replay(picks: Sequence[int]):
    """Choices from a list; the simplest once it is used up."""
    rest = iter(picks)
    return lambda n: min(next(rest, 0), n - 1)


def recorded(source: random.Random, picks: list[int]):
    """Choices from `source`, written down."""

    def pick(n: int) -> int:
        picks.append(source.randrange(n))
        return picks[-1]

    return pick


def shrink(seed: str, backend: str, dtypes: Sequence[str]) -> Outcome:
    """The smallest program found that fails in the same way."""
    from programs import draw

    picks: list[int] = []
    draw(recorded(random.Random(seed), picks))
    best, tried = check(picks, backend, dtypes), 0
    kind = way(best)
    size = max(1, len(picks) // 2)
    while size and tried < SHRINKS:
        improved = False
        for start in range(0, len(picks), size):
            for change in ([], [0] * size):  # leave choices out, or make them the simplest
                candidate = picks[:start] + change + picks[start + size :]
                if len(candidate) >= len(picks) and sum(candidate) >= sum(picks):
                    continue
                tried += 1
                found = check(candidate, backend, dtypes)
                if way(found) == kind and len(found.source) <= len(best.source):
                    picks, best, improved = candidate, found, True
                    break
            if tried >= SHRINKS:
                break
        if not improved:
            size //= 2
    return best


def way(outcome: Outcome) -> tuple[str, ...]:
    """How a program fails: the kind of result that is off in the first run, numbers left out."""
    first = [re.sub(r"\d+|_l\d.*", "", line.split(":")[0]) for line in outcome.wrong[:2]]
    return tuple(first[-1:])


def run_one(job: tuple[str, int, str, tuple[str, ...]]) -> Outcome:
    """A program of the campaign, by its number."""
    return numbered(*job)


def outcomes(jobs: Sequence[tuple[str, int, str, tuple[str, ...]]], workers: int) -> Iterator[Outcome]:
    """Every program's outcome, in order."""
    if workers == 1:
        yield from map(run_one, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_one, jobs, chunksize=4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Compare random cells with eager, through a backend."
    )
    parser.add_argument("--count", type=int, default=1000, help="programs (default 1000)")
    parser.add_argument("--seed", default="0", help="any text (default 0)")
    parser.add_argument("--only", type=int, help="this program of the seed alone, shrunk if it fails")
    parser.add_argument(
        "--backend",
        default="c",
        help=f"compared with eager: c (default), or triton, interpreted: triton:FORM, of {', '.join(FORMS)}",
    )
    parser.add_argument("--dtype", action="append", choices=("float32", "float64"), help="default: both")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--show", action="store_true", help="print every program")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.jobs < 1:
        parser.error("--count and --jobs are at least 1")
    triton = options.backend.startswith("triton")
    if options.backend not in ("c", "triton", *(f"triton:{form}" for form in FORMS)):
        parser.error(f"--backend {options.backend}: it is c, triton, or triton:FORM with one of {', '.join(FORMS)}")
    if triton:
        os.environ["TRITON_INTERPRET"] = "1"  # Triton asks for it once, when it is imported
    dtypes = tuple(options.dtype or (("float32",) if triton else ("float64", "float32")))
    numbers = range(options.count) if options.only is None else [options.only]
    jobs = [(options.seed, n, options.backend, dtypes) for n in numbers]
    started, failed, refusals, compared = time.monotonic(), [], {}, 0
    for done, outcome in enumerate(outcomes(jobs, options.jobs if len(jobs) > 1 else 1), 1):
        compared += outcome.compared
        if options.show:
            print(f"# program {outcome.number}\n{outcome.source}")
        if outcome.refused:
            refusals.setdefault(outcome.refused, outcome)
        if outcome.wrong:
            failed.append(outcome)
            print(f"\nprogram {outcome.number} of seed {options.seed} is wrong:\n\n{outcome.source}")
            print("\n".join(outcome.wrong))
            print(f"\n{outcome.replay(options.seed, options.backend)}", flush=True)
        elif sys.stderr.isatty() or done % 100 == 0:
            rate = done / (time.monotonic() - started)
            print(
                f"{done} of {len(jobs)} programs, {rate:.1f} a second, {len(failed)} wrong",
                file=sys.stderr,
                flush=True,
            )
    if options.only is not None and failed:
        small = shrink(f"{options.seed}:{options.only}", options.backend, dtypes)
        print(f"\nthe smallest that fails:\n\n{small.source}")
        print("\n".join(small.wrong))
    for reason, outcome in refusals.items():
        print(f"\nrefused: {reason}\nas in program {outcome.number}:\n\n{outcome.source}")
    print(f"{len(jobs)} programs, {compared} runs compared: {len(failed)} wrong")
    return 0 if compared and not failed else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
