"""The shape of a kernel: how much of a batch, and of a step, one program has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["NARROW", "Form", "Piece", "power_of_two"]

LEAST = 16  # the least depth of a product that the units for products take; vectors up to it are not dealt out
NARROW = ("bfloat16", "float16")  # factors that take less memory than what they are made of
REGISTERS = 65536  # of a multiprocessor; a thread may have 255 of them
BESIDE = 3  # programs that a multiprocessor runs at the same time at least, where products are the vendor's


def power_of_two(n: int) -> int:
    """The least power of two that is no less than n."""
    return 1 << max(0, n - 1).bit_length()


class Piece(NamedTuple):
    """A part of the sum of a product: `splits` times `depth` elements from `begin` on, the splits side by side."""

    begin: int
    splits: int
    depth: int


@dataclass(frozen=True)
class Form:
    """How the work is dealt to programs.

    Args:
        batch: sequences of a program, a power of two.
        slices: programs that share the units of these sequences; they meet before each product.
        splits: parts of the sum of a product that the warps of a program do side by side, a power of two.
        warps: of a program.
        factors: what factors of products are rounded to, "float32" for not at all; sums are float32. "tf32" leaves the
            rounding to the units for products.
        stages: products are by the vendor's library, and kernels do what is between them, step by step; programs never
            meet, each has its part of the units.
    """

    batch: int = 16
    slices: int = 1
    splits: int = 1
    warps: int = 4
    factors: str = "float32"
    stages: bool = False

    @property
    def narrow(self) -> bool:
        """Whether factors take less memory than float32."""
        return self.factors in NARROW

    @property
    def meeting(self) -> bool:
        """Whether programs wait for one another."""
        return self.slices > 1 and not self.stages

    @property
    def options(self) -> dict[str, int | bool]:
        """What the compiler is told. Products and sums are one instruction, as they are by default up to Triton 3.9.

        Left to itself the assembler spills registers to fit more programs on a multiprocessor, which here has one of
        those over whole sequences and nothing else to do.
        """
        threads = 32 * self.warps * (BESIDE if self.stages else 1)
        return {"num_warps": self.warps, "maxnreg": min(255, REGISTERS // threads), "enable_fp_fusion": True}

    def sliced(self, size: int) -> bool:
        """Whether each program of a group has a part of a vector of this size; small ones each has whole."""
        return self.slices > 1 and size > LEAST

    def lanes(self, size: int) -> int:
        """Elements of a vector that a program has, a power of two."""
        if self.sliced(size):
            return max(LEAST // 2, power_of_two(-(-size // self.slices)))
        return 1 if size == 1 else max(LEAST, power_of_two(size))

    def in_registers(self, size: int) -> bool:
        """Whether a program has all of such a vector, so that a product takes it as it is."""
        return not self.sliced(size)

    def pieces(self, size: int) -> list[Piece]:
        """The parts of a product's sum over a vector of this size, which may end beyond it."""
        if size == 1:
            return [Piece(0, 1, 1)]
        unit = LEAST * self.splits
        if self.in_registers(size):
            lanes = self.lanes(size)
            return [Piece(0, self.splits, lanes // self.splits) if lanes >= unit else Piece(0, 1, lanes)]
        left, begin, found = -(-size // unit), 0, list[Piece]()
        while left:  # the powers of two that the size is made of
            part = 1 << (left.bit_length() - 1)
            found.append(Piece(begin, self.splits, part * LEAST))
            begin, left = begin + part * unit, left - part
        return found
