"""The rules by which a parameter starts: a number, or ``name(arguments)`` from one table."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import init

from ..errors import CellError

Rule = float | str

_TEXT = re.compile(r"\s*(?P<name>[a-z_]+)\s*(?:\((?P<arguments>[^()]*)\))?\s*")


@dataclass(frozen=True)
class Draw:
    """What a rule may look at beside the tensor: its arguments, H, the generator, and the parameter it refers to."""

    numbers: tuple[float, ...]
    hidden_size: int
    generator: torch.Generator | None = None
    other: Tensor | None = None


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Args:
        form: how it is written, arguments and all.
        shape: "any", "vector", "matrix" or "square": what it can fill.
        values: the numbers for a blank float32 or float64 tensor; the result may have another floating dtype.
        counts: how many numbers it takes; empty: one or more.
        legal: whether the numbers are in range; `condition` says it in words.
        refers: its one argument is the name of another parameter, which is filled before.
    """

    form: str
    shape: str
    values: Callable[[Tensor, Draw], Tensor]
    counts: tuple[int, ...] = (0,)
    legal: Callable[..., bool] = lambda *_: True
    condition: str = ""
    refers: bool = False


@dataclass(frozen=True)
class Reading:
    """A rule as it was understood: a number (`kind` is None), or a row of the table with its arguments."""

    kind: Kind | None
    numbers: tuple[float, ...] = ()
    refers: str = ""


def read(rule: Rule) -> Reading:
    """The meaning of a rule.

    Raises:
        CellError: it is no rule, or its arguments are not what the rule takes.
    """
    if isinstance(rule, int | float) and not isinstance(rule, bool):
        if not math.isfinite(rule):
            raise CellError(f"the initialisation is {rule!r}; give a finite number")
        return Reading(None, (float(rule),))
    if isinstance(rule, Tensor) or callable(rule):
        raise CellError(
            f"the initialisation is {type(rule).__name__}; give a number or a text such as 'orthogonal', and write "
            "values of your own into layer.cell_parameters() in place, under torch.no_grad()"
        )
    found = _TEXT.fullmatch(rule) if isinstance(rule, str) else None
    kind = KINDS.get(found["name"]) if found else None
    if found is None or kind is None:
        near = difflib.get_close_matches(str(rule).partition("(")[0].strip().lower(), KINDS, n=1)
        meant = f"did you mean {KINDS[near[0]].form!r}? It" if near else "it"
        raise CellError(f"there is no initialisation {rule!r}; {meant} is a number or one of {', '.join(FORMS)}")
    words = [w.strip() for w in (found["arguments"] or "").split(",")]
    words = [] if words == [""] else words
    if kind.refers:
        if len(words) != 1 or not words[0].isidentifier():
            raise CellError(f"the initialisation {rule!r} names no parameter; write {kind.form}")
        return Reading(kind, refers=words[0])
    try:
        numbers = tuple(float(w) for w in words)
    except ValueError:
        raise CellError(f"the initialisation {rule!r} has an argument that is no number; write {kind.form}") from None
    if (len(numbers) not in kind.counts) if kind.counts else not numbers:
        raise CellError(f"the initialisation {rule!r} has {len(numbers)} arguments; write {kind.form}")
    if not all(map(math.isfinite, numbers)) or not kind.legal(*numbers):
        raise CellError(f"the initialisation {rule!r} is out of range; {kind.condition or 'give finite numbers'}")
    return Reading(kind, numbers)


def _random(blank: Tensor, draw: Draw) -> Tensor:
    """Uniform float64 numbers within (0, 1), both ends left out."""
    like = torch.rand(blank.shape, dtype=torch.float64, device=blank.device, generator=draw.generator)
    return like.clamp(1e-12, 1 - 1e-12)


def _uniform(blank: Tensor, draw: Draw) -> Tensor:
    bound = 1 / math.sqrt(max(draw.hidden_size, 1))
    low, high = draw.numbers or (-bound, bound)
    return blank.uniform_(low, high, generator=draw.generator)


