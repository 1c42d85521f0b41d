"""Ostinato: recurrent networks for PyTorch in which a cell is its equations.

from ostinato import RNN, cell, sigmoid, tanh

@cell
def gru(p, x, h):
    r = sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * n + z * h

layer = RNN(gru, input_size=64, hidden_size=256)
output, state = layer(x, lengths=lengths)
"""

from __future__ import annotations

import typing as _typing

from . import cells, transforms
from . import errors as _errors
from .errors import *
from .ir import Program
from .lang import Cell, cell, concat
from .lang import functions as _functions
from .lang.functions import *

if _typing.TYPE_CHECKING:
    from .nn import *
    from .tasks import Run, evaluate, find_learning_rate, predict, repeat, resume, train

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "Elman",
    "Program",
    "Run",
    "cell",
    "cells",
    "chrono_",
    "chrono_rules",
    "concat",
    "detach_state",
    "evaluate",
    "find_learning_rate",
    "from_keras",
    "from_torch",
    "parallel_apply",
    "predict",
    "repeat",
    "resume",
    "scan",
    "to_torch",
    "train",
    "transforms",
    "truncate",
]
__all__ += _errors.__all__
__all__ += _functions.__all__

_TASKS = frozenset({"Run", "evaluate", "find_learning_rate", "predict", "repeat", "resume", "train"})
_LAYERS = frozenset(__all__) - frozenset(globals()) - _TASKS


def __getattr__(name: str) -> _typing.Any:
    # layers need torch, cells do not: the language and the command line's help answer without it
    if name in _LAYERS:
        from . import nn

        return getattr(nn, name)
    if name in _TASKS:
        from . import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAYERS, *_TASKS})
