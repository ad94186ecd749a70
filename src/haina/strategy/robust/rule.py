"""What robust rules share: they look at rows through the Gram matrix or through blocks of columns, and only at clients with a share.

Almost every rule is a linear combination of the vectors chosen from their pairwise geometry, and that geometry is the `[n, n]` Gram matrix. A
`GramRule` computes n coefficients from it, so the d-dimensional rows are read twice whatever the rule does: once for the Gram matrix, once for
the combination. A `ColumnRule` (median, trimmed mean) works on one coordinate at a time and reads the rows once, block by block.

Clients with share 0 do not compete: they are taken out before a rule looks, are no one's neighbour, and do not count in n.

The trap: the Gram matrix loses digits when vectors are long and close together. Combine increments, never the models themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import RoundError, StrategyError
from haina.strategy.parts import Combined, Needs, Payload
from haina.strategy.robust.geometry import distances
from haina.strategy.robust.ordered import WIDTH
from haina.update import Cohort, Vector, to_numpy


class Rows(Protocol):
    """n rows of length d as a rule sees them: a `Cohort`, or a cohort seen through a mixing matrix."""

    @property
    def clients(self) -> tuple[str, ...]:
        """n names."""

    @property
    def gram(self) -> Vector:
        """`[n, n]` inner products."""

    def blocks(self, width: int) -> Iterator[tuple[slice, Any]]:
        """Yield `(columns, block [n, <= width])`."""

    def combine(self, coefficients: Vector) -> Array:
        """`coefficients @ rows`: `[n]` -> `[d]`."""

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> Self:
        """The given rows only."""


@dataclass(frozen=True)
class Rule(ABC):
    """A robust combiner."""

    needs: ClassVar[Needs] = Needs.VECTORS
    payload: ClassVar[Payload] = Payload.AVERAGE

    @property
    def uses_shares(self) -> bool:
        """False for rules that give every client one voice; shares then only say who takes part (> 0)."""
        return True

    @property
    def gives_coefficients(self) -> bool:
        """False for rules that work coordinate by coordinate."""
        return True

    @abstractmethod
    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """One vector out of rows that all compete; `shares` `[n]` are > 0 and sum to 1."""

    def coefficients(self, gram: Vector, shares: Vector) -> Vector:
        """`[n]` coefficients from the `[n, n]` Gram matrix, for rules that have them.

        Raises:
            StrategyError: the rule is not a linear combination found from the Gram matrix.
            RoundError: no share is positive, the Gram matrix is not finite, or n is too small for the rule.
        """
        raise StrategyError(
            f"{type(self).__name__} needs the vectors themselves",
            allowed="a rule with coefficients, such as GeometricMedian, MultiKrum or CAF",
        )

    def combine(self, cohort: Cohort, shares: Vector) -> Combined:
        """Combine the scaled rows of `cohort` under `shares` `[n]`; those with share 0 stay out.

        Evidence is NaN for clients that stayed out; `distance` is from each vector to the aggregate, where the rule has coefficients.

        Raises:
            RoundError: no share is positive, a vector is too long to measure, or n is too small for the rule.
        """
        present = competing(shares)
        rows = cohort if len(present) == len(cohort) else cohort.take(present)
        inner = self.reduce(rows, normalised(shares[present]))
        evidence = dict(inner.evidence)
        coefficients = inner.coefficients
        if coefficients is not None:
            evidence["distance"] = distances(rows.gram, coefficients)
            coefficients = _scatter(coefficients, present, len(cohort), 0.0)
        return Combined(
            inner.vector,
            coefficients,
            {name: _scatter(values, present, len(cohort), np.nan) for name, values in evidence.items()},
        )


class GramRule(Rule):
    """A rule whose answer is a linear combination found from the Gram matrix."""

    @abstractmethod
    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """`[n]` coefficients of clients that all compete; `gram` is finite, `shares` are > 0 and sum to 1."""

    def evidence(self, gram: Vector) -> Mapping[str, Vector]:
        """Named `[n]` numbers that say why."""
        return {}

    def coefficients(self, gram: Vector, shares: Vector) -> Vector:
        """`[n]` coefficients from the `[n, n]` Gram matrix; 0 where the share is 0.

        Raises:
            RoundError: no share is positive, the Gram matrix is not finite, or n is too small for the rule.
        """
        present = competing(shares)
        inner = finite(gram[np.ix_(present, present)])
        return _scatter(self.solve(inner, normalised(shares[present])), present, len(shares), 0.0)

    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """The combination of `rows` under `solve`."""
        gram = finite(rows.gram)
        coefficients = self.solve(gram, shares)
        return Combined(rows.combine(coefficients), coefficients, self.evidence(gram))


class ColumnRule(Rule):
    """A rule that works coordinate by coordinate, every client with one voice."""

    @property
    def uses_shares(self) -> bool:
        """False."""
        return False

    @property
    def gives_coefficients(self) -> bool:
        """False."""
        return False

    @abstractmethod
    def columns(self, block: Any, shares: Vector) -> Any:
        """`[n, width]` block -> `[width]` row, in the library of the block (NumPy, torch, JAX)."""

    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """`columns` of every block."""
        pieces = [to_numpy(self.columns(block, shares)) for _, block in rows.blocks(WIDTH)]
        return Combined(np.concatenate(pieces), None)


def competing(shares: Vector) -> NDArray[np.intp]:
    """Row numbers of the clients with a positive share (RoundError if there are none)."""
    present = np.flatnonzero(shares > 0)
    if not present.size:
        raise RoundError("no client has a positive share", allowed="at least one")
    return present


def finite(gram: Vector) -> Vector:
    """The Gram matrix, or RoundError if a product overflowed: a NaN distance would win every comparison."""
    if not np.isfinite(gram).all():
        rows = np.flatnonzero(~np.isfinite(np.diag(gram)))
        raise RoundError(
            f"{max(len(rows), 1)} of {len(gram)} vectors are too long to measure",
            allowed="squared norms that the vectors' dtype can hold",
            remedy="Validate updates (finite, bounded norm) before combining them",
        )
    return gram


def normalised(shares: Vector) -> Vector:
    """Shares that sum to 1."""
    out: Vector = shares / shares.sum()
    return out


def _scatter(values: Vector, index: NDArray[np.intp], n: int, fill: float) -> Vector:
    out = np.full(n, fill)
    out[index] = values
    return out
