"""Tokens with their tags: text in columns, and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ...data import Sequences, decode
from ...errors import DataError
from .config import LabelConfig
from .found import Found

__all__ = ["read_columns", "read_lines"]

_Row = tuple[list[str], list[Any] | None, list[int]]  # tokens, answers, lines


def read_columns(raw: bytes, name: str, config: LabelConfig) -> Found:
    """Text with a token and its tag on each line, and a blank line between sequences (as CoNLL has it).

    Columns stand apart by tabs, or else by blanks. A text without tags has one column.

    Raises:
        DataError: a line with another number of columns than the first, or a column that is not there.
    """
    options = config.steps
    text = decode(raw, name, config.label.encoding)
    rows: list[_Row] = []
    first: tuple[int, int] | None = None  # its columns and its number
    tokens: list[str] = []
    tags: list[Any] = []
    lines: list[int] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if not line.strip():
            if tokens:
                rows.append((tokens, tags if first is not None and first[0] > 1 else None, lines))
                tokens, tags, lines = [], [], []
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        if first is None:
            first = (len(cells), number)
            for what, column in (("token_column", options.token_column), ("tag_column", options.tag_column)):
                if (column > len(cells) or -column > len(cells)) and len(cells) > 1:
                    raise DataError(f"{name}, line {number} has {len(cells)} columns, but {what} is {column}.")
        if len(cells) != first[0]:
            raise DataError(
                f"{name}, line {number} has {len(cells)} columns, but line {first[1]} has {first[0]}; each token needs "
                "its tag. Complete the line, or put one sign between columns."
            )
        tokens.append(cells[_from_0(options.token_column) if len(cells) > 1 else 0].strip())
        tags.append(cells[_from_0(options.tag_column)].strip() if len(cells) > 1 else None)
        lines.append(number)
    return _found(name, "tags", rows)


def _from_0(column: int) -> int:
    return column - 1 if column > 0 else column


def read_lines(raw: bytes, name: str, config: LabelConfig) -> Found:
    """JSON lines, an object for each sequence: a list of tokens and a list of tags, or of lists of tags.

        {"tokens": ["a", "b"], "tags": ["X", "Y"]}
        {"tokens": ["a", "b"], "tags": [["X"], ["X", "Y"]]}

    Raises:
        DataError: a line that is no such object, or whose tokens and tags are not equally many.
    """
    rows = list(_objects(decode(raw, name, config.label.encoding), name, config))
    answers = [tags for _, tags, _ in rows if tags]
    several = bool(answers) and isinstance(answers[0][0], list)
    for _, tags, lines in rows:
        for tag in tags or ():
            if isinstance(tag, list) != several or not all(
                isinstance(t, str | int) for t in (tag if several else [tag])
            ):
                raise DataError(
                    f"{name}, line {lines[0]}: a tag is {tag!r}; pass a text at every step of every sequence, or a "
                    "list of texts at every one."
                )
    return _found(name, "multi" if several else "tags", rows)


def _objects(text: str, name: str, config: LabelConfig) -> Iterator[_Row]:
    tokens_field, tags_field = config.steps.tokens_field, config.steps.tags_field
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where} is no JSON: {error}; pass one object a line.") from None
        if not isinstance(value, dict) or not isinstance(value.get(tokens_field), list):
            raise DataError(f"{where} has no list {tokens_field!r}; name the tokens' field by --tokens-field.")
        tokens, tags = value[tokens_field], value.get(tags_field)
        if tags is not None and not isinstance(tags, list):
            raise DataError(f"{where}: {tags_field!r} is no list; pass one tag for each token.")
        if tags is not None and len(tags) != len(tokens):
            raise DataError(f"{where} has {len(tokens)} tokens and {len(tags)} tags; pass one tag for each token.")
        for token in tokens:
            if not isinstance(token, str | int):
                raise DataError(f"{where}: a token is {token!r}; pass texts (numbers that are measured go as .npz).")
        yield [str(token) for token in tokens], tags, [number] * len(tokens)


def _found(name: str, kind: str, rows: Sequence[_Row]) -> Found:
    if not any(tokens for tokens, _, _ in rows):
        raise DataError(f"{name} holds no tokens; pass sequences of one or more.")
    words, inputs = _numbered([tokens for tokens, _, _ in rows])
    places = torch.tensor([line for _, _, lines in rows for line in lines])
    given = [tags is not None for _, tags, _ in rows]
    if not any(given):
        return Found(kind, name, inputs, words, places=places)
    if not all(given):
        line = next(lines[0] for _, tags, lines in rows if tags is None and lines)
        raise DataError(f"{name}, line {line}: this sequence has no tags, others have; give tags to all or none.")
    if kind == "tags":
        labels, answers = _numbered([[str(tag) for tag in tags or ()] for _, tags, _ in rows])
    else:
        labels, answers = _several([[[str(t) for t in tag] for tag in tags or ()] for _, tags, _ in rows], inputs)
    return Found(kind, name, inputs, words, answers, labels, places)


def _numbered(sequences: Sequence[Sequence[str]]) -> tuple[list[str], Sequences]:
    """All texts, sorted, and the sequences by their numbers."""
    texts = sorted({text for sequence in sequences for text in sequence})
    number = {text: n for n, text in enumerate(texts)}
    return texts, Sequences.of([torch.tensor([number[t] for t in one], dtype=torch.int64) for one in sequences])


def _several(sequences: list[list[list[str]]], inputs: Sequences) -> tuple[list[str], Sequences]:
    """All labels, sorted, and a 1 for each that holds, [S, K]."""
    labels = sorted({label for sequence in sequences for tag in sequence for label in tag})
    if not labels:
        raise DataError("every list of tags is empty; there is nothing to learn.")
    number = {label: n for n, label in enumerate(labels)}
    values = torch.zeros(len(inputs.values), len(labels))
    steps = (tag for sequence in sequences for tag in sequence)
    for step, tag in enumerate(steps):
        values[step, [number[label] for label in tag]] = 1.0
    return labels, Sequences(values, inputs.lengths)
