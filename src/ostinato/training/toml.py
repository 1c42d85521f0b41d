"""A config as a TOML file, with what each option means beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeVar

from ..errors import OptionError
from .options import Config, declared

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

__all__ = ["read_toml", "to_toml"]

C = TypeVar("C", bound=Config)


def to_toml(config: Config, task: str) -> str:
    """A config as TOML: a table for each group, a comment above each option; what is not set is commented out.

    Args:
        config: the config.
        task: its task, which the file names, so that it is not read for another.
    """
    lines = [f"task = {_written(task)}"]
    values = config.values()
    group = ""
    for place in declared(type(config)):
        if place.group != group:
            group = place.group
            lines += ["", f"[{group}]"]
        value = values[place.name]
        lines.append(f"# {place.option.help} Default: {place.told}.")
        lines.append(f"# {place.name} =" if value is None else f"{place.name} = {_written(value)}")
    return "\n".join(lines) + "\n"


def read_toml(path: Path, kind: type[C], task: str) -> dict[str, Any]:
    """The options that a TOML file sets, by their names.

    Args:
        path: the file: a table for each group of `kind`, as `to_toml` writes it; any of them may be left out.
        kind: the config they are for.
        task: its task.

    Raises:
        OptionError: no such file, no TOML, another task's, an option that there is not or that stands in another group.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionError(f"there is no file {path} (looked from {Path.cwd()}); check --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read: {error}; check --config.") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path} is no TOML: {error}.") from None
    if document.pop("task", task) != task:
        raise OptionError(f"{path} is the config of another task; this is {task}.")
    places = {place.name: place for place in declared(kind)}
    found: dict[str, Any] = {}
    for group, entries in document.items():
        if not isinstance(entries, dict):
            home = f"; write it under [{places[group].group}]" if group in places else ""
            raise OptionError(f"{path} sets {group!r} outside of any table{home}.")
        for name, value in entries.items():
            if name not in places:
                raise OptionError(f"{path} sets {name!r} in [{group}], and {task} has no such option.")
            if places[name].group != group:
                raise OptionError(f"{path} sets {name!r} in [{group}]; write it under [{places[name].group}].")
            found[name] = value
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the one control character that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    return repr(value)
