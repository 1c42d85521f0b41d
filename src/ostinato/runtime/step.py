"""`Step`: a Program with numbers for its sizes, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ..ir import Program, simplify, size_value, without_params


@lru_cache(maxsize=512)
def _prepared(program: Program, bias: bool) -> Program:
    if not bias:
        names = frozenset(name for name in program.params if name == "b" or name.startswith("b_"))
        program = without_params(program, names)
    return simplify(program)


@dataclass(frozen=True)
class Step:
    """A simplified Program and the number each size symbol stands for."""

    program: Program
    sizes: Mapping[str, int] = field(hash=False)

    @classmethod
    def of(cls, program: Program, bias: bool, sizes: Mapping[str, int]) -> Step:
        """Simplify `program`; without `bias`, leave out the vectors named ``b`` or ``b_*``."""
        return cls(_prepared(program, bias), dict(sizes))

    @property
    def param_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each parameter."""
        return [tuple(size_value(s, dict(self.sizes)) for s in shape) for shape in self.program.params.values()]

    @property
    def state_sizes(self) -> list[int]:
        """The width of each state."""
        return [size_value(s, dict(self.sizes)) for s in self.program.state_sizes.values()]

    @property
    def output_size(self) -> int:
        """The width of the output."""
        return size_value(self.program.output_size, dict(self.sizes))