def _log_uniform(blank: Tensor, draw: Draw) -> Tensor:
    low, high = map(math.log, draw.numbers)
    return (low + (high - low) * _random(blank, draw)).exp()


def _normal(blank: Tensor, draw: Draw) -> Tensor:
    return blank.normal_(0, draw.numbers[0], generator=draw.generator)


def _xavier(blank: Tensor, draw: Draw) -> Tensor:
    return init.xavier_uniform_(blank, generator=draw.generator)


def _kaiming(blank: Tensor, draw: Draw) -> Tensor:
    return init.kaiming_normal_(blank, nonlinearity="relu", generator=draw.generator)


def _kaiming_uniform(blank: Tensor, draw: Draw) -> Tensor:
    return init.kaiming_uniform_(blank, nonlinearity="relu", generator=draw.generator)


def _lecun(blank: Tensor, draw: Draw) -> Tensor:
    return blank.normal_(0, _first(draw) / math.sqrt(max(blank.shape[1], 1)), generator=draw.generator)


def _linspace(blank: Tensor, draw: Draw) -> Tensor:
    first, last = draw.numbers
    return torch.linspace(first, last, len(blank), dtype=torch.float64, device=blank.device)


def _spectral_radius(blank: Tensor, draw: Draw) -> Tensor:
    values = blank.double().normal_(generator=draw.generator)
    return values * (draw.numbers[0] / torch.linalg.eigvals(values.cpu()).abs().max().item())


def _antisymmetric(blank: Tensor, draw: Draw) -> Tensor:
    values = blank.normal_(0, draw.numbers[0] / math.sqrt(2), generator=draw.generator)
    return values - values.T  # the two halves add up to the variance that is asked for


def _chrono(blank: Tensor, draw: Draw) -> Tensor:
    return (1 + (draw.numbers[0] - 2) * _random(blank, draw)).log()


def _blocks(size: int, count: int, device: torch.device) -> Tensor:
    """The number of the block each of `size` units belongs to; blocks differ by one unit at most."""
    return torch.arange(size, device=device) * count // max(size, 1)


def _periods(blank: Tensor, draw: Draw) -> Tensor:
    periods = torch.tensor(draw.numbers, dtype=torch.float64, device=blank.device)
    return periods[_blocks(len(blank), len(periods), blank.device)]


def _upper_blocks(blank: Tensor, draw: Draw) -> Tensor:
    block = _blocks(len(blank), int(draw.numbers[0]), blank.device)
    return (block[None, :] >= block[:, None]).to(blank.dtype)


def _legendre(size: int, theta: float) -> tuple[Tensor, Tensor]:
    """A [N, N] and B [N] of a window of theta steps, held over each step: exp of the pair as one matrix."""
    n = torch.arange(size, dtype=torch.float64)
    i, j = n[:, None], n[None, :]
    sign = torch.where(i < j, -torch.ones((), dtype=torch.float64), -((-1) ** (i - j)))
    whole = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    whole[:size, :size] = sign * (2 * i + 1) / theta
    whole[:size, size] = (2 * n + 1) * (-1) ** n / theta
    held = torch.linalg.matrix_exp(whole)
    return held[:size, :size], held[:size, size]


def _legendre_b(blank: Tensor, draw: Draw) -> Tensor:
    if blank.dim() != 1 and blank.shape[1:] != (1,):
        raise CellError(
            f"legendre_b(theta) fills a vector or one column, not a tensor {list(blank.shape)}; declare one"
        )
    return _legendre(len(blank), draw.numbers[0])[1].reshape(blank.shape)


def _lru_nu(blank: Tensor, draw: Draw) -> Tensor:
    low, high = (r * r for r in draw.numbers)  # even over the area of the ring
    area = (low + (high - low) * _random(blank, draw)).clamp(1e-12, 1 - 1e-12)  # neither 0 nor 1 has a logarithm of one
    return (-0.5 * area.log()).log()


