"""Options: what a run may be told, each declared once.

A config is a frozen dataclass whose fields are groups; a group is a frozen dataclass whose fields are options. From
one declaration come the check of its value, its place in `--help`, its line in a TOML file and its keyword in Python.
This file imports no torch, so that the command line's help is quick.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import OptionError, RunError

__all__ = ["Config", "Declared", "Group", "Option", "declared", "option"]


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its name, its type and its default.

    Args:
        help: one line for `--help`.
        low: the least value that is allowed.
        above: every value must be greater than this.
        below: every value must be less than this.
        high: the greatest value that is allowed.
        choices: the words that are allowed.
        may_change: whether a resumed run may be given another value: it would still be the same run.
        shown: what `--help` says of the default where it is None or an empty list.
        instead_of: an option that this one takes the place of; it becomes None where this one is given.
        metavar: the form of a value, as `--help` shows it; None shows its type.
    """

    help: str
    low: float | None = None
    above: float | None = None
    below: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    may_change: bool = False
    shown: str | None = None
    instead_of: str | None = None
    metavar: str | None = None

    def remedy(self, value: Any) -> str | None:
        """What to pass instead of `value`, or None where it is allowed."""
        if self.choices is not None and value not in self.choices:
            return f"pass one of {', '.join(self.choices)}"
        numbers = [n for n in (self.low, self.above, self.below, self.high) if n is not None]
        if not numbers or value is None:
            return None
        fits = (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.high is None or value <= self.high)
        )
        return None if fits else f"pass {self._range()}"

    def _range(self) -> str:
        floor = None if self.low is None else f"{self.low:g} or more"
        floor = floor if self.above is None else f"a number above {self.above:g}"
        roof = None if self.below is None else f"less than {self.below:g}"
        roof = roof if self.high is None else f"at most {self.high:g}"
        return " and ".join(part for part in (floor, roof) if part)


def option(default: Any, help: str, **about: Any) -> Any:
    """A field of a group: its default and, as `Option` takes it, what is said of it."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **about)})


@dataclass(frozen=True)
class Declared:
    """An option where it stands: its name, its group's field and title, its types and default."""

    name: str
    group: str
    title: str
    kind: type  # of a value, or of each value of a list
    optional: bool  # None is a value
    many: bool  # a tuple of `kind`
    default: Any
    option: Option

    @property
    def told(self) -> str:
        """The default in words."""
        if self.default is None or self.default == ():
            return self.option.shown or "none"
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        return ", ".join(map(str, self.default)) if self.many else str(self.default)

    def read(self, value: Any) -> Any:
        """The value as the config holds it.

        Raises:
            OptionError: of another type.
        """
        if value is None and self.optional:
            return None
        if self.many:
            if isinstance(value, str) or not isinstance(value, list | tuple):
                raise OptionError(f"{self.name} is {value!r}; pass a list.")
            return tuple(self._one(each) for each in value)
        return self._one(value)

    def _one(self, value: Any) -> Any:
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool)):
            return value
        raise OptionError(f"{self.name} is {value!r}, {_WRITTEN.get(type(value), 'a value of another type')}; "
                       f"pass {_WRITTEN[self.kind]}.")  # fmt: skip


_WRITTEN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class Group:
    """The base of a group of options; the first line of a group's docstring is its title in `--help`.

    Raises:
        OptionError: a value of another type, or out of its range.
    """

    def __post_init__(self) -> None:
        for name, kind, optional, many, field in _fields(type(self)):
            about: Option = field.metadata["option"]
            place = Declared(name, "", "", kind, optional, many, field.default, about)
            given = getattr(self, name)
            value = place.read(given)
            object.__setattr__(self, name, value)  # a whole number where a number is asked for
            remedy = about.remedy(value)
            if remedy is not None:
                raise OptionError(f"{name} is {given!r}; {remedy}.")
        self.check()

    def check(self) -> None:
        """What several options say together; a group that has such a rule states it here.

        Raises:
            OptionError: they contradict each other.
        """


C = typing.TypeVar("C", bound="Config")


