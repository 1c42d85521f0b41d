"""The shape of a kernel: how much of a batch, and of a step, one program has."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Form", "power_of_two"]

LEAST = 16  # the least side of a product that the units for products take


def power_of_two(n: int) -> int:
    """The least power of two that is no less than n."""
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True)
class Form:
    """How the work is dealt to programs.

    Args:
        batch: sequences of a program, a power of two.
        slices: programs that share the units of these sequences; they meet before each product.
        depth: how long a piece of a product is, a power of two.
        resident: whether a program loads its weights once, before the first step, and keeps them.
        warps: of a program.
        narrow: factors of products are rounded to bfloat16; sums are float32.
    """

    batch: int = 16
    slices: int = 1
    depth: int = 64
    resident: bool = True
    warps: int = 4
    narrow: bool = False

    def sliced(self, size: int) -> bool:
        """Whether each program of a group has a part of a vector of this size; small ones each has whole."""
        return self.slices > 1 and size > LEAST

    def lanes(self, size: int) -> int:
        """Elements of a vector that a program has, a power of two."""
        if self.sliced(size):
            return max(LEAST, power_of_two(-(-size // self.slices)))
        return 1 if size == 1 else max(LEAST, power_of_two(size))

    def piece(self, size: int) -> int:
        """How long a piece of a product over vectors of this size is."""
        return min(self.depth, 1 if size == 1 else max(LEAST, power_of_two(size)))

    def pieces(self, size: int) -> int:
        """How many pieces such a product has."""
        return -(-size // self.piece(size))

    def in_registers(self, size: int) -> bool:
        """Whether a program has all of such a vector, in one piece."""
        return not self.sliced(size) and self.pieces(size) == 1
