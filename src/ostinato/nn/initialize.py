"""How parameters start: by the rule a cell declares, else by where they stand in the equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import init

from ..errors import CellError
from ..ir import INPUT, Program, levels

RULES = ("xavier", "orthogonal", "identity", "zeros", "ones", "uniform")


def default_rules(program: Program) -> dict[str, float | str]:
    """Matrices that multiply what comes from x alone: Xavier (Glorot & Bengio 2010). Other matrices: orthogonal (Saxe
    et al. 2014), each parameter its own block. Vectors and scalars: 0. What the cell declares goes before.
    """
    level = levels(program)
    rules: dict[str, float | str] = {
        name: "zeros" if len(shape) < 2 else "orthogonal" for name, shape in program.params.items()
    }
    for node in program.nodes:
        if node.op == "matmul" and level[node.args[1]] <= INPUT:
            matrix = program.nodes[node.args[0]]
            if matrix.op == "param":
                rules[str(matrix.attr)] = "xavier"
    return {**rules, **dict(program.init)}


def initialize(parameter: Tensor, rule: float | str, hidden_size: int) -> None:
    """Fill a parameter in place by a rule: a number, or one of `RULES` ("uniform": torch.nn's ±1/√hidden_size)."""
    with torch.no_grad():
        if isinstance(rule, int | float):
            parameter.fill_(float(rule))
        elif rule == "zeros" or parameter.numel() == 0:
            parameter.zero_()
        elif rule == "ones":
            parameter.fill_(1.0)
        elif rule == "uniform":
            bound = 1 / math.sqrt(max(hidden_size, 1))
            parameter.uniform_(-bound, bound)
        elif parameter.dim() != 2:
            raise CellError(
                f"the initialisation {rule!r} is for matrices; give a vector a number, 'uniform' or 'zeros'"
            )
        elif rule == "xavier":
            init.xavier_uniform_(parameter)
        elif rule == "orthogonal":
            # the factorisation knows float32 and float64 only
            exact = parameter if parameter.dtype in (torch.float32, torch.float64) else parameter.float()
            parameter.copy_(init.orthogonal_(exact))
        elif rule == "identity":
            init.eye_(parameter)
        else:
            raise CellError(f"there is no initialisation {rule!r}; it is a number or one of {', '.join(RULES)}")
