"""Products of a step: by what a program has in registers, or by what programs have for one another."""

from __future__ import annotations

from collections.abc import Sequence

from ...schedule import Place, Run
from .form import Piece
from .lines import Lines

__all__ = ["Products"]

_TYPES = {"bfloat16": "tl.bfloat16", "float16": "tl.float16"}


class Products(Lines):
    """Writes products."""

    def product(self, run: Run) -> None:
        """Columns += matrix @ source."""
        targets = [Place("col", str(entry.column)) for entry in run.entries]
        before = [self.value(target) for target in targets]  # loaded while the product is on its way
        sums = self._sums(run.source, [(e.matrix, target) for e, target in zip(run.entries, targets, strict=True)])
        for target, value, total in zip(targets, before, sums, strict=True):
            self.env[target] = self.define("sum", f"{value} + {total}")
            self.changed(target)

    def transposed(self, run: Run) -> None:
        """Target (+)= the sum of matrixᵀ @ column."""
        terms = [self.value(run.target)] if run.accumulate else []
        for entry in run.entries:
            terms += self._sums(Place("col", str(entry.column)), [(entry.matrix, run.target)], True)
        self.env[run.target] = self.define("sum", " + ".join(terms))
        self.changed(run.target)

    def _sums(self, source: Place, terms: Sequence[tuple[str, Place]], transposed: bool = False) -> list[str]:
        """For each target matrix @ source, or matrixᵀ @ source."""
        size = self.layout.place(source)
        if source in self.dirty:
            self.meet()
        found: dict[int, str] = {}
        for number, piece in enumerate(self.form.pieces(size)):
            for single in (False, True):  # sums that are one number have no use for the units for products
                wanted = [i for i, (_, target) in enumerate(terms) if self._single(target) == single]
                if wanted:
                    part = Piece(piece.begin, 1, piece.splits * piece.depth) if single else piece
                    value = self._source(source, size, part)
                    self.begin_ahead()
                    for i in wanted:
                        weight = self._weight(terms[i][0], part, number, transposed, single)
                        found[i] = self.define("product", self._added(found.get(i), value, weight, part, single))
        apart = self.form.pieces(size)[0].splits > 1
        lost = " + lost" if source in self.shared else ""
        return [
            f"f.added_up({found[i]}){lost}" if apart and not self._single(target) else f"{found[i]}{lost}"
            for i, (_, target) in enumerate(terms)
        ]

    def _single(self, target: Place) -> bool:
        return self.form.lanes(self.layout.place(target)) == 1

    def _added(self, before: str | None, source: str, weight: str, piece: Piece, single: bool) -> str:
        """A sum of products, and a product more."""
        if piece.depth == 1:
            return f"{source} * {weight}.to(tl.float32)"
        if single:
            total = f"tl.sum({source}.to(tl.float32) * {weight}.to(tl.float32), axis=1, keep_dims=True)"
            return f"{before} + {total}" if before else total
        precision = {"tf32": ', input_precision="tf32"', "float32": ', input_precision="ieee"'}
        return f"tl.dot({source}, {weight}{f', {before}' if before else ''}{precision.get(self.form.factors, '')})"

    def _source(self, place: Place, size: int, piece: Piece) -> str:
        """What is multiplied: [batch, depth], or [splits, batch, depth]."""
        if self.form.in_registers(size):
            value, lanes = self.value(place), self.form.lanes(size)
            if lanes > size:
                self.lanes(size)
                value = f"tl.where(ok{size}, {value}, 0.0)"
            if piece.depth == 1:
                return value
            if piece.splits > 1:
                parts = f"tl.reshape({value}, [{self.form.batch}, {piece.splits}, {piece.depth}])"
                value = f"tl.permute({parts}, (1, 0, 2))"
            return self.define("source", f"({value}){self._rounded()}")
        k = self._depth(piece)
        wide = piece.splits > 1
        where = f"{self.exchange(place, size)} + {'b[None, :, :]' if wide else 'b'} * {size} + {k}"
        mask = f"{'inside[None, :, :]' if wide else 'inside'} & ({k} < {size})"
        return self.define("source", f'tl.load({where}, mask={mask}, other=0.0, cache_modifier=".cg")')

    def _rounded(self) -> str:
        """How a factor is made one of the type of factors."""
        return f".to({_TYPES[self.form.factors]})" if self.form.narrow else ""

    def _depth(self, piece: Piece) -> str:
        """The numbers of the elements of a piece, [1, depth], or [splits, 1, depth]."""
        begin, splits, depth = piece
        name = f"k{begin}_{splits}_{depth}"
        if splits == 1:
            return self.once(name, f"({begin} + tl.arange(0, {depth}))[None, :]")
        along = f"tl.arange(0, {depth})[None, None, :]"
        return self.once(name, f"{begin} + tl.arange(0, {splits})[:, None, None] * {depth} + {along}")

    def _weight(self, matrix: str, piece: Piece, number: int, transposed: bool, single: bool) -> str:
        """A tile of a matrix, kept from the first step on: [depth, lanes], or [splits, depth, lanes]; [1, depth]."""
        i = self.layout.matrices[matrix]
        rows, columns = (self.layout.of(size) for size in self.plan.matrices[i][1:])
        depth, width = (rows, columns) if transposed else (columns, rows)
        j, exists = self.lanes(width), f"ok{width}"
        if piece.depth == 1:
            k, mask = "0", exists
        else:
            k = self._depth(piece)
            if piece.splits > 1:
                k, j, exists = f"tl.permute({k}, (0, 2, 1))", f"{j}[None, :, :]", f"{exists}[None, :, :]"
            elif not single:
                k = f"tl.trans({k})"
            mask = f"{exists} & ({k} < {depth})"
        address = f"{k} * ld{i} + {j}" if transposed else f"{j} * ld{i} + {k}"
        name = f"w{i}{'t' if transposed else ''}{'_sum' if single else ''}_{number}"
        return self.once(name, f"tl.load(m{i} + {address}, mask={mask}, other=0.0)")
