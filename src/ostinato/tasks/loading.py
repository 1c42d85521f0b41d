"""From a checkpoint to what it holds. Nothing of the training is imported, so that a sample comes quickly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..data import Tokenizer, tokenizer_from_json
from ..errors import OstinatoError, RunError
from ..models import LanguageModel, Model, model_from_spec
from ..training.checkpoint import Checkpoint, find_checkpoint, read_checkpoint

__all__ = ["any_model", "build_model", "check_same_data", "load_model", "read_entry"]

T = TypeVar("T")
M = TypeVar("M", bound=Model)


def load_model(
    run: str | Path, checkpoint: str | None = None, backend: str = "auto"
) -> tuple[LanguageModel, Tokenizer]:
    """A trained language model and its tokenizer. Its cell is the Program in the checkpoint: no one's code is run.

    Args:
        run: a run folder or a `.safetensors` file of one.
        checkpoint: "best", "last" or another's name; None is the best, or the last while there is no best.
        backend: which backend runs it here.

    Raises:
        RunError: missing, damaged, or of another format.
    """
    found = read_checkpoint(find_checkpoint(Path(run), checkpoint))
    return build_model(found, backend, LanguageModel).eval(), read_entry(found, "tokenizer", tokenizer_from_json)


def build_model(found: Checkpoint, backend: str, kind: type[M]) -> M:
    """The model of a checkpoint, with its weights.

    Args:
        found: the checkpoint.
        backend: which backend runs it here.
        kind: its class.

    Raises:
        RunError: it holds no model that fits, or one of another class.
    """
    model = any_model(found, backend)
    if not isinstance(model, kind):
        raise RunError(f"{found.path} holds a {type(model).__name__}, not a {kind.__name__}; pass another run.")
    return model


def any_model(found: Checkpoint, backend: str) -> Model:
    """The model of a checkpoint, whatever its class, with its weights.

    Raises:
        RunError: it holds no model that fits.
    """
    model = read_entry(found, "model", lambda spec: model_from_spec(spec, backend))
    try:
        model.load_state_dict(found.part("model"))
    except RuntimeError as error:
        raise RunError(f"the weights in {found.path} do not fit its model: {error}") from None
    return model


def check_same_data(found: Checkpoint, source: str, sha256: str) -> None:
    """Refuse to go on with other data than the run was begun with.

    Raises:
        RunError: their content is another.
    """
    if sha256 != read_entry(found, "data", lambda data: data["sha256"]):
        raise RunError(
            f"{source} is not what {found.path.parent.parent} was begun with: its content has changed. "
            f"Pass what it was, or begin another run."
        )


def read_entry(found: Checkpoint, name: str, read: Callable[[Any], T]) -> T:
    """An entry of a checkpoint's JSON, as `read` makes it.

    Raises:
        RunError: missing, or not what `read` expects.
    """
    try:
        return read(found.document[name])
    except OstinatoError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{found.path} does not hold a usable {name!r} ({type(error).__name__}: {error}); "
            f"it was not written by this version of Ostinato, use the one that wrote it."
        ) from None