def _lru_theta(blank: Tensor, draw: Draw) -> Tensor:
    return (draw.numbers[0] * _random(blank, draw)).log()


def _lru_gamma(blank: Tensor, draw: Draw) -> Tensor:
    return 0.5 * (-torch.expm1(-2 * _other(blank, draw).double().exp())).log()


def _other(blank: Tensor, draw: Draw) -> Tensor:
    if draw.other is None or draw.other.shape != blank.shape:
        got = "no parameter" if draw.other is None else f"one {list(draw.other.shape)}"
        raise CellError(f"the initialisation refers to {got}; it must be one of the same shape {list(blank.shape)}")
    return draw.other.detach()


def _first(draw: Draw) -> float:
    return draw.numbers[0] if draw.numbers else 1.0


def _positive(number: float) -> bool:
    return number > 0


def _not_negative(number: float = 0.0) -> bool:
    return number >= 0


_TABLE = (
    Kind("zeros", "any", lambda t, _: t.zero_()),
    Kind("ones", "any", lambda t, _: t.fill_(1.0)),
    Kind("uniform[(a, b)]", "any", _uniform, (0, 2), lambda *ab: list(ab) == sorted(ab), "give a <= b"),
    Kind("log_uniform(a, b)", "any", _log_uniform, (2,), lambda a, b: 0 < a <= b, "give 0 < a <= b"),
    Kind("normal(std)", "any", _normal, (1,), _not_negative, "give std >= 0"),
    Kind("xavier", "matrix", _xavier),
    Kind("xavier_uniform", "matrix", _xavier),
    Kind("xavier_normal", "matrix", lambda t, d: init.xavier_normal_(t, generator=d.generator)),
    Kind("kaiming", "matrix", _kaiming),
    Kind("kaiming_normal", "matrix", _kaiming),
    Kind("kaiming_uniform", "matrix", _kaiming_uniform),
    Kind("lecun[(gain)]", "matrix", _lecun, (0, 1), _not_negative, "give gain >= 0"),
    Kind("orthogonal[(gain)]", "matrix", lambda t, d: init.orthogonal_(t, _first(d), d.generator), (0, 1)),
    Kind("identity[(scale)]", "matrix", lambda t, d: init.eye_(t) * _first(d), (0, 1)),
    Kind("spectral_radius(r)", "square", _spectral_radius, (1,), _not_negative, "give r >= 0"),
    Kind("antisymmetric(std)", "square", _antisymmetric, (1,), _not_negative, "give std >= 0"),
    Kind("chrono(t_max)", "any", _chrono, (1,), lambda t: t >= 2, "give t_max >= 2 steps"),
    Kind("minus(name)", "any", lambda t, d: -_other(t, d), refers=True),
    Kind("linspace(a, b)", "vector", _linspace, (2,)),
    Kind("periods(1, 2, ...)", "vector", _periods, ()),
    Kind("upper_blocks(count)", "square", _upper_blocks, (1,), lambda g: g >= 1 and g == int(g), "give a count >= 1"),
    Kind(
        "legendre_a(theta)", "square", lambda t, d: _legendre(len(t), *d.numbers)[0], (1,), _positive, "give theta > 0"
    ),
    Kind("legendre_b(theta)", "any", _legendre_b, (1,), _positive, "give theta > 0 steps"),
    Kind("lru_nu(r_min, r_max)", "any", _lru_nu, (2,), lambda a, b: 0 <= a <= b <= 1, "give 0 <= r_min <= r_max <= 1"),
    Kind("lru_theta(max_phase)", "any", _lru_theta, (1,), _positive, "give max_phase > 0"),
    Kind("lru_gamma(name)", "any", _lru_gamma, refers=True),
)
KINDS = {re.split(r"\W", kind.form)[0]: kind for kind in _TABLE}
FORMS = tuple(kind.form for kind in _TABLE)
