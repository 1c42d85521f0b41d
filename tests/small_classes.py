"""Labelled sequences so plain that a small model learns them in a blink."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from ostinato.tasks.classify.config import ClassifyConfig
from ostinato.tasks.classify.data import Dataset

SMALL = {"hidden_size": 8, "embedding_size": 6, "batch_size": 8, "learning_rate": 0.02, "evaluations": 2, "seed": 3}


def words(count: int = 60) -> list[tuple[str, str]]:
    """Texts and labels: which sign a text holds says which of three classes it is of."""
    draw = random.Random(0)

    def noise(most: int) -> str:
        return "".join(draw.choice("xyz") for _ in range(draw.randint(0, most)))

    signs = ["q", "w", "e"]
    return [(f"x{noise(4)}{signs[n % 3]}{noise(3)}", f"c{n % 3}") for n in range(count)]


def text_table(folder: Path, rows: list[tuple[str, str]] | None = None, name: str = "texts.csv") -> Path:
    """A CSV of texts and labels."""
    path = folder / name
    lines = ["text,label", *(f"{text},{label}" for text, label in words() if rows is None)]
    lines += [f"{text},{label}" for text, label in rows or ()]
    path.write_text("\n".join(lines) + "\n")
    return path


def waves(count: int = 60, channels: int = 2) -> tuple[list[np.ndarray], list[str]]:
    """Ragged sequences [T, D] and labels: the last channel rises or falls."""
    draw = np.random.default_rng(0)
    found, labels = [], []
    for n in range(count):
        length = int(draw.integers(4, 9))
        slope = 1.0 if n % 2 else -1.0
        values = draw.normal(50.0, 20.0, (length, channels))
        values[:, -1] = 1000.0 + slope * np.arange(length) + 0.1 * draw.normal(size=length)
        found.append(values)
        labels.append("up" if n % 2 else "down")
    return found, labels


def wave_arrays(folder: Path, name: str = "waves.npz") -> Path:
    """An .npz of waves."""
    found, labels = waves()
    lengths = np.array([len(one) for one in found])
    np.savez(folder / name, values=np.concatenate(found), lengths=lengths, labels=np.array(labels))
    return folder / name


def wave_table(folder: Path, name: str = "waves.csv", labelled: bool = True) -> Path:
    """A long CSV of waves: a row for each step."""
    lines = ["id,a,b,label" if labelled else "id,a,b"]
    for n, (one, label) in enumerate(zip(*waves(), strict=True)):
        lines += [f"w{n},{a},{b},{label}" if labelled else f"w{n},{a},{b}" for a, b in one.tolist()]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def wave_ts(path: Path, rows: slice) -> Path:
    """A .ts file of some of the waves."""
    found, labels = waves()
    lines = ["@problemName waves", "@timeStamps false", "@dimensions 2", "@classLabel true up down", "@data"]
    for one, label in zip(found[rows], labels[rows], strict=True):
        lines.append(":".join([*(",".join(map(str, channel)) for channel in one.T.tolist()), label]))
    path.write_text("\n".join(lines) + "\n")
    return path


def idx_images(folder: Path, part: str, count: int) -> Path:
    """Images of 4 x 3 pixels and their labels as MNIST has them: class 1 is bright below, class 0 above."""
    images = np.random.default_rng(len(part)).integers(0, 60, (count, 4, 3)).astype(np.uint8)
    labels = (np.arange(count) % 2).astype(np.uint8)
    images[labels == 0, :2] += 150
    images[labels == 1, 2:] += 150
    for kind, magic, array in (("images-idx3", b"\0\0\x08\x03", images), ("labels-idx1", b"\0\0\x08\x01", labels)):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"{part}-{kind}-ubyte").write_bytes(magic + sizes + array.tobytes())
    return folder / f"{part}-images-idx3-ubyte"


def dataset(data: object, **options: object) -> Dataset:
    """What a run with these options reads."""
    return Dataset.read(ClassifyConfig.of(data=str(data), **options))
