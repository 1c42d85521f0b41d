"""A layer's arguments as plain values: for checkpoints, and for what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ProgramError
from ..ir import Program
from ..lang import Cell

if TYPE_CHECKING:
    from .rnn import RNN

# the arguments beside the cell and the sizes, with their defaults
PLAIN: dict[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "locked": False,
    "bidirectional": False,
    "backend": "auto",
    "merge": "concat",
    "connections": "plain",
    "lookahead": 0,
    "initial_state": "zeros",
    "stateful": False,
    "detach": False,
    "return_sequences": True,
    "return_states": False,
    "init": {},
    "sizes": {},
}


def spec_of(layer: RNN) -> dict[str, Any]:
    """The arguments of a layer in plain values, each cell as its Program."""
    programs = [cell.program() for cell in layer.cells]
    return {
        "program": _one([program.to_json() for program in programs]),
        "input_size": layer.input_size,
        "hidden_size": _one(layer.hidden_sizes),
        **{name: _plain(getattr(layer, name)) for name in PLAIN},
    }


def arguments_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `spec_of` wrote.

    Raises:
        ProgramError: a Program is damaged or of another version; an entry is missing or unknown.
    """
    if not isinstance(spec, Mapping):
        raise ProgramError(f"the spec of a layer is {type(spec).__name__}; give the dict that spec() wrote")
    arguments = dict(spec)
    needed = ("program", "input_size", "hidden_size")
    for name in needed:
        if name not in arguments:
            raise ProgramError(f"the spec of a layer has no {name!r}; write it with spec()")
    stray = [name for name in arguments if name not in needed and name not in PLAIN]
    if stray:
        raise ProgramError(
            f"the spec of a layer has {stray[0]!r}, which this version does not know; write it with spec(), and read "
            "it with the version that wrote it"
        )
    found = arguments.pop("program")
    if isinstance(found, list):
        return {"cell": [Cell.from_program(Program.from_json(program)) for program in found], **arguments}
    return {"cell": Cell.from_program(Program.from_json(found)), **arguments}


def shown(layer: RNN, own: Mapping[str, Any] | None = None) -> str:
    """What stands between the brackets of repr(layer): cell and sizes, and whatever is no default.

    Args:
        own: of a class that has its own cells, the arguments which say what cell it is, in the cell's place.
    """
    names = _one([cell.name for cell in layer.cells])
    parts = [f"[{', '.join(names)}]" if isinstance(names, list) else names] if own is None else []
    parts += [str(layer.input_size), str(_one(layer.hidden_sizes))]
    for name, default in PLAIN.items():
        value = _plain(getattr(layer, name))
        if value != default and (own is None or name != "sizes"):
            parts.append(f"{name}={value}")
    return ", ".join([*parts, *(f"{name}={value}" for name, value in (own or {}).items())])


def _plain(value: Any) -> Any:
    """JSON's types; a value for each layer as one if they are equal."""
    if isinstance(value, tuple):
        return _one(value)
    return dict(value) if isinstance(value, Mapping) else value


def _one(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else list(values)