class Config:
    """The base of a config: each field is a group, and no two options of a config have the same name."""

    @classmethod
    def of(cls: type[C], **values: Any) -> C:
        """A config from options by their names, whatever group they stand in.

        Raises:
            OptionError: an option that there is not, a value out of its range, or values that contradict each other.
        """
        return _changed(cls(), values)

    def changed(self: C, values: dict[str, Any]) -> C:
        """This config with other values, as `of` takes them."""
        return _changed(self, values)

    def values(self) -> dict[str, Any]:
        """Every option by its name."""
        return {place.name: getattr(getattr(self, place.group), place.name) for place in declared(type(self))}

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Plain JSON values by groups, from which `from_json` makes an equal config."""
        groups: dict[str, dict[str, Any]] = {}
        for place in declared(type(self)):
            value = getattr(getattr(self, place.group), place.name)
            groups.setdefault(place.group, {})[place.name] = list(value) if place.many else value
        return groups

    @classmethod
    def from_json(cls: type[C], value: Any) -> C:
        """A config from what `to_json` gave.

        Raises:
            RunError: missing or unknown entries, or values of a wrong type.
        """
        expected = {place.name for place in declared(cls)}
        groups = value if isinstance(value, dict) else {}
        if not all(isinstance(group, dict) for group in groups.values()):
            groups = {}
        given = {name: entry for group in groups.values() for name, entry in group.items()}
        if given.keys() != expected:
            wrong = ", ".join(sorted(given.keys() ^ expected)[:5]) if given else "all of it"
            raise RunError(
                f"the config does not fit this version of Ostinato (differs in {wrong}); "
                f"use the version that wrote it, or begin another run."
            )
        return cls.of(**given)

    def resumed(self: C, changes: dict[str, Any]) -> C:
        """This config with what a resumed run may change.

        Raises:
            RunError: a change after which it would be another run.
        """
        places = {place.name: place for place in declared(type(self))}
        mine = self.values()
        for name, value in changes.items():
            if name in places and not places[name].option.may_change and places[name].read(value) != mine[name]:
                raise RunError(
                    f"the run was begun with {name} = {mine[name]!r}, got {value!r}; "
                    f"leave --{name.replace('_', '-')} out to resume it, or begin another run in another folder."
                )
        return self.changed(changes)


def declared(config: type[Config]) -> tuple[Declared, ...]:
    """Every option of a config, in the order of its groups."""
    return _declared(config)


@cache
def _declared(config: type[Config]) -> tuple[Declared, ...]:
    found: list[Declared] = []
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):  # pyright: ignore[reportArgumentType]
        group = hints[field.name]
        title = (group.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        default = field.default
        for name, kind, optional, many, inner in _fields(group):
            value = getattr(default, name)
            found.append(Declared(name, field.name, title, kind, optional, many, value, inner.metadata["option"]))
    return tuple(found)


@cache
def _fields(group: type[Group]) -> tuple[tuple[str, type, bool, bool, Any], ...]:
    """Name, type of a value, whether None is one, whether there are many, and the field, of each option."""
    hints = typing.get_type_hints(group)
    return tuple((f.name, *_kind(hints[f.name]), f) for f in _options(group))


def _options(group: type[Group]) -> Iterator[dataclasses.Field[Any]]:
    yield from dataclasses.fields(group)  # pyright: ignore[reportArgumentType]


def _kind(hint: Any) -> tuple[type, bool, bool]:
    if isinstance(hint, types.UnionType):
        plain = [each for each in typing.get_args(hint) if each is not type(None)]
        kind, _, many = _kind(plain[0])
        return kind, True, many
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], False, True
    return hint, False, False


def _changed(config: C, values: dict[str, Any]) -> C:
    places = {place.name: place for place in declared(type(config))}
    groups: dict[str, dict[str, Any]] = {}
    for name in values:
        if name not in places:
            raise OptionError(f"there is no option {name!r}{_near(name, list(places))}.")
    replaced = {places[name].option.instead_of: None for name, value in values.items() if value is not None}
    for name, value in ({other: None for other in replaced if other is not None} | values).items():
        groups.setdefault(places[name].group, {})[name] = value
    changed = {group: dataclasses.replace(getattr(config, group), **own) for group, own in groups.items()}
    return dataclasses.replace(config, **changed)  # pyright: ignore[reportArgumentType,reportReturnType,reportCallIssue]


def _near(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}" if close else f"; the options are {', '.join(names)}"
