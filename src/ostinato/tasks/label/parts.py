"""Which sequences are for training, for validation and for the test."""

from __future__ import annotations

import torch
from torch import Tensor

from ...data import folds, split_rows
from ...errors import DataError, OptionError
from .config import LabelConfig
from .found import Found

__all__ = ["split"]


def split(config: LabelConfig, found: Found) -> dict[str, Tensor]:
    """Rows of "train", "validation" and "test"; the test part may be empty.

    Data that come in parts stay in them. Records go whole: those that are named, or drawn by the seed a quarter of all
    for the test and a sixth for validation. Else the shares and folds of `Split` hold.

    Raises:
        DataError: too few sequences, records that are not there, or none left to train on.
        OptionError: options that ask for parts in two ways.
    """
    named = config.events.test_records + config.events.validation_records
    if config.split.folds is not None and (found.parts is not None or named):
        other = "the data come in parts" if found.parts is not None else f"record {named[0]!r} is named for one"
        raise OptionError(f"folds is {config.split.folds}, but {other}; leave --folds out.")
    if found.parts is not None:
        rows = dict(found.parts)
    elif config.split.folds is not None:
        rows = _folded(config, found)
    elif found.kind == "events":
        rows = _records(config, found)
    else:
        rows = _shared(config, found)
    for part in ("train", "validation"):
        if not int(found.inputs.lengths[rows[part]].sum()):
            raise DataError(f"{found.name} leaves no steps for the {part} part of {len(found)} sequences; pass more.")
        if found.events is not None and not sum(len(found.events[row]) for row in rows[part].tolist()):
            raise DataError(f"{found.name} has no event in the {part} part; pass records in which some happen.")
    return rows


def _shared(config: LabelConfig, found: Found) -> dict[str, Tensor]:
    validation, test = config.split.validation, config.split.test
    parts = 3 if test else 2
    _check_count(found, parts)
    shares = (1.0 - validation - test, validation, test)[:parts]
    cut = split_rows(len(found), shares, config.split.split_seed)
    return {"train": cut[0], "validation": cut[1], "test": cut[2] if test else torch.zeros(0, dtype=torch.int64)}


def _folded(config: LabelConfig, found: Found) -> dict[str, Tensor]:
    assert config.split.folds is not None
    _check_count(found, 3)
    if config.split.fold is None:
        raise OptionError(
            f"folds is {config.split.folds}, and no fold is chosen; pass fold, or call ostinato.tasks.repeat."
        )
    rest, test = folds([0] * len(found), config.split.folds, config.split.split_seed)[config.split.fold]
    share = config.split.validation
    train, validation = (rest[rows] for rows in split_rows(len(rest), (1.0 - share, share), config.split.split_seed))
    return {"train": train, "validation": validation, "test": test}


def _records(config: LabelConfig, found: Found) -> dict[str, Tensor]:
    _check_count(found, 3)
    number = {name: n for n, name in enumerate(found.names)}
    asked = {"test": config.events.test_records, "validation": config.events.validation_records}
    for part, names in asked.items():
        for name in names:
            if name not in number:
                raise DataError(
                    f"{part}_records names {name!r}, which {found.name} does not hold; it has {', '.join(found.names)}."
                )
    both = set(asked["test"]) & set(asked["validation"])
    if both:
        raise DataError(f"record {min(both)} is asked for in the test part and for validation; name it once.")
    taken = {number[name] for names in asked.values() for name in names}
    generator = torch.Generator().manual_seed(config.split.split_seed)
    free = [n for n in torch.randperm(len(found), generator=generator).tolist() if n not in taken]
    rows: dict[str, Tensor] = {}
    for part, share in (("test", 4), ("validation", 6)):
        own = [number[name] for name in asked[part]]
        if not own:
            count = max(1, round(len(found) / share))
            own, free = free[:count], free[count:]
        rows[part] = torch.tensor(sorted(own), dtype=torch.int64)
    return {"train": torch.tensor(sorted(free), dtype=torch.int64), **rows}


def _check_count(found: Found, parts: int) -> None:
    if len(found) < parts:
        what = "records" if found.kind == "events" else "sequences"
        raise DataError(
            f"{found.name} has {len(found)} {what}, too few for {parts} parts; pass more, or cut them into several."
        )
