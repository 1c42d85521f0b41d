"""Any model from its spec."""

from __future__ import annotations

from typing import Any

from ..errors import OstinatoError, ProgramError
from .checks import entry
from .classifier import Classifier
from .forecaster import Forecaster
from .language_model import LanguageModel
from .tagger import Tagger

__all__ = ["Model", "model_from_spec"]

Model = LanguageModel | Classifier | Tagger | Forecaster

_KINDS: dict[str, type[LanguageModel] | type[Classifier] | type[Tagger] | type[Forecaster]] = {
    "language_model": LanguageModel,
    "classifier": Classifier,
    "tagger": Tagger,
    "forecaster": Forecaster,
}


def model_from_spec(spec: Any, backend: str | None = None) -> Model:
    """The model that a `spec` describes, with fresh weights; no code of a cell's author is run.

    Args:
        spec: what `spec()` of a model gave, as it is or through JSON.
        backend: which backend shall run it here; None keeps the one it was built with.

    Raises:
        ProgramError: the spec is damaged, or of another version.
        ShapeError: sizes in it that do not fit.

    >>> model = LanguageModel(65, "gru", 8)
    >>> type(model_from_spec(model.spec(), backend="eager")).__name__
    'LanguageModel'
    """
    kind = _KINDS[entry(spec, "kind", tuple(_KINDS))]
    try:
        return kind.from_spec(spec, backend)
    except OstinatoError:  # a CellError is a TypeError too, and says all itself
        raise
    except (TypeError, AttributeError, KeyError) as error:
        raise ProgramError(
            f"the spec of a {spec['kind']} is damaged ({type(error).__name__}: {error}); give what spec() of a model "
            "wrote."
        ) from error
