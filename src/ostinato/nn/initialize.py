"""How parameters start: by the rule the layer or its cell declares, else by where they stand in the equations."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CellError
from ..ir import INPUT, Program, levels
from .rules import Draw, Rule, read

__all__ = [
    "Rule",
    "check_drawn",
    "chrono_",
    "chrono_rules",
    "default_rules",
    "initialize",
    "initialize_all",
    "rules_for",
]


def default_rules(program: Program) -> dict[str, Rule]:
    """Matrices that multiply what comes from x alone: Xavier (Glorot & Bengio 2010). Other matrices: orthogonal (Saxe
    et al. 2014), each parameter its own block. Vectors and scalars: 0. What the cell declares goes before.
    """
    level = levels(program)
    rules: dict[str, Rule] = {
        name: "zeros" if len(shape) < 2 else "orthogonal" for name, shape in program.params.items()
    }
    for node in program.nodes:
        if node.op == "matmul" and level[node.args[1]] <= INPUT:
            matrix = program.nodes[node.args[0]]
            if matrix.op == "param":
                rules[str(matrix.attr)] = "xavier"
    return {**rules, **{name: rule for name, rule in program.init if name in rules}}


def rules_for(
    program: Program, overrides: Mapping[str, Rule] | None = None, beside: Sequence[Program] = (), bias: bool = True
) -> dict[str, Rule]:
    """The rule of every parameter: `default_rules`, and what a layer's ``init=`` puts in their place.

    Args:
        overrides: rules by name or by pattern (``"U_*"``, as in `fnmatch`). A name goes before a pattern, a later
            pattern before an earlier one. Parameters that are not trained answer to their names alone.
        beside: other Programs of the same layer; a pattern may be meant for them.
        bias: whether the layer has the vectors b and b_*.

    Raises:
        CellError: a rule that is none or does not fit its parameter, or a pattern that matches no parameter.

    >>> from ostinato import cells
    >>> rules = rules_for(cells.lstm.program(), {"U_*": "orthogonal(0.5)", "b_f": 2.0})
    >>> rules["U_i"], rules["W_i"], rules["b_f"]
    ('orthogonal(0.5)', 'xavier', 2.0)
    """
    rules, shapes = default_rules(program), program.params
    given = dict(overrides or {})
    for pattern in given:
        if not any(_matches(pattern, other) for other in (program, *beside)):
            near = difflib.get_close_matches(str(pattern), shapes, n=3, cutoff=0.3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            if not bias and (pattern == "b" or str(pattern).startswith("b_")):
                hint = "the layer has bias=False, which leaves out b and b_*"
            hint = hint or f"its parameters are {', '.join(shapes) or 'none'}"
            raise CellError(f"init has {pattern!r}, but cell {program.name} has no such parameter to train; {hint}")
    for pattern in sorted(given, key=lambda p: p in shapes):  # names last: they go before patterns
        rules.update(dict.fromkeys(_matches(pattern, program), given[pattern]))
    for name, rule in rules.items():
        with _naming(name):
            _check_rank(rule, len(shapes[name]))
    return rules


def check_drawn(layer: nn.Module, names: Sequence[str]) -> None:
    """Parameters whose numbers can be drawn anew: none that a parametrization makes from others at each call."""
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    for name in names:
        if name not in own:
            raise CellError(
                f"{name} is made by a parametrization, and has no numbers of its own to draw; reset the parameters "
                "before it is registered, or remove it first"
            )


def initialize_all(
    parameters: Mapping[str, Tensor],
    rules: Mapping[str, Rule],
    hidden_size: int,
    generator: torch.Generator | None = None,
) -> None:
    """Fill the parameters of one cell in place, each by its rule; those that refer to another after that one.

    Args:
        parameters: by their names in the equations.
        rules: as `rules_for` gives them.
        hidden_size: H, for torch.nn's "uniform".
        generator: of torch, so that the same numbers are drawn again; None: torch's own.

    Raises:
        CellError: a rule that does not fit its parameter, or refers to one that is not there.
    """
    refers = {name: read(rules[name]).refers for name in parameters}
    for name in sorted(parameters, key=lambda n: bool(refers[n])):
        other = refers[name]
        with _naming(name):
            if other and (other not in parameters or refers[other]):
                why = "itself refers to another" if other in parameters else "is no parameter of the cell"
                raise CellError(f"the initialisation {rules[name]!r} refers to {other!r}, which {why}")
            initialize(parameters[name], rules[name], hidden_size, generator, parameters[other] if other else None)


def initialize(
    parameter: Tensor,
    rule: Rule,
    hidden_size: int,
    generator: torch.Generator | None = None,
    other: Tensor | None = None,
) -> None:
    """Fill a parameter in place by a rule.

    ======================== ====================================================================================
    a number                 that number
    zeros, ones              0, 1
    uniform                  even within ±1/√H, as torch.nn draws all it has
    uniform(a, b)            even within a..b
    log_uniform(a, b)        its logarithm even within log a..log b, 0 < a: for time constants over a wide range
    normal(std)              normal, of mean 0
    xavier_uniform, _normal  variance 2/(rows + columns) (Glorot & Bengio 2010); xavier is the uniform one
    kaiming_uniform, _normal variance 2/columns (He et al. 2015); kaiming is the normal one
    lecun, (gain)            normal, of variance gain²/columns (LeCun et al. 1998)
    orthogonal, (gain)       orthonormal rows or columns, times the gain, 1 (Saxe et al. 2014)
    identity, (scale)        the identity times the scale, 1 (Le et al. 2015)
    spectral_radius(r)       normal, scaled until the largest eigenvalue has modulus r (Jaeger 2001)
    antisymmetric(std)       A = -Aᵀ of normal numbers (Chang et al. 2019)
    chrono(t_max)            log(u), u even within 1..t_max - 1: a forget gate's bias (Tallec & Ollivier 2018)
    minus(name)              the negative of what another parameter got: the input gate's bias, beside chrono
    linspace(a, b)           evenly spaced from a to b
    periods(1, 2, ...)       a vector cut in equal blocks, one number for each (Koutník et al. 2014)
    upper_blocks(count)      1 where block i receives from blocks j >= i, else 0: of equal or longer period
    legendre_a(theta)        the matrix of a Legendre memory of theta steps, held over each (Voelker et al. 2019)
    legendre_b(theta)        what its input is multiplied by, a vector or one column
    lru_nu(r_min, r_max)     log(-log r) of radii even over the ring r_min..r_max (Orvieto et al. 2023)
    lru_theta(max_phase)     log of phases even within 0..max_phase
    lru_gamma(name)          log of √(1 - r²), the radii being those of the parameter named
    ======================== ====================================================================================

    Args:
        parameter: of any floating dtype and device; numbers are drawn in float32 at least.
        hidden_size: H.
        generator: of torch; its device may differ from the parameter's.
        other: the parameter that the rule refers to, filled before.

    Raises:
        CellError: the rule is none of these, its arguments are out of range, or it does not fit the shape.

    >>> weight = torch.empty(3, 3)
    >>> initialize(weight, "identity(0.5)", hidden_size=3)
    >>> weight.diagonal()
    tensor([0.5000, 0.5000, 0.5000])
    """
    reading = read(rule)
    _check_rank(rule, parameter.dim())
    kind = reading.kind
    if kind is not None and kind.shape == "square" and parameter.shape[0] != parameter.shape[1]:
        raise CellError(
            f"the initialisation {rule!r} is for square matrices, got {list(parameter.shape)}; "
            "choose another, such as 'xavier' or 'orthogonal'"
        )
    if parameter.is_meta or parameter.numel() == 0:
        return
    with torch.no_grad():
        if kind is None:
            parameter.fill_(reading.numbers[0])
            return
        exact = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        device = parameter.device if generator is None else generator.device
        blank = torch.empty(parameter.shape, dtype=exact, device=device)
        parameter.copy_(kind.values(blank, Draw(reading.numbers, hidden_size, generator, other)))


def chrono_rules(t_max: float, forget: str = "b_f", input: str | None = "b_i") -> dict[str, Rule]:
    """Rules for a layer's ``init=`` under which it remembers for 1 to t_max steps (Tallec & Ollivier 2018).

        b_f = log(u), u even within 1..t_max - 1;  b_i = -b_f

    Args:
        t_max: the longest time to remember, in steps, at least 2.
        forget: the bias of the gate that keeps the memory ("b_z" in a GRU).
        input: the bias of the gate that lets the input in; None where there is none of its own.

    >>> chrono_rules(784)
    {'b_f': 'chrono(784)', 'b_i': 'minus(b_f)'}
    """
    return {forget: f"chrono({t_max})", **({input: f"minus({forget})"} if input else {})}


def chrono_(
    layer: Any,
    t_max: float,
    forget: str = "b_f",
    input: str | None = "b_i",
    generator: torch.Generator | None = None,
) -> None:
    """Draw the gates' biases of a layer that is there by `chrono_rules`, in place; the rest stays.

    Raises:
        CellError: a cell of the layer has no such biases, or t_max is less than 2.

    >>> from ostinato import RNN
    >>> layer = RNN("lstm", 3, 4)
    >>> chrono_(layer, 100)
    >>> p = layer.cell_parameters()
    >>> bool((p["b_i"] == -p["b_f"]).all())
    True
    """
    rules = chrono_rules(t_max, forget, input)
    for place in range(layer.num_layers):
        for reverse in range(layer.num_directions):
            own: dict[str, Tensor] = layer.cell_parameters(place, bool(reverse))
            lost = [name for name in rules if name not in own]
            if lost:
                raise CellError(
                    f"the layer has no parameter {lost[0]!r} (they are {', '.join(own)}); name the gates' biases by "
                    "forget= and input=, None for a cell without an input gate, and build the layer with bias=True"
                )
            initialize_all({name: own[name] for name in rules}, rules, own[forget].shape[0], generator)


def _matches(pattern: str, program: Program) -> list[str]:
    """The parameters that answer to a pattern; those that are not trained answer to their names alone."""
    return [
        name
        for name in program.params
        if name == pattern or (name not in program.fixed and fnmatch.fnmatchcase(name, str(pattern)))
    ]


def _check_rank(rule: Rule, rank: int) -> None:
    kind = read(rule).kind
    wants = {"vector": ("vectors", 1), "matrix": ("matrices", 2), "square": ("square matrices", 2)}
    if kind is not None and kind.shape in wants and rank != wants[kind.shape][1]:
        got = ("a scalar", "a vector", "a matrix")[rank] if rank < 3 else f"a tensor of {rank} dimensions"
        raise CellError(
            f"the initialisation {rule!r} is for {wants[kind.shape][0]}, not for {got}; give it a number, "
            "'uniform' or 'zeros'"
        )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """A refusal says which parameter it is about."""
    try:
        yield
    except CellError as error:
        raise CellError(f"parameter {name}: {error}") from None
