"""Products of a step: by what a program has in registers, or by what programs have for one another."""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import Place, Run
from .lines import Lines

__all__ = ["Products"]


class Products(Lines):
    """Writes products."""

    def product(self, run: Run) -> None:
        """Columns += matrix @ source."""
        terms = [(Place("col", str(entry.column)), entry.matrix) for entry in run.entries]
        self._multiply(run.source, terms, False)

    def transposed(self, run: Run) -> None:
        """Target (+)= the sum of matrixᵀ @ column."""
        if not run.accumulate:
            self.env[run.target] = self.zeros(self.layout.place(run.target))
        for entry in run.entries:
            self._multiply(Place("col", str(entry.column)), [(run.target, entry.matrix)], True)

    def _multiply(self, source: Place, terms: Sequence[tuple[Place, str]], transposed: bool) -> None:
        """Each target += matrix @ source, or matrixᵀ @ source."""
        size = self.layout.place(source)
        if self.form.in_registers(size):
            value = self.value(source)
            if self.form.lanes(size) > size:
                self.lanes(size)
                value = self.define("source", f"tl.where(ok{size}, {value}, 0.0)")
            for target, matrix in terms:
                text = self._added(target, value, self._weight(matrix, 0, transposed), size)
                self.env[target] = self.define("sum", text)
        else:
            if source in self.dirty:
                self.meet()
            if self.form.resident:
                for k in range(self.form.pieces(size)):
                    value = self.define("source", self._piece(source, size, self._depth(size, k)))
                    for target, matrix in terms:
                        text = self._added(target, value, self._weight(matrix, k, transposed), size)
                        self.env[target] = self.define("sum", text)
            else:
                self._in_pieces(source, terms, transposed)
        for target, _ in terms:
            self.on_tape.discard(target)

    def _in_pieces(self, source: Place, terms: Sequence[tuple[Place, str]], transposed: bool) -> None:
        """The same, weights being read from memory piece by piece."""
        size = self.layout.place(source)
        depth = self._depth(size, 0)
        for target, _ in terms:
            self.env[target] = self.define("sum", f"{self.value(target)} + 0.0")
        tiles = [(target, self._tile(matrix, transposed, "k")) for target, matrix in terms]
        lines = [f"k = {depth} + q * {self.form.piece(size)}", f"piece = {self._piece(source, size, 'k')}"]
        for target, tile in tiles:
            lines.append(f"{self.env[target]} = {self._added(target, 'piece', tile, size)}")
        self.body += [f"for q in range(0, {self.form.pieces(size)}):", *(f"    {line}" for line in lines)]

    def _added(self, target: Place, source: str, weight: str, depth: int) -> str:
        """A sum of products, and a product more."""
        before = self.value(target)
        if depth == 1:
            return f"{before} + {source} * {weight}"
        if self.form.lanes(self.layout.place(target)) == 1:
            return f"{before} + tl.sum({source} * {weight}, axis=1, keep_dims=True)"
        if self.form.narrow:
            return f"tl.dot({source}.to(tl.bfloat16), {weight}.to(tl.bfloat16), {before})"
        return f'tl.dot({source}, {weight}, {before}, input_precision="ieee")'

    def _piece(self, place: Place, size: int, k: str) -> str:
        """A piece of a vector that a product reads from memory, [batch, piece]."""
        where = f"{self.exchange(place, size)} + b * {size} + {k}"
        return f'tl.load({where}, mask=inside & ({k} < {size}), other=0.0, cache_modifier=".cg")'

    def _depth(self, size: int, piece: int) -> str:
        """The numbers of the elements of a piece, [1, piece]."""
        length = self.form.piece(size)
        return self.once(f"d{size}_{piece}", f"({piece * length} + tl.arange(0, {length}))[None, :]")

    def _weight(self, matrix: str, piece: int, transposed: bool) -> str:
        """A tile of a matrix, in registers from the first step on where the form says so."""
        i = self.layout.matrices[matrix]
        depth = self.layout.of(self.plan.matrices[i][1 if transposed else 2])
        text = self._tile(matrix, transposed, self._depth(depth, piece))
        name = f"w{i}{'t' if transposed else ''}_{piece}"
        if self.form.resident:
            return self.once(name, text)
        if name not in self.in_step:
            self.in_step.add(name)
            self.body.append(f"{name} = {text}")
        return name

    def _tile(self, matrix: str, transposed: bool, k: str) -> str:
        """What a piece of a source, its elements numbered k, is multiplied by: [piece, lanes]; [1, piece] for a sum."""
        i = self.layout.matrices[matrix]
        rows, columns = (self.layout.of(size) for size in self.plan.matrices[i][1:])
        depth, width = (rows, columns) if transposed else (columns, rows)
        j = self.lanes(width)
        if depth == 1:
            k, mask = "0", f"ok{width}"
        else:
            k = k if self.form.lanes(width) == 1 else f"tl.trans({k})"
            mask = f"ok{width} & ({k} < {depth})"
        address = f"{k} * ld{i} + {j}" if transposed else f"{j} * ld{i} + {k}"
        return f"tl.load(m{i} + {address}, mask={mask}, other=0.0)"
