"""The data sets of the catalogue, read: one function each, under the name that it has there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .beats import Recording, read_beats
from .catalogue import fetch, find
from .decoding import decode, read_bytes
from .idx import read_idx
from .mat import load_mat
from .npz import load_npz
from .rolls import Rolls, read_rolls
from .series import Series, read_series
from .tables import Table, read_table
from .text import read_text
from .texts import Texts, read_lines, read_zipped_texts

__all__ = ["NAMED", "Digits", "Given", "load"]


@dataclass(frozen=True)
class Given:
    """Series with the split that their authors gave."""

    train: Series
    test: Series


@dataclass(frozen=True, eq=False)
class Digits:
    """Images `[N, height, width]` uint8 and labels `[N]` uint8, with the split that their authors gave."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(name: str, tell: Callable[[str], None] | None = None) -> Any:
    """A data set of the catalogue, fetched if need be, and read.

    Args:
        name: as in the catalogue.
        tell: called with a line before anything is downloaded.

    Returns:
        What it is read into: `str`, `Texts`, `Given`, `Digits`, `Rolls`, recordings, a `Table`, pairs, or arrays.

    Raises:
        DataError: an unknown name, or a data set that cannot be fetched or read.
    """
    entry = find(name)
    return NAMED[entry.name](fetch(entry, tell))


def _tinyshakespeare(paths: dict[str, Path]) -> str:
    return read_text(paths["tinyshakespeare.txt"])


def _surnames(paths: dict[str, Path]) -> Texts:
    """One file a language, each line of it a name."""
    lines = {path.stem: read_lines(path) for path in sorted(paths.values())}
    texts = [name for names in lines.values() for name in names]
    return Texts(texts, [language for language, names in lines.items() for _ in names], "surnames")


def _sentence_polarity(paths: dict[str, Path]) -> Texts:
    members = {word: f"sentence_polarity/rt-polarity.{word}" for word in ("neg", "pos")}
    return read_zipped_texts(paths["sentence_polarity.zip"], members, "latin-1")


def _japanese_vowels(paths: dict[str, Path]) -> Given:
    return Given(read_series(paths["JapaneseVowels_TRAIN.ts"]), read_series(paths["JapaneseVowels_TEST.ts"]))


def _mnist(paths: dict[str, Path]) -> Digits:
    parts = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return Digits(*(read_idx(paths[part]) for part in parts))


def _jsb_chorales(paths: dict[str, Path]) -> Rolls:
    return read_rolls(paths["JSB_Chorales.mat"])


def _mitbih(paths: dict[str, Path]) -> list[Recording]:
    return read_beats(paths["mitbih_12records_ecg_R_PVC.npz"])


def _table(paths: dict[str, Path]) -> Table:
    (path,) = paths.values()
    return read_table(path)


def _fra_eng(paths: dict[str, Path]) -> list[tuple[str, str]]:
    """English and French, in the order of the file."""
    found = read_zipped_texts(paths["fra-eng.zip"], {"": "fra.txt"})
    pairs = [tuple(line.split("\t")) for line in found.texts]
    return [(pair[0], pair[1]) for pair in pairs]


def _cmudict(paths: dict[str, Path]) -> list[tuple[str, str]]:
    """Words and phonemes; comments and the numbers of second pronunciations are left out."""
    text = decode(read_bytes(paths["cmudict.dict.gz"]), "cmudict.dict")
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        if word:
            pairs.append((word.partition("(")[0] or word, phonemes))
    return pairs


def _twemoji(paths: dict[str, Path]) -> dict[str, np.ndarray]:
    return load_npz(paths["twemoji_32px_names.npz"], ["images", "short_name"])


def _robot(paths: dict[str, Path]) -> dict[str, np.ndarray]:
    return load_mat(paths["pykalman_robot_SYNTHETIC.mat"])


NAMED: dict[str, Callable[[dict[str, Path]], Any]] = {
    "tinyshakespeare": _tinyshakespeare,
    "surnames": _surnames,
    "sentence_polarity": _sentence_polarity,
    "japanese_vowels": _japanese_vowels,
    "mnist": _mnist,
    "jsb_chorales": _jsb_chorales,
    "mitbih": _mitbih,
    "etth1": _table,
    "fra_eng": _fra_eng,
    "cmudict": _cmudict,
    "twemoji": _twemoji,
    "storms": _table,
    "robot": _robot,
}
"""Name to what reads its files."""
