"""What the tests of the task label share: small data whose answers are known, and runs that take a blink."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from ostinato.data import Sequences
from ostinato.tasks import train
from ostinato.tasks.label.config import LabelConfig
from ostinato.tasks.label.read import read_source
from ostinato.tasks.run import Run

RATE = 100  # samples a second of the pulses


def parity(path: Path, sequences: int = 60, seed: int = 0, longest: int = 8) -> Path:
    """Bits in columns, each with whether so many ones were odd up to here."""
    drawn = random.Random(seed)
    blocks: list[str] = []
    for _ in range(sequences):
        odd, lines = False, []
        for _ in range(drawn.randint(2, longest)):
            bit = drawn.choice("01")
            odd ^= bit == "1"
            lines.append(f"{bit}\t{'odd' if odd else 'even'}")
        blocks.append("\n".join(lines))
    path.write_text("\n\n".join(blocks) + "\n")
    return path


def pulses(path: Path, records: int = 6, seconds: int = 20, **arrays: np.ndarray) -> Path:
    """Noise with a spike wherever an event is; by record another distance between them."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {"fs": np.array(RATE)}
    for n in range(records):
        samples = seconds * RATE
        events = np.arange(30 + n, samples - 10, 55 + 7 * n)
        events = events + rng.integers(-4, 5, len(events))
        signal = 0.05 * rng.standard_normal(samples)
        signal[events] += 2.0 + rng.random(len(events))
        made |= {f"signal_r{n}": signal.astype(np.float32), f"events_r{n}": events}
    np.savez(path, **(made | arrays))  # pyright: ignore[reportArgumentType]
    return path


def rolls(path: Path, sequences: int = 12, keys: int = 88, steps: int = 9) -> Path:
    """Two keys that walk up together, from another key in each sequence."""
    frames = torch.zeros(sequences, steps, keys)
    for n in range(sequences):
        for t in range(steps):
            frames[n, t, [20 + n + t, 24 + n + t]] = 1.0
    held = Sequences.of(list(frames))
    np.savez(path, values=held.values.numpy(), lengths=held.lengths.numpy())
    return path


def jsonl(path: Path, *objects: object) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return path


def found(path: Path, **options: object):
    """What a file holds."""
    return read_source(str(path), LabelConfig.of(**options))


def small(data: Path, out: Path, **options: object) -> Run:
    """A run that takes a blink."""
    defaults = {
        "hidden_size": 8,
        "embedding_size": 4,
        "batch_size": 8,
        "log_every": 3,
        "seed": 3,
        "split_seed": 1,
        "evaluations": 1,
    }
    if "minutes" not in options:
        defaults["epochs"] = 1
    return train("label", data, out=out, **(defaults | options))
