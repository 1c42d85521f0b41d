"""From a data argument to examples: tables, folders, arrays, images, data sets by name, pipes."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Literal, cast

import torch
from torch import Tensor

from ...data import (
    Digits,
    Given,
    Series,
    Source,
    Table,
    Texts,
    load,
    name_of,
    read_bytes,
    read_idx,
    read_lines,
    read_series,
    read_table,
    read_texts,
)
from ...data.tables import FORMATS, format_of_bytes
from ...errors import DataError, OptionError
from .config import ClassifyData
from .examples import Examples

__all__ = ["NAMES", "read_examples", "read_own"]

NAMES = ("surnames", "sentence_polarity", "japanese_vowels", "mnist")
"""The data sets of the catalogue that have labels."""

_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def read_own(options: ClassifyData) -> tuple[Examples, Examples | None]:
    """The labelled sequences that the options name, and those that are the test part, where they are given apart.

    A file NAME_TRAIN.ts has its test part beside it in NAME_TEST.ts, if that is there; images of MNIST's names have it
    in t10k.

    Raises:
        DataError: no data, or such as cannot be used.
    """
    if options.data is None:
        raise OptionError(f"there are no data; pass a file, a folder or one of {', '.join(NAMES)}.")
    test = None
    if not os.path.exists(options.data):
        if options.data not in NAMES:
            raise DataError(
                f"there is no file or folder {options.data} (looked from {Path.cwd()}), and no labelled data set of "
                f"that name; check it, or pass one of {', '.join(NAMES)}."
            )
        examples, test = _by_name(options.data)
    else:
        examples = read_examples(options.data, options, labelled=True)
        beside = _test_beside(Path(options.data))
        if beside is not None and options.test_data is None:
            test = read_examples(str(beside), options, labelled=True, like=examples)
    if options.test_data is not None:
        test = read_examples(options.test_data, options, labelled=True, like=examples)
    return examples, test


def read_examples(
    source: Source, options: ClassifyData, *, labelled: bool = False, like: Examples | None = None
) -> Examples:
    """The sequences of a file, a folder or a pipe.

    Args:
        source: a path, or an open stream: texts as a table or as lines, numbers as a table of steps.
        options: names of columns and the like.
        labelled: whether there must be labels; else they are read where there are some.
        like: of which kind, and with which channels; None: as the file says.

    Raises:
        DataError: what cannot be read, or is of another kind.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise DataError(f"there is no file or folder {path} (looked from {Path.cwd()}); check the name.")
        found = _from_path(path, options, labelled, like)
    else:
        found = _from_stream(source, options, labelled, like)
    if like is not None and found.kind != like.kind:
        raise DataError(
            f"{found.name} holds {found.kind}, but {like.name} holds {like.kind}; pass data of the same kind."
        )
    return found.checked()


def _by_name(name: str) -> tuple[Examples, Examples | None]:
    found = load(name)
    if isinstance(found, Given):
        return _of_series(found.train, name), _of_series(found.test, f"the test part of {name}")
    if isinstance(found, Digits):
        train = _of_images(found.train_images, found.train_labels, name)
        return train, _of_images(found.test_images, found.test_labels, f"the test part of {name}")
    return _of_texts(dataclasses.replace(cast(Texts, found), name=name)), None


def _from_path(path: Path, options: ClassifyData, labelled: bool, like: Examples | None) -> Examples:
    if path.is_dir():
        images = sorted(path.glob(f"*{_IMAGES}*"))
        if not images:
            return _of_texts(read_texts(path, encoding=options.encoding))
        train = [each for each in images if not each.name.startswith("t10k")]
        if len(train) != 1:
            raise DataError(f"{path} holds {len(train)} files of images (*{_IMAGES}) to train on; pass one of them.")
        return _images(train[0])
    if _IMAGES in path.name:
        return _images(path)
    ending = path.suffix.lower()
    if ending in (".npz", ".ts"):
        return _of_series(read_series(path, missing=_missing(options)), str(path))
    if ending == ".txt":
        lines = read_lines(path, options.encoding)
        return Examples(str(path), lambda n: f"{path}, text {n + 1}", texts=lines)
    if PurePath(path.stem if ending == ".gz" else path).suffix.lower() not in FORMATS:
        raise DataError(
            f"{path} does not end in {', '.join(FORMATS)}, .npz, .ts or .txt, and is not called *{_IMAGES}; pass one "
            "of these, or a folder with a folder or a text file for each class."
        )
    table = read_table(path, encoding=options.encoding)
    return _of_table(table, lambda: path, None, options, labelled, like)


