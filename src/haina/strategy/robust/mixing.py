"""Mixing: a linear step before a robust rule.

Nearest-neighbour mixing, adaptive clipping and norm clipping are one idea: from the Gram matrix, a matrix M `[n, n]` whose rows take the place of the
clients' vectors. The rule that follows sees `M G M'` and blocks `M @ block` and needs not know; if it answers with coefficients c, then `M'c` are
those of the clients' own vectors. So mixing in front of a Gram rule costs nothing that grows with d, and mixings can be chained.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.strategy.parts import Combined
from haina.strategy.robust.ordered import namespace
from haina.strategy.robust.rule import GramRule, Rows, Rule, finite
from haina.update import Vector


@dataclass(frozen=True)
class Mixed:
    """Rows seen through a matrix: row i is `matrix[i] @ rows` and still belongs to client i.

    Args:
        rows: what is mixed, n rows.
        clients: m names.
        matrix: `[m, n]`.
    """

    rows: Rows
    clients: tuple[str, ...]
    matrix: Vector

    @cached_property
    def gram(self) -> Vector:
        """`[m, m]` inner products of the mixed rows."""
        out: Vector = self.matrix @ self.rows.gram @ self.matrix.T
        return out

    def blocks(self, width: int) -> Iterator[tuple[slice, Any]]:
        """Yield `(columns, block [m, <= width])`, mixed on the fly in the library of the rows."""
        for columns, block in self.rows.blocks(width):
            if isinstance(block, np.ndarray):
                matrix: Any = self.matrix.astype(block.dtype, copy=False)
            else:
                matrix = namespace(block).asarray(self.matrix, dtype=block.dtype, device=block.device)
            yield columns, matrix @ block

    def combine(self, coefficients: Vector) -> Array:
        """`coefficients @ mixed rows`."""
        return self.rows.combine(coefficients @ self.matrix)

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> Mixed:
        """The given mixed rows only."""
        index = [int(i) for i in index]
        return Mixed(self.rows, tuple(self.clients[i] for i in index), self.matrix[index])


class Mixing(GramRule):
    """A mixing and the rule that follows it; it has coefficients where that rule has them."""

    #: The rule that sees the mixed rows.
    then: Rule

    @property
    def uses_shares(self) -> bool:
        """As the following rule."""
        return self.then.uses_shares

    @property
    def gives_coefficients(self) -> bool:
        """As the following rule."""
        return self.then.gives_coefficients

    @abstractmethod
    def matrix(self, gram: Vector) -> Vector:
        """`[n, n]` matrix whose rows take the place of the n rows that `gram` is of."""

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """Coefficients of the unmixed rows."""
        matrix = self.matrix(gram)
        return self.then.coefficients(matrix @ gram @ matrix.T, shares) @ matrix

    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """What the following rule makes of the mixed rows, with the coefficients of the unmixed ones."""
        matrix = self.matrix(finite(rows.gram))
        inner = self.then.reduce(Mixed(rows, rows.clients, matrix), shares)
        if inner.coefficients is None:
            return inner
        return replace(inner, coefficients=inner.coefficients @ matrix)