def _from_stream(source: Source, options: ClassifyData, labelled: bool, like: Examples | None) -> Examples:
    """A pipe has no name that says what it holds: what it begins with does."""
    raw = read_bytes(source)
    name = name_of(source)
    if like is None or like.kind == "images" or raw[:4] == b"PK\3\4":
        raise DataError(f"{name} can be a table or lines of text, no more; write images and arrays into a file.")

    def stream() -> Source:
        again = io.BytesIO(raw)
        again.name = name  # pyright: ignore[reportAttributeAccessIssue] - what errors call it
        return again

    format = format_of_bytes(raw)
    first = raw.lstrip().partition(b"\n")[0].decode("utf-8", "replace")
    head = [cell.strip().strip('"') for cell in first.split("\t" if format == "tsv" else ",")]
    columns = {options.text_column, options.label_column, options.id_column}
    if like.kind == "texts" and not labelled and format in ("csv", "tsv") and not columns & {*head}:
        lines = read_lines(stream(), options.encoding)
        return Examples(name, lambda n: f"{name}, text {n + 1}", texts=lines)
    table = read_table(stream(), format=format, encoding=options.encoding)
    return _of_table(table, stream, format, options, labelled, like)


def _of_table(
    table: Table,
    again: Callable[[], Source],
    format: str | None,
    options: ClassifyData,
    labelled: bool,
    like: Examples | None,
) -> Examples:
    """A table of texts, or one of steps, for which its source is read again."""
    columns = table.columns
    label = options.label_column if labelled or options.label_column in columns else None
    texts = options.text_column in columns if like is None else like.kind == "texts"
    if texts:
        return Examples(
            table.name,
            table.at,
            texts=table.texts(options.text_column),
            labels=None if label is None else table.texts(label, empty=False),
            names=table.texts(options.id_column) if options.id_column in columns else None,
        )
    if options.id_column not in columns:
        one = f"{options.text_column!r} with texts (--text-column), or "
        raise DataError(
            f"{table.name} has no column {one if like is None else ''}{options.id_column!r} that says whose step a row "
            f"is (--id-column); it has {', '.join(map(repr, columns))}."
        )
    if label is not None:
        table.need(label)
    channels = list(options.value_column) or (like.channels if like is not None else None)
    for column in channels or ():
        table.need(column)
    series = read_series(
        again(),
        missing=_missing(options),
        id=options.id_column,
        label=label,
        time=options.time_column,
        values=channels,
        format=format,
    )
    return _of_series(series, table.name)


def _missing(options: ClassifyData) -> Literal["refuse", "interpolate"]:
    return "interpolate" if options.missing == "interpolate" else "refuse"


def _of_texts(found: Texts) -> Examples:
    def place(n: int) -> str:
        return f"{found.name}, text {n + 1}" if found.labels is None else f"{found.name}, {found.labels[n]}, a text"

    return Examples(found.name, place, texts=found.texts, labels=found.labels)


def _of_series(found: Series, name: str) -> Examples:
    def place(n: int) -> str:
        return f"{name}, sequence {n + 1 if found.names is None else repr(found.names[n])}"

    return Examples(name, place, series=found.values, labels=found.labels, names=found.names, channels=found.channels)


def _of_images(images: Tensor, labels: Tensor | None, name: str) -> Examples:
    words = None if labels is None else [str(label) for label in labels.tolist()]
    return Examples(name, lambda n: f"{name}, image {n + 1}", images=images, labels=words)


def _images(path: Path) -> Examples:
    """A file of images, and of their labels if it lies beside it."""
    images = read_idx(path)
    beside = path.with_name(path.name.replace(_IMAGES, _LABELS))
    labels = read_idx(beside) if beside.exists() else None
    if images.dim() != 3:
        raise DataError(f"{path} is of shape {list(images.shape)}; images are [N, height, width].")
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{beside} has {list(labels.shape)} labels for {len(images)} images; pass one for each.")
    return _of_images(images, None if labels is None else labels.to(torch.int64), str(path))


def _test_beside(path: Path) -> Path | None:
    """Where the test part lies, if the names say so."""
    if path.is_dir():
        found = sorted(path.glob(f"t10k*{_IMAGES}*"))
        return found[0] if found else None
    for mine, theirs in (("_TRAIN.ts", "_TEST.ts"), (f"train-{_IMAGES}", f"t10k-{_IMAGES}")):
        if mine in path.name:
            beside = path.with_name(path.name.replace(mine, theirs))
            return beside if beside.exists() else None
    return None
